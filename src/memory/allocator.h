/* The server's jemalloc, steered so that it keeps out of a snapshot's way.
 *
 * While frozen
 *  - new values of the main thread go to an arena of their own, whose memory
 *    was not there at the freeze and is therefore not protected; no freed place on
 *    a protected page comes into the thread cache, to be reused from there;
 *  - nothing decays, so that no page is purged which would have to be kept
 *    first.
 * Both are for speed. That nothing is lost when the allocator purges all the
 * same is the guard's business (host/guard.h).
 *
 * The arenas come from a small pool (memory/arena_pool.h).
 *
 * Thread: the main thread only; jemalloc's thread.* settings are its own.
 */
#ifndef RDB_UFFD_MEMORY_ALLOCATOR_H
#define RDB_UFFD_MEMORY_ALLOCATOR_H

#include <stdbool.h>
#include <stdint.h>

/* Finds jemalloc in this process: the shared library, or the one built into
 * the server. 0, or -ENOTSUP when there is none. */
int allocator_find(void);
/* A function of the allocator, to find the object it lives in. */
const void *allocator_function(void);
/* What stands before the names of its functions: "je_" as a rule where it is built in. */
const char *allocator_prefix(void);

/* Makes room for the arenas of memory/arena_pool.h. 0 or -errno: there will be none. From
 * here on the server's arenas grow in small steps: what they have asked for and not touched
 * yet is slow to protect. */
int allocator_create_pool(void);
/* They grow as before. When the module leaves. */
void allocator_leave_growth(void);
/* Joins the calling thread to the main thread's arena, if allocator_create_pool() has
 * been called: when the last thread leaves an arena, jemalloc purges all of it at once,
 * which in the pause took up to seconds. For a thread that hardly allocates. */
void allocator_stay_at_home(void);
/* Makes the next arena ready, so that allocator_steer() need not. Costs up to
 * some 100 us; outside of the pause. */
void allocator_prepare_arena(void);
/* Moves the main thread to a fresh arena. In the pause, before the protection:
 * emptying the thread cache writes to many pages. `past_is_kept_back`: free() keeps what
 * is older out of the thread cache; otherwise that is switched off, and each command
 * costs more. */
void allocator_steer(bool past_is_kept_back);
/* Looks at jemalloc's statistics, for the two below. */
void allocator_measure(void);
/* What the fresh arena holds more than at the freeze. */
uint64_t allocator_fresh_bytes(void);
/* A few times a second while frozen: once the fresh arena holds more than `bytes`, and
 * what has been evicted for it in this snapshot, the main thread goes back to its own,
 * where it costs more faults but no more memory. False when it is there. */
bool allocator_stay_below(uint64_t bytes, uint64_t evicted);
/* Stops the decay, if it is not stopped. Soon after the pause: it wakes
 * jemalloc's own threads. */
void allocator_stop_decay(void);
/* Undoes both. */
void allocator_restore(void);

#endif
