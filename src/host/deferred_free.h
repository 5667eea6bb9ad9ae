/* Frees of the main thread, put off while a snapshot is frozen.
 *
 * Freeing a value writes to the allocator's own tables, which are protected like
 * all else. Those pages are few (one in two thousand) but every free hits one:
 * right after a freeze each overwritten value cost two more faults than the
 * write itself.
 *
 * What becomes of a block that the server frees during a save, from free() to the kernel:
 *
 *   free() of another thread       the allocator's at once; its writes fault like any
 *   free() of the main thread      put_off() here:
 *     in fresh memory              freed, and used again, at once: arena_pool_free()
 *     of no interest to UFFD.DIRTYRATE (`is_kept_back`): freed at once
 *     no room for the note: too many, or too many bytes that cannot be evicted
 *                                  freed past the thread cache, so that no new value comes
 *                                  to lie on a protected page: arena_pool_free_past()
 *     else                         its address is noted; nothing of it is written or read
 *        │
 *        ├─ of a page or more, and new values have taken much memory (limit_share() in
 *        │  snapshot/limit_share.c): the upkeep thread writes its pages to the spool, tells
 *        │  the fault server, and gives the memory back: snapshot/eviction.h. It stays noted.
 *        ├─ new values have taken their part of the limit, or the save is over, or the
 *        │  measurement: the tick, rdb_uffd_tick(), ends it with deferred_free_end(). Then
 *        │  it frees for a millisecond a tick, deferred_free_some(), and each further
 *        │  free() frees two that are noted. A new save leaves what is noted to the tick after it.
 *        ├─ the module is unloaded: all of it is freed, deferred_free_remove().
 *        └─ in a real fork's child: forgotten; the notes are its parent's.
 *
 *   What the allocator gives back to the kernel passes the guard (host/guard.h). While
 *   frozen, what madvise() drops is preserved first, or refused; what munmap() takes stays
 *   mapped until the end of the snapshot (memory/deferred_unmap.h).
 *
 * Main thread, but where it says so.
 */
#ifndef RDB_UFFD_HOST_DEFERRED_FREE_H
#define RDB_UFFD_HOST_DEFERRED_FREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* Memory that may be held back, in all, if it cannot be evicted. */
#define DEFERRED_FREE_BYTES_MAX (UINT64_C(32) << 20)

/* Finds the server's free(), sdallocx() and free_with_usize(), `prefix` before their names.
 * An allocator that is built into the executable is called directly: then their code is
 * replaced, once and for all, before this process has a second thread (host/entry.h). Frees
 * go on as ever. */
void deferred_free_reach(const void *allocator_function, const char *prefix);
/* Why that is not possible, and nothing will be put off; "" if it is. */
const char *deferred_free_obstacle(void);
/* After deferred_free_reach(), patches the executable's imports unless its code has been
 * replaced. 0, or -errno: then nothing will be put off. The two free memory in a way of
 * their own, or return false: `free_fresh` what may be used again at once, `free_past`
 * what may not, and is not put off because there is too much of it. */
int deferred_free_install(bool (*free_fresh)(void *memory),
                          bool (*free_past)(void *memory));
bool deferred_free_is_installed(void);
/* Whether the calls can be put back: 0, or -EBUSY and a sentence in `reason`. */
int deferred_free_check(char *reason, size_t size);
/* Frees what is left and puts free() back. */
void deferred_free_remove(void);
/* `evictable`: somebody takes the pages of what is put off. `is_kept_back`: says what to
 * put off, the rest is freed as ever; NULL: all. */
void deferred_free_begin(bool evictable, bool (*is_kept_back)(const void *memory));
/* When it returns true, deferred_free_hold() holds nothing and finds nothing. False: whoever
 * holds has not let go within 4 s, and what is noted stays; the next call waits no more. */
bool deferred_free_end(void);
/* What has been put off, each piece of memory given once: nobody will read or write it
 * until deferred_free_let_go(), which must follow in any case. Returns how many, at most
 * `most`. One other thread, which holds a lock meanwhile: deferred_free_end() waits for as
 * long. That is a millisecond or two, as long as the fault server answers and the memory is
 * there (docs/WAITS.md).
 */
size_t deferred_free_hold(struct iovec *memory, size_t most);
void deferred_free_let_go(void);
/* For a while without holding, since the main thread may have to wait for whoever holds:
 * deferred_free_opening() while holding, let go, and then hold again, in any case. True
 * if what was given before may still be used; false if it may have been freed since. */
uint64_t deferred_free_opening(void);
bool deferred_free_hold_again(uint64_t opening);
/* False when the main thread waits for deferred_free_let_go(). */
bool deferred_free_is_open(void);
/* Frees for at most `usec` microseconds. True if some are left. */
bool deferred_free_some(uint64_t usec);
/* In the child of a real fork; with `leave_past` nothing of the past is freed there. */
void deferred_free_forked(bool leave_past);
uint64_t deferred_free_bytes(void);

#endif
