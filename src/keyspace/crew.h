/* Several threads on one walk: what is long is cut into shares, and what the members
 * of the crew write of them comes out in order.
 *
 *     units  0 .......................................................... end
 *            | given | done | done | being walked | done | being walked |
 *                    ^ the next to be given                             ^ to be taken
 *
 * The caller's thread gives what is done to its encoder. While the next share is not
 * done it takes one itself. A share whose bytes do not fit in memory is thrown away
 * and walked again by the caller's thread when its turn comes, straight into its
 * encoder: a value of any size costs no more memory than without a crew.
 *
 * Members run when nobody else wants the CPU (SCHED_IDLE): on two CPUs one of them
 * takes what the server leaves of its own. Such a thread may not run again for long, so
 * it holds no lock at any time, and when all else is done the share that it has is taken
 * from it. On a machine that has no time for it it stays away for a while. Who waits for
 * its end lets it run like others.
 *
 * Threads: crew_set_members(), crew_begin() and crew_end() by one thread at a time,
 * with no crew_do() under way; crew_do() by the thread that saves.
 */
#ifndef RDB_UFFD_KEYSPACE_CREW_H
#define RDB_UFFD_KEYSPACE_CREW_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "keyspace/frozen.h"

#define CREW_MEMBERS_MAX 15

struct crew;

/* Walks the units from `from` to `to` (exclusive), writes to walk->encoder, adds what
 * it has written to walk->keys and walk->expiring. Called by several threads at a time, each with a walk
 * of its own; `context` is the same. 0 or -errno. */
typedef int (*crew_body)(struct walk *walk, uint64_t from, uint64_t to,
                         const void *context);

/* NULL when memory is short. */
struct crew *crew_create(void);
void crew_destroy(struct crew *crew);
/* Threads besides the caller's, 0 to CREW_MEMBERS_MAX. Fewer are started when no more
 * can be; returns how many there are. */
unsigned crew_set_members(struct crew *crew, unsigned members);
unsigned crew_members(const struct crew *crew);

/* Before a save: `observer` is asked by members after every batch of keys and before
 * each share, then with 0 keys: -EAGAIN lets them rest for a moment. It must bear
 * several threads. `cpus`: where members may
 * run. 0, or -ENOMEM (the save then goes without). */
int crew_begin(struct crew *crew, struct view *view, rdb_compress_function compress,
               struct keyspace_observer *observer, const struct thread_cpus *cpus);
void crew_end(struct crew *crew);

/* Has all units from 0 to `units` walked as `walk` would do it alone. `step`: how many
 * make a share at first. On failure walk->where tells what was being read.
 * `walk->crew` NULL: walks alone. 0 or -errno. */
int crew_do(struct walk *walk, uint64_t units, uint64_t step, crew_body body,
            const void *context);

#endif
