/* How fast the writers dirty the heap, and the buffer that a save would need.
 *
 * The keeper measures, between saves: it takes the heap out of the snapshot's
 * userfaultfd and counts the written pages with another one (memory/dirty.h). A save
 * that begins meanwhile wins: the main thread gives the heap back and the
 * measurement ends with -ECANCELED.
 *
 *   NONE ──ask()──▶ WANTED ──keeper──▶ RUNNING ──▶ DONE ──take()──▶ NONE
 *                      └──keeper: switched off──────▶ DONE
 */
#ifndef RDB_UFFD_DIRTY_RATE_H
#define RDB_UFFD_DIRTY_RATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memory/dirty.h"
#include "memory/dirty_prediction.h"

#define DIRTY_RATE_MAX_SECONDS 60u
#define DIRTY_RATE_SAMPLES     10u

struct rdb_uffd_dirty_rate {
    uint64_t measured_msec;
    uint64_t heap_bytes;
    uint64_t pages;     /* of 4 KB, written at least once in this time */
    uint64_t save_msec; /* the next save takes as long as the last one that succeeded; 0:
                           there is none, and the prediction is for the measured time */
    uint64_t predicted_pages;
    uint64_t predicted_bytes;     /* of buffer, the index included */
    uint64_t predicted_lz4_bytes; /* the same, with every page packed that can be */
    uint64_t recommended_limit;   /* for `buffer-limit` */
};

struct dirty_rate {
    _Atomic uint32_t state;
    _Atomic bool stop;
    unsigned seconds; /* this and the next set by who asks */
    struct dirty_sampling sampling;
    struct dirty dirty; /* under heap_lock() */
    uint64_t heap_bytes;
    struct dirty_count count; /* when last looked */
    uint32_t packed_permille;
    unsigned sample_count;
    struct dirty_sample samples[DIRTY_RATE_SAMPLES];
    int error;
};

struct snapshot;

/* Before anything else, at load. */
void dirty_rate_init(struct snapshot *snapshot);
/* Main thread. `heap_bytes`: about, for the sample. 0; -EBUSY when one is under way. */
int dirty_rate_ask(struct snapshot *snapshot, unsigned seconds, uint64_t heap_bytes);
/* Main thread. -EAGAIN while it is measured; else 0 with `*result`, or why there is
 * none: -ECANCELED (a save began), -ESHUTDOWN (switched off), -ENOTTY or -EINVAL (the
 * kernel cannot) … */
int dirty_rate_take(struct snapshot *snapshot, struct rdb_uffd_dirty_rate *result);
/* Main thread, before it takes the heap's lock for a freeze; and with the lock held. */
void dirty_rate_stop(struct snapshot *snapshot);
void dirty_rate_give_back(struct snapshot *snapshot);
/* Main thread: one was asked for, and its result has not been taken. */
bool dirty_rate_is_active(struct snapshot *snapshot);
/* Whether the keeper should leave off what can wait. */
bool dirty_rate_is_wanted(struct snapshot *snapshot);
/* Keeper: measures if somebody has asked. Returns when that is over. */
void dirty_rate_run(struct snapshot *snapshot);
/* Keeper: the module has been switched off; who has asked gets -ESHUTDOWN. */
void dirty_rate_refuse(struct snapshot *snapshot);

#endif
