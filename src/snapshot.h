/* The one snapshot there can be at a time, and what its threads share.
 *
 * In the module's own data, which is never protected and which a forked child
 * gets a copy of. Fields are grouped by who writes them.
 */
#ifndef RDB_UFFD_SNAPSHOT_H
#define RDB_UFFD_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "host/server.h"
#include "kernel/ability.h"
#include "kernel/thread.h"
#include "memory/heap.h"
#include "memory/preserved.h"
#include "rdb_uffd.h"
#include "view/fault_server.h"
#include "view/view.h"

/* How far the save is. The saver moves it on; a kill may only move it from
 * SAVING to CANCELLED, so a dump is either published or given up, not both. */
enum phase {
    PHASE_NONE,
    PHASE_SAVING,
    PHASE_CANCELLED,
    PHASE_PUBLISHING, /* renaming: too late to cancel */
    PHASE_RELEASING,
};

#define MESSAGE_BYTES 320
#define MESSAGES      16

struct snapshot {
    /* Main thread; constant while a snapshot is under way. */
    const struct rdb_uffd_host *host;
    struct rdb_uffd_settings settings;
    struct ability ability;
    struct child_request request;
    struct server_capture capture;
    struct rdb_output *output;
    uint64_t freeze_began_usec;
    uint64_t step_began_usec;
    uint64_t capture_usec, prepare_usec, steer_usec, protect_usec;

    struct heap heap;           /* under heap_lock() */
    struct preserved preserved; /* the fault server writes */
    struct view view;
    struct fault_server fault_server;

    _Atomic uint32_t phase;       /* enum phase; futex word */
    _Atomic uint32_t cancellers;  /* who may be about to cancel the output */
    _Atomic bool frozen;          /* pages must be kept before they are dropped */
    _Atomic uint32_t saves_begun; /* futex word: the saver waits for it */
    _Atomic uint32_t saves_ended; /* futex word: a blocking waitpid() waits for it */
    _Atomic int kill_signal;
    _Atomic bool stopping;

    /* Saver. */
    struct thread saver;
    _Atomic uint64_t keys_saved;
    _Atomic uint64_t keys_total;
    const char *failed_where; /* static text */

    /* Keeper. */
    struct thread keeper;
    _Atomic uint32_t chores; /* futex word: something to do */
    _Atomic uint64_t huge_pages_mended;
    _Atomic bool mend_wanted;

    /* Any of ours; handed to the log by the main thread. Lock: `log_lock`. */
    _Atomic uint32_t log_lock;
    unsigned log_first, log_count;
    struct {
        enum rdb_uffd_level level;
        char text[MESSAGE_BYTES];
    } log[MESSAGES];

    /* Counters for the statistics. */
    _Atomic uint64_t snapshots_ok;
    _Atomic uint64_t snapshots_failed;
    _Atomic uint64_t last_freeze_usec;
    _Atomic uint64_t last_save_msec;
    _Atomic uint64_t last_release_usec;
    _Atomic uint64_t last_pages_preserved;
    _Atomic uint64_t last_spool_peak_bytes;
    _Atomic uint64_t last_bytes_peak;
    _Atomic uint64_t last_frozen_bytes;
    _Atomic uint64_t advices_refused;
    char last_error[160]; /* written by the saver before saves_ended moves on */
};

extern struct snapshot the_snapshot;

/* Queues a line for the server's log; when the queue is full the line is lost.
 * Any of our threads but the fault server. */
void snapshot_log(struct snapshot *snapshot, enum rdb_uffd_level level,
                  const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Makes the saver's output stop waiting. Any thread, async-signal-safe. */
void snapshot_cancel_output(struct snapshot *snapshot);

static inline enum phase snapshot_phase(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->phase, memory_order_acquire);
}

#endif
