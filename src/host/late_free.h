/* Frees of the main thread, put off while a snapshot is frozen.
 *
 * Freeing a value writes to the allocator's own tables, which are protected like
 * all else. Those pages are few (one in two thousand) but every free hits one:
 * right after a freeze each overwritten value cost two more faults than the
 * write itself. So the main thread's free() only notes the address, and the
 * memory is given back when the snapshot is over, a little at a time.
 *
 * Bounded in number and bytes; beyond that, and for all other threads, free()
 * frees. Main thread.
 */
#ifndef RDB_UFFD_HOST_LATE_FREE_H
#define RDB_UFFD_HOST_LATE_FREE_H

#include <stdbool.h>
#include <stdint.h>

/* Memory that may be held back, in all. */
#define LATE_FREE_BYTES_MAX (UINT64_C(32) << 20)

/* Patches the executable's free() and sdallocx(). 0, -ENOENT when it calls neither
 * (an allocator built into it: then frees are not put off), or -errno. `free_fresh`
 * may free memory in a way of its own: then it returns true. */
int late_free_install(bool (*free_fresh)(void *memory));
/* Frees what is left and puts free() back. */
void late_free_remove(void);
void late_free_begin(void);
void late_free_end(void);
/* Frees for at most `usec` microseconds. True if some are left. */
bool late_free_some(uint64_t usec);
/* In the child of a real fork. */
void late_free_forked(void);
uint64_t late_free_bytes(void);

#endif
