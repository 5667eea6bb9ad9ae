/* Several threads on one walk: what is long is cut into tasks, and what the
 * workers write of them comes out in order.
 *
 *     units  0 .......................................................... end
 *            | delivered | done | done | being walked | done | being walked |
 *                        ^ the next to be delivered                         ^ to be taken
 *
 * The caller's thread gives what is done to its encoder. While the next task is not
 * done it takes one itself. A task whose bytes do not fit in memory is thrown away
 * and walked again by the caller's thread when its turn comes, straight into its
 * encoder: a value of any size costs no more memory than without a pool.
 *
 * Workers run when nobody else wants the CPU (SCHED_IDLE): on two CPUs one of them
 * takes what the server leaves of its own. Such a thread may not run again for long, so
 * it holds no lock at any time, and when all else is done the task that it has is taken
 * from it. On a machine that has no time for it it stays away for a while. Who waits for
 * its end lets it run like others.
 *
 * A task with a value of a module's type is walked again in the same way: who writes
 * these is asked by the caller's thread alone.
 *
 * Threads: worker_pool_resize(), worker_pool_begin() and worker_pool_end() by one thread
 * at a time, with no worker_pool_walk() under way; worker_pool_walk() by the thread that
 * saves.
 */
#ifndef RDB_UFFD_KEYSPACE_WORKER_POOL_H
#define RDB_UFFD_KEYSPACE_WORKER_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "keyspace/frozen.h"

#define WORKERS_MAX 15

struct worker_pool;

/* Walks the units from `from` to `to` (exclusive), writes to walk->encoder, adds what
 * it has written to walk->keys and walk->expiring. Called by several threads at a time,
 * each with a walk of its own; `context` is the same. 0 or -errno. */
typedef int (*task_body)(struct walk *walk, uint64_t from, uint64_t to,
                         const void *context);

/* NULL when memory is short. */
struct worker_pool *worker_pool_create(void);
void worker_pool_destroy(struct worker_pool *pool);
/* Threads besides the caller's, 0 to WORKERS_MAX. Fewer are started when no more
 * can be; returns how many there are. */
unsigned worker_pool_resize(struct worker_pool *pool, unsigned workers);
unsigned worker_pool_size(const struct worker_pool *pool);

/* Before a save: `observer` is asked by workers after every batch of keys and before
 * each task, then with 0 keys: -EAGAIN lets them rest for a moment. It must bear
 * several threads. `cpus`: where workers may
 * run. 0, or -ENOMEM (the save then goes without). */
int worker_pool_begin(struct worker_pool *pool, struct view *view,
                      rdb_compress_function compress, struct keyspace_observer *observer,
                      const struct thread_cpus *cpus);
void worker_pool_end(struct worker_pool *pool);

/* Has all units from 0 to `units` walked as `walk` would do it alone. `step`: how many
 * make a task at first. On failure walk->where tells what was being read.
 * `walk->pool` NULL: walks alone. 0 or -errno. */
int worker_pool_walk(struct walk *walk, uint64_t units, uint64_t step, task_body body,
                     const void *context);

#endif
