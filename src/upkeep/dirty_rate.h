/* How fast the writers dirty the heap, and the buffer that a save would need.
 *
 * The upkeep thread measures, between saves: it takes the heap out of the snapshot's
 * userfaultfd and counts the written pages with another one (memory/dirty.h). A save
 * that begins meanwhile wins: the main thread gives the heap back and the
 * measurement ends with -ECANCELED.
 *
 *   NONE ──begin──▶ WANTED ──upkeep──▶ RUNNING ──▶ DONE ──end──▶ NONE
 *                      └──upkeep: switched off──────▶ DONE
 */
#ifndef RDB_UFFD_DIRTY_RATE_H
#define RDB_UFFD_DIRTY_RATE_H

#include <stdbool.h>
#include <stdint.h>

#define DIRTY_RATE_MAX_SECONDS 60u

struct rdb_uffd_dirty_rate {
    uint64_t measured_msec;
    uint64_t heap_bytes;
    uint64_t pages;     /* of 4 KB, written at least once in this time */
    uint64_t save_msec; /* the next save takes as long as the last one that succeeded; 0:
                           there is none, and the prediction is for the measured time */
    uint64_t predicted_pages;
    uint64_t predicted_bytes; /* of buffer, the index included */
    uint64_t
        predicted_backup_bytes; /* the same for a backup, to which reads are writes */
    uint64_t recommended_limit; /* for `buffer-limit` */
};

struct snapshot;

/* Before anything else, at load. */
void dirty_rate_init(void);
/* Begins to measure how fast the heap is written to, for 1 to DIRTY_RATE_MAX_SECONDS
 * seconds; 0: as long as the last save took, within 1 to 10. Returns NULL, or why it
 * cannot be done (static text, or valid until the module is unloaded). */
const char *rdb_uffd_begin_dirty_rate(unsigned seconds);
/* True when the measurement has ended: then `*result` is filled in, or `*failure` says
 * why there is none (else it is NULL). To be called until it returns true. */
bool rdb_uffd_end_dirty_rate(struct rdb_uffd_dirty_rate *result, const char **failure);

/* A save begins: the heap is given back, a measurement under way ends. Main thread, without
 * heap_lock(). Where that cannot be had in time the freeze cannot have it either. */
void dirty_rate_yield(struct snapshot *snapshot);
/* In a real fork's child: its parent's descriptor must not stay open here. */
void dirty_rate_forked(void);
/* Main thread: one was asked for, and its result has not been taken. */
bool dirty_rate_is_active(void);
/* Whether the upkeep thread should leave off what can wait. */
bool dirty_rate_is_wanted(void);
/* Upkeep thread: measures if somebody has asked. Returns when that is over. */
void dirty_rate_run(struct snapshot *snapshot);
/* Upkeep thread: the module has been switched off; who has asked gets -ESHUTDOWN. */
void dirty_rate_refuse(void);

#endif
