/* The arenas that new values go to while frozen, and their memory.
 *
 * The values live on after the snapshot. As they are overwritten or deleted, their
 * places must become free for the next snapshot:
 *  - free() must not put them into a thread cache, which would hand them out for the
 *    next value: arena_pool_free() does that, for memory it knows by address;
 *  - what is free is purged, and known as decommitted (memory/decommitted.h).
 * An arena is never destroyed; the emptiest is taken next.
 *
 *   address >> 21      2^26 bytes, one for each 2 MB of the address space: 0, or the
 *   ┌─┬─┬─┬─┬─┬─┬─┐    number of the last snapshot for which an arena of the pool
 *   │0│0│7│7│0│0│9│    got memory there. Other memory may share the 2 MB: its frees
 *   └─┴─┴─┴─┴─┴─┴─┘    are slower, or it is used again at once, and both is right.
 *
 * What has the number of the snapshot under way is not part of its past: the thread
 * cache may have that.
 */
#ifndef RDB_UFFD_MEMORY_ARENA_POOL_H
#define RDB_UFFD_MEMORY_ARENA_POOL_H

#include <stdbool.h>
#include <stddef.h>

#define ARENA_POOL_SIZE 4

typedef int (*mallctl_function)(const char *name, void *old, size_t *old_length,
                                void *new_value, size_t new_length);

/* With jemalloc's mallctl(), and its dallocx() or NULL. 0 or -ENOMEM: then there will
 * be no arenas. Main thread, like all but what says otherwise. */
int arena_pool_create(mallctl_function mallctl, void (*dallocx)(void *memory, int flags));
/* False: somebody else has put his own hooks into one of the arenas since. */
bool arena_pool_may_leave(void);
/* Leaves the arenas to jemalloc. A thread may be in one of them, and in a hook. */
void arena_pool_leave(void);
/* Makes one more arena, if there are not enough. Some 100 us. */
void arena_pool_grow(void);
/* The emptiest arena. False: there is none. */
bool arena_pool_next(unsigned *arena);
/* Pages that an arena holds, freed ones included. As of the last "epoch". */
size_t arena_pool_pages_of(unsigned arena);
size_t arena_pool_pages(void);
/* Gives back what is free in the arenas, which nobody allocates in until the next
 * snapshot. Milliseconds. Upkeep thread; never while frozen. */
void arena_pool_purge(void);
/* Between the two, memory that the arenas get is young. */
void arena_pool_begin_snapshot(void);
void arena_pool_end_snapshot(void);
/* Whether the next two ever do something. */
bool arena_pool_can_free(void);
/* True if `memory` was the pool's, and has been freed: past the thread cache, unless it is
 * young. Any thread. */
bool arena_pool_free(void *memory);
/* The same with memory of any arena, past the thread cache. */
bool arena_pool_free_past(void *memory);

#endif
