/* The guard: stands in front of the calls with which the allocator, or the
 * server, gives memory back to the kernel or takes more.
 *
 * The kernel drops a protected page without a fault when it is told to (madvise, mmap
 * over it), so what stood there must be preserved first. An advice may also be refused; it
 * is never swallowed, because jemalloc takes success for "these pages read as zeros
 * now". And frozen memory must stay readable, since a reader of the past looks at the
 * live page first: an munmap is put off, what would move or lock it is refused.
 */
#ifndef RDB_UFFD_HOST_GUARD_H
#define RDB_UFFD_HOST_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct guard_operations {
    /* True while pages must be preserved. Any thread, also in a forked child. */
    bool (*frozen)(void);
    /* Preserves [start, end). 0 when the kernel may drop the range; -errno to
     * refuse, heeded only if `may_refuse`. Any thread. */
    int (*preserve)(uint64_t start, uint64_t end, bool may_refuse);
    /* Whether any byte of [start, end) is read by the snapshot. Asked only while
     * frozen. Any thread. */
    bool (*is_past)(uint64_t start, uint64_t end);
    /* Will unmap [start, end) when the snapshot ends. False: not taken (no room, or
     * the kernel will say EINVAL). Asked only of what is past. Any thread. */
    bool (*put_off)(uint64_t start, uint64_t end);
    /* Memory that reads as zeros, instead of new one from the kernel; NULL when
     * there is none. Asked only while frozen. Any thread. */
    void *(*prefaulted)(size_t length);
    /* New memory came, or memory went (`length` 0). Any thread. */
    void (*mapped)(void *start, size_t length);
};

/* Patches the allocator's object (the one that holds `allocator_function`) and
 * the main executable. 0 or -errno, and then nothing is patched. */
int guard_install(const struct guard_operations *operations,
                  const void *allocator_function);
/* Once frozen() is true: until no thread is amid a call that it began before, and that may
 * drop what is protected from now on. 0; -EBUSY when one is still there after
 * LOCK_IN_TIME_USEC, at once if the last time was in vain. Main thread. */
int guard_wait_for_calls(void);
/* Whether the calls can be put back: 0, or -EBUSY and a sentence in `reason`. */
int guard_check(char *reason, size_t size);
/* Puts the calls back. When it returns no thread is in an operation, and none will be:
 * one that was in one of the calls goes on with them as if there were no guard. */
void guard_remove(void);

#endif
