#include "saver.h"

#include <errno.h>
#include <stdio.h>

#include "dump.h"
#include "host/child_report.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "memory/decommitted.h"
#include "memory/protection.h"
#include "rdb/output.h"
#include "reporting/report.h"
#include "rescue.h"
#include "result.h"

/* The server's LZF keeps 512 KB on the stack. */
#define STACK_BYTES (4 * 1024 * 1024)
/* A kill waits so often while the file is being made: a tenth of a second. */
#define CREATION_WAITS 10
/* … while it is being published: a second. */
#define PUBLISHING_WAITS 100
#define WAIT_MSEC        10
/* FAULT_SLOW_END */
#define SLOW_END_USEC 500000

static void release_memory(struct snapshot *snapshot)
{
    value_child_end(&snapshot->values); /* of a save that has not come so far */
    uint64_t began = clock_usec();
    /* From here on a fault preserves nothing: it only lifts the protection. */
    view_fail(&snapshot->view, -ECANCELED);
    audit_end(&snapshot->fault_server.audit);
    atomic_store_explicit(&snapshot->frozen, false, memory_order_release);
    decommitted_thaw();
    protection_wait(snapshot->heap.protection);
    snapshot_lift_protection(snapshot);
    bool there = fault_server_disarm(&snapshot->fault_server);
    atomic_store_explicit(&snapshot->last_bytes_peak,
                          atomic_load(&snapshot->preserved.bytes_peak),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_index_bytes,
                          preserved_index_bytes(&snapshot->preserved),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_pages_spooled_at_limit,
                          atomic_load(&snapshot->preserved.pages_spooled_at_limit),
                          memory_order_relaxed);
    rescue_give_back(snapshot, there);
    atomic_store_explicit(&snapshot->last_release_usec, clock_usec() - began,
                          memory_order_relaxed);
}

/* As waitpid() would store it. */
static int exit_status(struct snapshot *snapshot, int error)
{
    int signal = atomic_load_explicit(&snapshot->kill_signal, memory_order_relaxed);
    if (error && signal)
        return signal;
    return error ? 1 << 8 : 0;
}

static void close_output(struct snapshot *snapshot)
{
    while (atomic_load_explicit(&snapshot->cancellers, memory_order_seq_cst))
        sleep_usec(10);
    rdb_output_close(snapshot->output);
    snapshot->output = NULL;
}

/* The bytes are out, or will never be. Tells the server's cost and progress
 * through its own pipe, as a child does before it exits. */
static void tell_server(struct snapshot *snapshot, int error)
{
    if (!error)
        child_report_send(snapshot->capture.report_pipe, snapshot->request.cause,
                          CHILD_REPORT_DONE, atomic_load(&snapshot->keys_saved),
                          snapshot_preserved_bytes(snapshot));
    if (!error && dump_is_transfer(snapshot) && snapshot->capture.exit_pipe < 0)
        child_report_send_output(snapshot->capture.report_pipe,
                                 rdb_output_bytes(snapshot->output));
    rdb_output_end(snapshot->output);
}

/* The child of a transfer through the server lives until that has read the last byte:
 * it would otherwise be reaped before the replicas have it. A kill ends the wait. */
static int wait_for_server(struct snapshot *snapshot, int error)
{
    if (snapshot->capture.exit_pipe < 0 || error)
        return error;
    return rdb_output_wait_closed(snapshot->output, snapshot->capture.exit_pipe);
}

/* The very last step of a save. Somebody may have done it who did not wait any more. */
static void end_child(struct snapshot *snapshot, int status)
{
    uint32_t end = END_NOT_YET;
    if (atomic_compare_exchange_strong_explicit(&snapshot->end, &end, END_BY_SAVER,
                                                memory_order_seq_cst,
                                                memory_order_relaxed)) {
        if (fault_point(FAULT_SLOW_END))
            sleep_usec(SLOW_END_USEC);
        snapshot_end_child(snapshot, status);
    } else {
        atomic_store_explicit(&snapshot->end, END_RETURNED, memory_order_release);
    }
}

/* Not before: on a busy machine the main thread loses its CPU in the freeze, and its own
 * first fault would be the one that nobody serves. */
static void begin_to_hang(void)
{
    if (fault_point(FAULT_STUCK_WHEN_SAVING))
        fault_point_set("stuck_server", true);
    if (fault_point(FAULT_HUNG_WHEN_SAVING))
        fault_point_set("hung_server", true);
}

static void run(struct snapshot *snapshot)
{
    begin_to_hang();
    snapshot->failed_where = NULL;
    snapshot->walk_error = 0;
    while (fault_point(FAULT_HELD_SAVER) && snapshot_phase(snapshot) == PHASE_SAVING)
        sleep_usec(1000);
    int error = dump_write(snapshot);
    uint64_t msec = (clock_usec() - snapshot->freeze_began_usec) / 1000;
    int given_up = atomic_load_explicit(&snapshot->view.error, memory_order_acquire);
    if (error == -ECANCELED && given_up)
        error = given_up;
    if (error == AUDIT_LOST)
        snapshot->walk_error = error;
    atomic_store_explicit(&snapshot->phase, PHASE_RELEASING, memory_order_seq_cst);
    futex_wake_all(&snapshot->phase);
    if (!atomic_exchange_explicit(&snapshot->result_taken, true, memory_order_acq_rel)) {
        result_note(snapshot, error, error == given_up, msec);
        tell_server(snapshot, error);
    }
    release_memory(snapshot);
    error = wait_for_server(snapshot, error);
    if (error && snapshot->record.result == HISTORY_OK) {
        snapshot->record.result = HISTORY_CANCELLED;
        snprintf(snapshot->record.reason, sizeof(snapshot->record.reason),
                 "ended before the replicas had it all");
    }
    if (atomic_load_explicit(&snapshot->end, memory_order_acquire) == END_NOT_YET)
        report_end(snapshot);
    int status = exit_status(snapshot, error);
    atomic_store_explicit(&snapshot->phase, PHASE_NONE, memory_order_seq_cst);
    close_output(snapshot);
    server_capture_release(&snapshot->capture);
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    end_child(snapshot, status);
}

static void *saver(void *argument)
{
    struct snapshot *snapshot = argument;
    uint32_t begun = 0;
    atomic_store_explicit(&snapshot->fault_server.own_thread, thread_own_id(),
                          memory_order_relaxed);
    while (!atomic_load_explicit(&snapshot->stopping, memory_order_acquire)) {
        uint32_t now = atomic_load_explicit(&snapshot->saves_begun, memory_order_acquire);
        if (now == begun) {
            futex_wait(&snapshot->saves_begun, begun, -1);
            continue;
        }
        begun = now;
        run(snapshot);
        atomic_store_explicit(&snapshot->saves_ended, begun, memory_order_release);
        futex_wake_all(&snapshot->saves_ended);
    }
    return NULL;
}

int saver_start(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    return thread_start(&snapshot->saver, THREAD_SAVER, STACK_BYTES, saver, snapshot);
}

void saver_stop(struct snapshot *snapshot)
{
    DEMAND(snapshot_phase(snapshot) == PHASE_NONE);
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    thread_join_sleeper(&snapshot->saver, &snapshot->saves_begun);
}

void saver_begin(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    DEMAND(atomic_load_explicit(&snapshot->frozen, memory_order_relaxed));
    atomic_fetch_add_explicit(&snapshot->saves_begun, 1, memory_order_release);
    futex_wake_all(&snapshot->saves_begun);
}

void saver_wait(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    uint32_t begun = atomic_load_explicit(&snapshot->saves_begun, memory_order_relaxed);
    for (;;) {
        uint32_t ended =
            atomic_load_explicit(&snapshot->saves_ended, memory_order_acquire);
        int signal = atomic_load_explicit(&snapshot->kill_signal, memory_order_relaxed);
        if (ended == begun)
            return;
        /* The server waits for nobody that it has not killed before. */
        if (signal && clock_usec() >= snapshot->killed_usec + RESCUE_MSEC * 1000) {
            rescue_end_child(snapshot, HISTORY_CANCELLED, "ended by the server", signal);
            return;
        }
        futex_wait(&snapshot->saves_ended, ended, 100);
    }
}

/* True if it was time to. What may not be cut in two is waited for, on a file system that
 * does not answer not for ever. */
static bool cancel(struct snapshot *snapshot)
{
    for (unsigned waits = 0;; waits++) {
        if (snapshot_move_phase(snapshot, PHASE_SAVING, PHASE_CANCELLED))
            return true;
        if (waits >= CREATION_WAITS &&
            snapshot_move_phase(snapshot, PHASE_CREATING, PHASE_CANCELLED))
            return true;
        uint32_t phase = snapshot_phase(snapshot);
        /* Then the dump is published, or not, when its disk answers, as by a child that
         * is killed in the middle of that. */
        if (phase == PHASE_PUBLISHING && waits >= PUBLISHING_WAITS)
            return false;
        if (phase == PHASE_CREATING || phase == PHASE_PUBLISHING)
            futex_wait(&snapshot->phase, phase, WAIT_MSEC);
        else if (phase != PHASE_SAVING)
            return false;
    }
}

void saver_kill(struct snapshot *snapshot, int signal)
{
    snapshot->killed_usec = clock_usec();
    atomic_store_explicit(&snapshot->kill_signal, signal, memory_order_relaxed);
    if (cancel(snapshot))
        view_fail(&snapshot->view, -ECANCELED);
    /* PUBLISHING: a dump whose disk does not answer. RELEASING: a transfer that waits for
     * the server to have read it all. */
    snapshot_cancel_output(snapshot);
}
