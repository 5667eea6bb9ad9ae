/* The server's jemalloc, steered so that it keeps out of a snapshot's way.
 *
 * While frozen
 *  - new values of the main thread go to an arena of their own, whose memory
 *    was not there at the freeze and is therefore not protected; with the
 *    thread cache off, so that no freed place on a protected page is reused;
 *  - nothing decays, so that no page is purged which would have to be kept
 *    first.
 * Both are for speed. That nothing is lost when the allocator purges all the
 * same is the guard's business (host/guard.h).
 *
 * Arenas are taken in turn from a small pool: none is ever destroyed, since the
 * values in it live on.
 *
 * Thread: the main thread only; jemalloc's thread.* settings are its own.
 */
#ifndef RDB_UFFD_MEMORY_ALLOCATOR_H
#define RDB_UFFD_MEMORY_ALLOCATOR_H

#include <stdbool.h>
#include <stddef.h>

/* Finds jemalloc in this process: the shared library, or the one built into
 * the server. 0, or -ENOTSUP when there is none. */
int allocator_find(void);
/* A function of the allocator, to find the object it lives in. */
const void *allocator_function(void);

/* Makes the next arena ready, so that allocator_steer() need not. Costs up to
 * some 100 us; outside of the pause. */
void allocator_make_ready(void);
/* Moves the main thread to a fresh arena. In the pause, before the protection:
 * emptying the thread cache writes to many pages. */
void allocator_steer(void);
/* Stops the decay, if it is not stopped. Soon after the pause: it wakes
 * jemalloc's own threads. */
void allocator_stop_decay(void);
/* Undoes both. */
void allocator_restore(void);

#endif
