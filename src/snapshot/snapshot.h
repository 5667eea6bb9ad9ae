/* The one snapshot there can be at a time, and what its threads share.
 *
 * Who may wait for whom, and how long at most: docs/WAITS.md.
 * All threads, the order of locks, who wakes whom: docs/THREADS.md.
 *
 * In the module's own data, which is never protected and which a forked child
 * gets a copy of. Fields are grouped by who writes them.
 */
#ifndef RDB_UFFD_SNAPSHOT_H
#define RDB_UFFD_SNAPSHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "backup_order.h"
#include "callbacks.h"
#include "host/server_capture.h"
#include "kernel/ability.h"
#include "kernel/thread.h"
#include "memory/heap.h"
#include "memory/prefaulted.h"
#include "memory/preserved.h"
#include "reporting/history.h"
#include "settings.h"
#include "value_child/value_child.h"
#include "view/fault_server.h"
#include "view/view.h"

/* How far the save is. The saver moves it on; a kill may only move it to CANCELLED, from
 * SAVING or, after a short wait, from CREATING. So a dump is either published or given up,
 * never both; and the temporary file is there for the server to remove, or is never made. */
enum phase {
    PHASE_NONE,
    PHASE_SAVING,
    PHASE_CREATING, /* the temporary file; then SAVING again */
    PHASE_CANCELLED,
    PHASE_PUBLISHING, /* renaming: too late to cancel */
    PHASE_RELEASING,
};

/* Who told the server of the child's end. */
enum end {
    END_NOT_YET,
    END_BY_SAVER,
    END_LEFT,     /* somebody else, since the saver did not come back (rescue.h) */
    END_RETURNED, /* it has, since */
};

/* Why a save cannot be served: one line for the log. */
#define REASON_BYTES 256

#define MESSAGE_BYTES 480
#define MESSAGES      16

struct worker_pool;

/* The main thread asks, and takes that back when it has waited long enough; the thread
 * leaves. These two by compare-and-swap: only one of them happens. */
enum upkeep_leaving { UPKEEP_STAYS, UPKEEP_IS_TO_LEAVE, UPKEEP_LEAVES };

struct snapshot {
    /* Main thread; constant while a snapshot is under way, but for settings and limit, which
     * the operator may change, and that the saver gives back `output` and `capture`. */
    const struct rdb_uffd_host *host;
    struct rdb_uffd_settings settings;
    struct ability ability;
    struct child_request request;
    struct rdb_uffd_backup_order backup;
    struct server_capture capture;
    struct rdb_output *output;
    uint64_t limit; /* bytes, as the operator set it; a share of memory at the freeze */
    uint64_t freeze_began_usec;
    uint64_t step_began_usec;
    uint64_t capture_usec, prepare_usec, steer_usec, protect_usec;

    struct heap heap;                    /* under heap_lock() */
    struct prefaulted_memory prefaulted; /* for the allocator, while frozen */
    struct preserved preserved;          /* the fault server writes */
    struct view view;
    struct fault_server fault_server;

    _Atomic uint32_t phase;       /* enum phase; futex word */
    _Atomic uint32_t cancellers;  /* who may be about to cancel the output */
    _Atomic bool freezing;        /* what is mapped must stay so */
    _Atomic bool frozen;          /* pages must be preserved before they are dropped */
    _Atomic bool rescuing;        /* the emergency exit is being pulled (rescue.h) */
    _Atomic bool unreleased;      /* what the last snapshot held is still in use */
    _Atomic uint32_t end;         /* enum end, of the save under way or the last */
    _Atomic bool result_taken;    /* somebody has counted its result */
    _Atomic uint32_t saves_begun; /* futex word: the saver waits for it */
    _Atomic uint32_t saves_ended; /* futex word: a blocking waitpid() waits for it */
    _Atomic int kill_signal;
    uint64_t killed_usec; /* the main thread's */
    _Atomic bool stopping;
    _Atomic uint32_t upkeep_leaving; /* enum upkeep_leaving */

    /* Main thread in the freeze, then the saver. */
    struct value_child values;
    _Atomic bool child_failed; /* saves with values of modules' types fork */

    /* Saver. */
    struct thread saver;
    struct worker_pool *workers; /* help the saver; the main thread says how many */
    _Atomic uint64_t keys_saved;
    _Atomic uint64_t keys_total;
    const char *failed_where;    /* static text */
    int walk_error;              /* the walk met what cannot be; else 0 */
    frozen_address stranger;     /* … or what no walker knows: KEYSPACE_STRANGER */
    _Atomic bool backup_is_open; /* destination.h */
    _Atomic bool backup_is_over; /* and all that is known of it there to be taken */
    _Atomic uint64_t bytes_written;
    char backup_refusal[160]; /* why it could not be opened, "" if it could */
    /* The CPU of the writer and the fault server has no time left: whoever else
     * works for the snapshot rests. */
    _Atomic bool writers_pressed;
    /* Of the save under way: begun by the main thread, filled in by the saver, and
     * after child_exited() the main thread's again. id 0: there is none. */
    struct history_entry record;
    struct history_entry left_record; /* by whoever left it */
    _Atomic uint64_t rested_usec;     /* by the saver, in this save or the last */

    /* Upkeep thread; what is wanted of it, anyone. */
    struct thread upkeep;
    _Atomic uint32_t chores;     /* futex word: something to do */
    _Atomic bool upkeep_at_work; /* its own; who reports a crash looks at it */
    _Atomic uint64_t huge_pages_mended;
    _Atomic bool mend_wanted;
    _Atomic bool
        huge_pages_ahead; /* asked for where nothing is yet: upkeep/huge_pages.h */
    _Atomic uint64_t memory_spare;    /* bytes; memory_budget.h */
    _Atomic uint64_t eviction_wanted; /* bytes of dead values, in this snapshot */
    _Atomic bool eviction_hurry;
    _Atomic uint64_t evicted_bytes;

    /* Watchdog. */
    struct thread watchdog;
    _Atomic uint32_t watches; /* futex word: a freeze begins */
    /* The most that the fault server was ready to run and had no CPU between two looks, in
     * this save or the last. */
    _Atomic uint64_t fault_delay_usec;

    /* Any of ours; handed to the log by the main thread. Lock: `log_lock`. */
    struct short_lock log_lock;
    unsigned log_first, log_count;
    struct {
        enum rdb_uffd_level level;
        char text[MESSAGE_BYTES];
    } log[MESSAGES];

    /* Counters for the statistics. */
    _Atomic uint64_t snapshots_ok;
    _Atomic uint64_t snapshots_failed;
    _Atomic uint64_t snapshots_cancelled; /* by the server: no failure */
    _Atomic uint64_t backups_ok;          /* are not among these */
    _Atomic uint64_t backups_failed;
    _Atomic uint64_t backups_cancelled;
    _Atomic uint64_t last_freeze_usec;
    _Atomic uint64_t last_save_msec;
    _Atomic uint64_t last_whole_save_msec; /* of the last one that succeeded, 0: none */
    _Atomic uint64_t last_release_usec;
    _Atomic uint64_t last_pages_preserved;
    _Atomic uint64_t last_spool_peak_bytes;
    _Atomic uint64_t spool_pages_per_second; /* of the last save that spooled, or 0 */
    _Atomic uint64_t last_bytes_peak;
    _Atomic uint64_t last_index_bytes;
    _Atomic uint64_t last_pages_spooled_at_limit;
    /* By the main thread's ticks, in this save or the last: new values that count against
     * the limit, at most; and what they and control groups left of it, at least. Bytes. */
    uint64_t new_values_peak;
    uint64_t limit_least;
    _Atomic uint64_t last_frozen_bytes;
    _Atomic uint64_t last_protected_bytes;
    _Atomic uint64_t advices_refused;
    char last_error[160]; /* by whoever has taken the result (result_taken) */
};

extern struct snapshot the_snapshot;

/* Queues a line for the server's log; when the queue is full the line is lost.
 * Any of our threads but the fault server. */
void snapshot_log(struct snapshot *snapshot, enum rdb_uffd_level level,
                  const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The operator's limit for the buffer, bytes, as a share of what memory is in use now if
 * it is one. Main thread. */
uint64_t snapshot_limit(const struct snapshot *snapshot);

/* NULL, or why values of modules' types are saved by a fork and not through a child without a
 * heap: valid until the next call. Main thread. */
const char *snapshot_child_obstacle(struct snapshot *snapshot);

/* There may be something to do for the upkeep thread. Any thread, async-signal-safe. */
void snapshot_wake_upkeep(struct snapshot *snapshot);

/* What the server says that its data takes; 0: it does not say. Main thread. */
uint64_t snapshot_memory_in_use(const struct snapshot *snapshot);

/* Lifts the protection of all that is frozen, in slices, since that takes the memory map's
 * lock: a page fault of the server waits for one slice only. Any thread. */
void snapshot_lift_protection(struct snapshot *snapshot);
/* Counts the save under way as one that has ended so. Any thread, once a save. */
void snapshot_count(struct snapshot *snapshot, enum history_result result);
/* Tells whoever has asked for the save under way of its end; `status` as waitpid() would
 * store it. Any thread, once a save. */
void snapshot_end_child(struct snapshot *snapshot, int status);
/* Makes the saver's output stop waiting. Any thread, async-signal-safe. */
void snapshot_cancel_output(struct snapshot *snapshot);

/* False if the save was not in the phase `from`. Any thread. */
bool snapshot_move_phase(struct snapshot *snapshot, uint32_t from, enum phase to);
/* Of the pages that were copied, in this save or the last. Any thread. */
uint64_t snapshot_preserved_bytes(struct snapshot *snapshot);

/* Of the save under way, or the last. Any thread. */
static inline bool snapshot_is_backup(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_BACKUP;
}

static inline enum phase snapshot_phase(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->phase, memory_order_acquire);
}

static inline bool upkeep_is_to_leave(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->upkeep_leaving, memory_order_acquire) !=
           UPKEEP_STAYS;
}

/* Neither is there a snapshot nor does the module go. Under heap_lock() also the last
 * word: `frozen` is set before the lock is given up, the phase a moment later, and in that
 * moment the view must not be renumbered. `frozen` is looked at first: it ends before the
 * phase does. */
static inline bool snapshot_is_idle(struct snapshot *snapshot)
{
    return !atomic_load_explicit(&snapshot->frozen, memory_order_acquire) &&
           snapshot_phase(snapshot) == PHASE_NONE &&
           !atomic_load_explicit(&snapshot->rescuing, memory_order_seq_cst) &&
           !atomic_load_explicit(&snapshot->unreleased, memory_order_acquire) &&
           !upkeep_is_to_leave(snapshot);
}

#endif
