/* The saver's pace: it makes way for the threads of the server that write, and stays off
 * their CPU. Saver.
 */
#ifndef RDB_UFFD_PACE_H
#define RDB_UFFD_PACE_H

#include <stdint.h>

#include "snapshot.h"

struct pace {
    uint64_t faults_seen;
    uint64_t cpu_seen_usec;
    uint64_t looked_usec;
    uint64_t began_usec, cpu_began_usec; /* of the saver */
    uint64_t yielded_usec;
};

/* The first moments after a freeze: rests, since nearly every write of the server hits a
 * page for the first time then. */
void pace_begin(struct pace *pace, struct snapshot *snapshot);
/* To be called often: rests while writers have no CPU left, within a bound. */
void pace_yield(struct pace *pace, struct snapshot *snapshot, uint64_t now);

/* Takes the CPUs that the operator wants it on, or others than the writer's. `all`: where
 * it may be; `for_workers` is filled in. */
void pace_take_cpus(struct snapshot *snapshot, const struct thread_cpus *all,
                    struct thread_cpus *for_workers);

#endif
