/* The heap: which mappings of this process belong to the server's data, kept
 * registered with one userfaultfd so that a freeze only has to protect them.
 *
 * Every private anonymous mapping counts, except those of loaded objects (.bss), the
 * main stack, what is surely another thread's stack, and the allocator's own blocks, once they
 * are known (memory/metadata.h). That is more than the
 * allocator's memory: protecting too much costs a few faults, and too little would be
 * a wrong snapshot. Shared mappings never count; all that our own threads write to is
 * in such.
 *
 * Lock: heap_lock()/heap_unlock() around every function below but where it says
 * otherwise. Who takes it, and what may be taken under it: docs/THREADS.md.
 */
#ifndef RDB_UFFD_MEMORY_HEAP_H
#define RDB_UFFD_MEMORY_HEAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/ability.h"
#include "kernel/mappings.h"
#include "memory/regions.h"

struct prefaulted_memory;
struct protection;

struct heap {
    struct prefaulted_memory *prefaulted; /* not part of the heap yet; may be NULL */
    _Atomic uint32_t locked;              /* futex word */
    bool holder_is_late;                  /* the main thread's: it has waited in vain */
    _Atomic uint32_t changes; /* mappings that came or went, counted by hooks */
    uint32_t changes_seen;
    int statm; /* tells of changes that no hook sees; -1: not open */
    struct mappings_extent extent_seen;
    uint32_t metadata_seen; /* of metadata_changes() */
    bool whole;             /* heap_want_whole() */
    int userfaultfd;        /* -1: not open */
    _Atomic bool disarmed;  /* heap_disarm_now() was called */
    int pagemap;            /* -1: not open */
    /* Before Linux 6.8.10 the marks of protection stay on pages when a userfaultfd is
     * closed (and before 6.12.10 when they are moved while they are protected): they would
     * be valid again once the pages are registered, or pass for protection. */
    bool has_marks;
    struct region_set registered;
    struct region_set seen;  /* scratch of heap_refresh() */
    struct region_set fresh; /* also what heap_protect() protects */
    struct region_set stacks;
    struct protection *protection;
};

/* 0 or -ENOMEM. */
int heap_create(struct heap *heap);
void heap_destroy(struct heap *heap);
void heap_lock(struct heap *heap);
/* For the main thread, which waits for no other one without end: 0, or -EBUSY after
 * LOCK_IN_TIME_USEC; at once if the last time was in vain. */
int heap_lock_in_time(struct heap *heap);
bool heap_try_lock(struct heap *heap);
void heap_unlock(struct heap *heap);

/* Tells that the process's mappings changed. Any thread, async-signal-safe. */
void heap_note_change(struct heap *heap);
/* Whether what is touched there from now on comes in huge pages. Any thread. */
void heap_ask_for_huge_pages(void *start, size_t length, bool wanted);
/* Whether there may be mappings that are not registered: hooks have told of some, or the
 * process has more or less memory than at the last refresh. Some microseconds. */
bool heap_is_stale(const struct heap *heap);

/* Opens the userfaultfd, and the page map, if they are not open. 0 or -errno. */
int heap_open(struct heap *heap, const struct ability *ability);
/* The emergency exit: everything loses its protection at once and all who wait
 * wake up. The descriptor's number stays taken (by an eventfd), because the
 * fault server may be about to use it; the next heap_open() opens a new one.
 * False when there is no descriptor to be had for that: nothing has changed.
 * Without heap_lock(), any thread. */
bool heap_disarm_now(struct heap *heap);

/* Whether the allocator's own blocks are part of it from the next refresh on: a child that
 * allocates has to have all of them as they were at one instant. */
void heap_want_whole(struct heap *heap, bool whole);
/* Reads the memory map and registers what is new. With `all`, registers
 * everything again (a mapping may have been replaced by another at the same
 * place). 0 or -errno, with what is registered as it was; -EAGAIN: the map changes too fast
 * to be read, or is never listed as a whole. */
int heap_refresh(struct heap *heap, bool all);

/* Looks which mappings are stacks of threads, for the next refresh: 8 MB each that
 * nobody has touched, and expensive to protect. Nothing of the past is on them. What is
 * taken for one must have the default size, a guard page below, and the stack pointer
 * of a waiting thread in it: a wrong guess would make the view refuse what is there.
 * Not in a freeze: reads a file for every thread. */
void heap_find_stacks(struct heap *heap);

/* Takes every region out of the userfaultfd, in slices with a rest between them, so
 * that another one can have them; the next heap_refresh() brings them back. 0, or
 * -ECANCELED when `*stop` became true: then some are still registered. */
int heap_unregister_all(struct heap *heap, const _Atomic bool *stop);

/* Protects every registered region, but for what the allocator holds without using it
 * (memory/decommitted.h); all or nothing. 0, or -errno with nothing protected. Main thread,
 * in the freeze; decommitted_thaw() is due afterwards in both cases. */
int heap_protect(struct heap *heap);
/* What the last heap_protect() has protected, or found protected. Stays as it is until the
 * next heap_refresh() or heap_protect(). */
const struct region_set *heap_content(const struct heap *heap);
/* Lifts the protection of [start, end), a part of the registered regions, and
 * wakes who waits there. Also without heap_lock(), any thread: what is registered is not
 * looked at. */
void heap_unprotect(struct heap *heap, uint64_t start, uint64_t end);

#endif
