#include "rescue.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/child.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "memory/deferred_unmap.h"
#include "service.h"

/* Not by closing the descriptor alone: the kernel keeps it open for whoever is in a call
 * with it at this moment. */
static void lift_all(struct snapshot *snapshot)
{
    snapshot_lift_protection(snapshot);
    heap_disarm_now(&snapshot->heap);
}

static bool is_over(struct snapshot *snapshot, uint32_t watch)
{
    return atomic_load_explicit(&snapshot->watches, memory_order_seq_cst) != watch ||
           (!atomic_load_explicit(&snapshot->frozen, memory_order_seq_cst) &&
            atomic_load_explicit(&snapshot->phase, memory_order_seq_cst) == PHASE_NONE);
}

/* First said, then looked whether it is still that snapshot: a freeze first counts its
 * watch and then looks whether somebody is at this. One of the two sees the other, and
 * what is meant for one snapshot, however late, never reaches the next. False if it is
 * over; to be ended in both cases. */
static bool begin_rescue(struct snapshot *snapshot, uint32_t watch)
{
    atomic_store_explicit(&snapshot->rescuing, true, memory_order_seq_cst);
    return !is_over(snapshot, watch);
}

static void end_rescue(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->rescuing, false, memory_order_seq_cst);
}

bool rescue_pull(struct snapshot *snapshot, uint32_t watch)
{
    DEMAND_THREAD(THREAD_WATCHDOG);
    bool due = begin_rescue(snapshot, watch);
    if (due) {
        /* The view first: nobody may read what is about to be unprotected. */
        view_fail(&snapshot->view, -ETIMEDOUT);
        fault_point_hang(FAULT_LATE_WATCHDOG);
        lift_all(snapshot);
        fault_server_leave(&snapshot->fault_server);
        snapshot_cancel_output(snapshot);
    }
    end_rescue(snapshot);
    return due;
}

void rescue_from_crash(struct snapshot *snapshot)
{
    rescue_pull(snapshot, atomic_load_explicit(&snapshot->watches, memory_order_seq_cst));
}

void rescue_end_watched(struct snapshot *snapshot, uint32_t watch)
{
    DEMAND_THREAD(THREAD_WATCHDOG);
    if (begin_rescue(snapshot, watch))
        rescue_end_child(snapshot, HISTORY_FAILED, "page faults were not served", 1 << 8);
    end_rescue(snapshot);
}

bool rescue_end_child(struct snapshot *snapshot, enum history_result result,
                      const char *reason, int status)
{
    uint32_t not_yet = END_NOT_YET;
    if (!atomic_compare_exchange_strong_explicit(&snapshot->end, &not_yet, END_LEFT,
                                                 memory_order_seq_cst,
                                                 memory_order_relaxed))
        return false;
    struct history_entry *left = &snapshot->left_record;
    *left = (struct history_entry){
        .id = snapshot->record.id,
        .cause = snapshot->record.cause,
        .started_msec = snapshot->record.started_msec,
        .result = result,
        .duration_msec = (clock_usec() - snapshot->freeze_began_usec) / 1000,
    };
    snprintf(left->reason, sizeof(left->reason), "%s", reason);
    if (!atomic_exchange_explicit(&snapshot->result_taken, true, memory_order_acq_rel)) {
        bool cancelled = result == HISTORY_CANCELLED;
        snapshot_count(snapshot, result);
        snprintf(snapshot->last_error, sizeof(snapshot->last_error), "%s",
                 cancelled ? "" : reason);
    }
    /* What is counted as failed shall not be published when its thread comes back. */
    snapshot_cancel_output(snapshot);
    snapshot_log(snapshot, RDB_UFFD_WARNING,
                 "uffd: save %llu left behind: %s; its thread has not come back",
                 (unsigned long long)left->id, reason);
    snapshot_end_child(snapshot, status);
    return true;
}

/* ---- what the snapshot held ------------------------------------------------------ */

static void give_all_back(struct snapshot *snapshot)
{
    if (deferred_unmap_end())
        heap_note_change(&snapshot->heap);
    preserved_end(&snapshot->preserved);
}

void rescue_give_back(struct snapshot *snapshot, bool unused)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    if (unused && spool_wait_for_batch(&snapshot->preserved.spool, RESCUE_MSEC)) {
        give_all_back(snapshot);
        return;
    }
    atomic_store_explicit(&snapshot->unreleased, true, memory_order_seq_cst);
    snapshot_log(snapshot, RDB_UFFD_WARNING,
                 "uffd: a thread of the last save has not come back: does the spool's "
                 "disk answer? Saves use fork until it has");
}

void rescue_tend(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    if (snapshot_phase(snapshot) != PHASE_NONE)
        return;
    if (!fault_server_is_back(&snapshot->fault_server) ||
        !atomic_load_explicit(&snapshot->unreleased, memory_order_acquire))
        return;
    give_all_back(snapshot);
    atomic_store_explicit(&snapshot->unreleased, false, memory_order_seq_cst);
    snapshot_log(snapshot, RDB_UFFD_NOTICE,
                 "uffd: all threads of the last save have come back");
}

const char *rescue_obstacle(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    if (snapshot_phase(snapshot) != PHASE_NONE ||
        atomic_load_explicit(&snapshot->end, memory_order_acquire) == END_LEFT)
        return "the thread of the last save has not come back: does the disk answer?";
    if (atomic_load_explicit(&snapshot->rescuing, memory_order_seq_cst) ||
        atomic_load_explicit(&snapshot->unreleased, memory_order_acquire) ||
        fault_server_is_missing(&snapshot->fault_server) ||
        !spool_is_at_rest(&snapshot->preserved.spool))
        return "a thread of the last save has not come back: does the spool's disk "
               "answer?";
    return NULL;
}

/* The process ends, but not before the kernel has that thread back; whoever is connected
 * would wait for it too. A forked child shares nothing with it. */
__attribute__((destructor)) static void leave_clients(void)
{
    if (the_service.started && !the_service.in_forked_child &&
        rescue_obstacle(&the_snapshot))
        syscall(SYS_close_range, 3u, ~0u, 0u);
}
