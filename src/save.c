#include "save.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/deferred_free.h"
#include "kernel/contract.h"
#include "memory/allocator.h"
#include "reporting/log.h"
#include "reporting/report.h"
#include "snapshot/crash.h"
#include "snapshot/destination.h"
#include "snapshot/freeze.h"
#include "snapshot/rescue.h"
#include "snapshot/saver.h"
#include "snapshot/service.h"
#include "upkeep/dirty_rate.h"
#include "upkeep/environment.h"
#include "upkeep/proof.h"
#include "upkeep/trust.h"

/* What is asked for; the one under way, if there is one, is the snapshot's. */
static struct history_entry asked;

void save_ask(const struct child_request *request)
{
    DEMAND_MAIN_THREAD();
    asked = (struct history_entry){
        .id = ++the_service.saves,
        .started_msec = clock_wall_msec(),
        .cause = child_trigger_name(request),
    };
    the_service.last_cause = asked.cause;
}

void save_note_refused(enum history_result result, const char *reason)
{
    DEMAND_MAIN_THREAD();
    asked.result = result;
    snprintf(asked.reason, sizeof(asked.reason), "%s", reason);
    history_add(&the_service.history, &asked);
}

/* ---- its beginning --------------------------------------------------------------- */

static void begin_saving(struct snapshot *snapshot)
{
    snapshot->record = asked;
    atomic_store_explicit(&snapshot->rested_usec, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->writers_pressed, true, memory_order_relaxed);
    atomic_store_explicit(&snapshot->keys_saved, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->bytes_written, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->backup_is_open, false, memory_order_relaxed);
    atomic_store_explicit(&snapshot->backup_is_over, false, memory_order_relaxed);
    snapshot->backup_refusal[0] = '\0';
    atomic_store_explicit(&snapshot->kill_signal, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->result_taken, false, memory_order_relaxed);
    atomic_store_explicit(&snapshot->end, END_NOT_YET, memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_frozen_bytes,
                          regions_bytes(&snapshot->heap.registered),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->phase, PHASE_SAVING, memory_order_release);
    atomic_store_explicit(&snapshot->last_freeze_usec,
                          clock_usec() - snapshot->freeze_began_usec,
                          memory_order_relaxed);
    report_start(snapshot);
    saver_begin(snapshot);
    snapshot_wake_upkeep(snapshot);
}

static int capture(struct snapshot *snapshot, char *reason)
{
    struct server_capture *captured = &snapshot->capture;
    int error = server_capture(&snapshot->request, snapshot_child_obstacle(snapshot),
                               captured, reason, REASON_BYTES);
    if (error)
        return error;
    if (captured->imports)
        error = proof_try_imports(captured, reason, REASON_BYTES);
    if (!error && server_layout_is_of_file()) {
        captured->roots.only_compared = true;
        captured->roots.compared = the_service.proved_kinds;
        error = proof_try_save(snapshot->host, captured, reason, REASON_BYTES);
    }
    if (error)
        server_capture_release(captured);
    return error;
}

/* Why none can begin now. */
static int find_obstacle(struct snapshot *snapshot, char *reason)
{
    if (snapshot->record.id) { /* the server asks for one at a time */
        snprintf(reason, REASON_BYTES, BACKUP_IS_RUNNING);
        return -EBUSY;
    }
    crash_look();
    bool notes_are_free = deferred_free_end();
    allocator_restore();
    const char *never =
        the_service.unsupported[0] ? the_service.unsupported : the_service.doubt;
    if (*never) {
        memcpy(reason, never, REASON_BYTES);
        return the_service.unsupported[0] && snapshot->ability.error
                   ? snapshot->ability.error
                   : -ENOTSUP;
    }
    const char *obstacle = notes_are_free ? rescue_obstacle(snapshot) : UPKEEP_IS_LATE;
    if (!obstacle)
        return 0;
    snprintf(reason, REASON_BYTES, "%s", obstacle);
    return -EBUSY;
}

static int open_output(struct snapshot *snapshot, char *reason)
{
    int error = snapshot_is_backup(snapshot) ? destination_foresee(snapshot) : 0;
    if (error) {
        snprintf(reason, REASON_BYTES, "%s", snapshot->backup_refusal);
        return error;
    }
    error = freeze_open_output(snapshot);
    return error ? freeze_explain(reason, error, "output") : 0;
}

static int capture_and_freeze(struct snapshot *snapshot, char *reason)
{
    int error = capture(snapshot, reason);
    if (error)
        return error;
    error = open_output(snapshot, reason);
    if (error) {
        server_capture_release(&snapshot->capture);
        return error;
    }
    freeze_end_step(snapshot, &snapshot->capture_usec);
    dirty_rate_yield(snapshot);
    error = freeze_begin(snapshot, reason);
    if (error) {
        rdb_output_close(snapshot->output);
        server_capture_release(&snapshot->capture);
    }
    return error;
}

int save_begin(struct snapshot *snapshot, const struct child_request *request,
               char reason[REASON_BYTES])
{
    DEMAND_MAIN_THREAD();
    int error = find_obstacle(snapshot, reason);
    if (!error)
        error = environment_refuse_merging(reason);
    if (!error)
        error = trust_prove_for_save(snapshot, reason);
    if (error)
        return error;
    snapshot->freeze_began_usec = snapshot->step_began_usec = clock_usec();
    snapshot->capture_usec = snapshot->prepare_usec = 0;
    snapshot->steer_usec = snapshot->protect_usec = 0;
    snapshot->request = *request;
    error = capture_and_freeze(snapshot, reason);
    if (!error)
        begin_saving(snapshot);
    return error;
}

/* ---- its end --------------------------------------------------------------------- */

/* What a child logs comes before the server's line about its end. */
void save_end(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    uint32_t end = atomic_load_explicit(&snapshot->end, memory_order_acquire);
    bool left = end == END_LEFT || end == END_RETURNED;
    log_hand_over(snapshot);
    if (!snapshot->record.id)
        return;
    if (!left)
        trust_note_end(snapshot);
    history_add(&the_service.history, left ? &snapshot->left_record : &snapshot->record);
    snapshot->record.id = 0;
}
