/* What the face tells of itself: statistics, history, findings, the rate of writes. */
#include <errno.h>
#include <string.h>

#include "host/late_free.h"
#include "kernel/advice.h"
#include "keyspace/crew.h"
#include "memory/allocator.h"
#include "rdb_uffd.h"
#include "report.h"
#include "snapshot/face.h"
#include "snapshot/snapshot.h"

/* ---- statistics ------------------------------------------------------------------ */

static enum rdb_uffd_state state_of(struct snapshot *snapshot)
{
    switch (snapshot_phase(snapshot)) {
    case PHASE_NONE:
        return RDB_UFFD_IDLE;
    case PHASE_RELEASING:
        return RDB_UFFD_RELEASING;
    default:
        return RDB_UFFD_SAVING;
    }
}

#define RELAXED(field) atomic_load_explicit(&(field), memory_order_relaxed)

static void buffer_statistics(struct snapshot *snapshot,
                              struct rdb_uffd_statistics *statistics)
{
    struct preserved *preserved = &snapshot->preserved;
    bool idle = statistics->state == RDB_UFFD_IDLE;
    statistics->buffer_limit_bytes =
        idle ? snapshot_limit(snapshot) : preserved_limit(preserved);
    statistics->buffer_used_bytes = idle ? 0 : preserved_bytes(preserved);
    statistics->buffer_peak_bytes =
        idle ? RELAXED(snapshot->last_bytes_peak) : RELAXED(preserved->bytes_peak);
    statistics->pages_packed = RELAXED(preserved->pages_packed);
    statistics->packed_bytes = RELAXED(preserved->packed_bytes);
    statistics->spool_bytes = idle ? 0 : RELAXED(preserved->spool.bytes);
    statistics->last_pages_preserved =
        idle ? RELAXED(snapshot->last_pages_preserved) : RELAXED(preserved->pages);
}

static void wait_statistics(struct snapshot *snapshot,
                            struct rdb_uffd_statistics *statistics)
{
    struct fault_statistics *faults = &snapshot->fault_server.statistics;
    const struct wait_histogram *waits = snapshot->fault_server.waits;
    statistics->writer_waits = RELAXED(faults->writer_waits);
    statistics->writer_wait_usec = RELAXED(faults->writer_wait_usec);
    statistics->writer_wait_longest_usec = RELAXED(faults->writer_wait_longest_usec);
    statistics->fault_wait_p50_usec = report_wait_usec(waits, 500);
    statistics->fault_wait_p99_usec = report_wait_usec(waits, 990);
    statistics->fault_wait_max_usec = report_wait_usec(waits, 1000);
}

void rdb_uffd_get_statistics(struct rdb_uffd_statistics *statistics)
{
    struct snapshot *snapshot = &the_snapshot;
    struct fault_statistics *faults = &snapshot->fault_server.statistics;
    *statistics = (struct rdb_uffd_statistics){
        .state = state_of(snapshot),
        .supported = !the_face.unsupported[0] && !the_face.doubt[0],
        .unsupported_reason =
            the_face.unsupported[0] ? the_face.unsupported : the_face.doubt,
        .snapshots_ok = RELAXED(snapshot->snapshots_ok),
        .snapshots_failed = RELAXED(snapshot->snapshots_failed),
        .snapshots_cancelled = RELAXED(snapshot->snapshots_cancelled),
        .forks_replaced = the_face.forks_replaced,
        .fork_fallbacks = the_face.fork_fallbacks,
        .last_fallback_reason = the_face.last_fallback_reason,
        .last_error = snapshot->last_error,
        .last_freeze_usec = RELAXED(snapshot->last_freeze_usec),
        .last_freeze_capture_usec = snapshot->capture_usec,
        .last_freeze_prepare_usec = snapshot->prepare_usec,
        .last_freeze_steer_usec = snapshot->steer_usec,
        .last_freeze_protect_usec = snapshot->protect_usec,
        .last_save_msec = RELAXED(snapshot->last_save_msec),
        .last_rest_msec = RELAXED(snapshot->rested_usec) / 1000,
        .last_release_usec = RELAXED(snapshot->last_release_usec),
        .last_audit_usec = RELAXED(snapshot->fault_server.audit.usec),
        .last_pages_lost = RELAXED(snapshot->fault_server.audit.lost),
        .last_faults = RELAXED(faults->faults),
        .last_unprotects = RELAXED(faults->unprotects),
        .last_spool_peak_bytes = RELAXED(snapshot->last_spool_peak_bytes),
        .last_regions = snapshot->view.region_count,
        .last_frozen_bytes = RELAXED(snapshot->last_frozen_bytes),
        .last_protected_bytes = RELAXED(snapshot->last_protected_bytes),
        .protection_stands = heap_stands(&snapshot->heap),
        .standing_lifts = RELAXED(faults->lifts),
        .keys_saved = RELAXED(snapshot->keys_saved),
        .keys_total = RELAXED(snapshot->keys_total),
        .advices_refused = RELAXED(snapshot->advices_refused),
        .late_free_bytes = late_free_bytes(),
        .evicted_bytes = RELAXED(snapshot->evicted_bytes),
        .ready_bytes = ready_bytes(&snapshot->ready),
        .saver_faults = RELAXED(faults->saver_faults),
        .huge_pages_mended = RELAXED(snapshot->huge_pages_mended),
        .vectored_madvise = advice_is_vectored(),
        .threads = snapshot->crew ? 1 + crew_members(snapshot->crew) : 1,
        .save_id = the_face.saves,
        .save_cause = the_face.last_cause ? the_face.last_cause : "",
    };
    if (statistics->state != RDB_UFFD_IDLE)
        statistics->save_elapsed_msec =
            (clock_usec() - snapshot->freeze_began_usec) / 1000;
    buffer_statistics(snapshot, statistics);
    wait_statistics(snapshot, statistics);
}

void rdb_uffd_reset_statistics(void)
{
    struct snapshot *snapshot = &the_snapshot;
    _Atomic uint64_t *counters[] = {
        &snapshot->snapshots_ok,        &snapshot->snapshots_failed,
        &snapshot->snapshots_cancelled, &snapshot->advices_refused,
        &snapshot->huge_pages_mended,   &snapshot->fault_server.statistics.lifts,
    };
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        atomic_store_explicit(counters[i], 0, memory_order_relaxed);
    the_face.forks_replaced = the_face.fork_fallbacks = 0;
    the_face.last_fallback_reason[0] = '\0';
    history_clear(&the_face.history);
}

const struct history_entry *rdb_uffd_history(size_t back)
{
    return history_at(&the_face.history, back);
}

/* What the server says that its data takes; 0: it does not say. */
static uint64_t memory_in_use(const struct snapshot *snapshot)
{
    return snapshot->host->memory_in_use ? snapshot->host->memory_in_use() : 0;
}

size_t rdb_uffd_examine(const struct doctor_server *server,
                        struct doctor_finding findings[DOCTOR_FINDINGS])
{
    struct snapshot *snapshot = &the_snapshot;
    struct doctor_case now = {
        .host = snapshot->host,
        .settings = &snapshot->settings,
        .server = server,
        .layout_reason = the_face.layout_reason,
        .has_allocator = the_face.has_allocator,
        .merging_lifted = the_face.merging_lifted,
        .guard_reason = the_face.guard_reason,
        .supported = !the_face.unsupported[0],
        .doubt = the_face.doubt,
        .limit = snapshot_limit(snapshot),
        .last = history_at(&the_face.history, 0),
        .fallbacks = the_face.fork_fallbacks,
        .last_fallback_reason = the_face.last_fallback_reason,
        .predicted_bytes = the_face.predicted_bytes,
        .written_per_second = the_face.written_per_second,
        .spooled_per_second = RELAXED(snapshot->spool_pages_per_second),
    };
    /* The keeper holds the lock for long when a measurement begins. */
    if (heap_try_lock(&snapshot->heap)) {
        now.heap_bytes = regions_bytes(&snapshot->heap.registered);
        now.least_limit = preserved_least_limit(
            (uint32_t)(now.heap_bytes / CHUNK_BYTES + snapshot->heap.registered.count));
        heap_unlock(&snapshot->heap);
    }
    /* Nothing is registered where saves use fork, nor right after the start. */
    if (!now.heap_bytes)
        now.heap_bytes = memory_in_use(snapshot);
    return doctor_examine(&now, findings);
}

/* ---- how fast the heap is written to --------------------------------------------- */

static const char *const no_tracking =
    "this kernel cannot tell which pages were written: that takes Linux 6.7 "
    "(UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN)";

static const char *const switched_off = "the module is switched off (uffd.enabled no)";

static unsigned seconds_of_last_save(struct snapshot *snapshot)
{
    uint64_t seconds = (RELAXED(snapshot->last_whole_save_msec) + 999) / 1000;
    return seconds < 1 ? 1 : seconds > 10 ? 10 : (unsigned)seconds;
}

static bool is_watched(const void *memory)
{
    return dirty_samples(&the_snapshot.dirty_rate.sampling, (uint64_t)(uintptr_t)memory);
}

const char *rdb_uffd_begin_dirty_rate(unsigned seconds)
{
    struct snapshot *snapshot = &the_snapshot;
    if (the_face.unsupported[0])
        return the_face.unsupported;
    if (!snapshot->settings.enabled)
        return switched_off;
    if (snapshot_phase(snapshot) != PHASE_NONE)
        return "a background save is running";
    if (!snapshot->ability.tracks_asynchronously || dirty_probe() != 0)
        return no_tracking;
    if (!seconds)
        seconds = seconds_of_last_save(snapshot);
    if (dirty_rate_ask(snapshot, seconds, memory_in_use(snapshot)) != 0)
        return "a measurement is running already";
    /* What is written while saving depends on where new values go and on frees that are
     * put off: the same holds for what is watched, until the tick after the end. Other
     * dead values make room for new ones as ever. */
    late_free_end();
    allocator_restore();
    allocator_steer(late_free_is_installed());
    late_free_begin(false, is_watched);
    return NULL;
}

bool rdb_uffd_end_dirty_rate(struct rdb_uffd_dirty_rate *result, const char **failure)
{
    int error = dirty_rate_take(&the_snapshot, result);
    if (error == -EAGAIN)
        return false;
    *failure = NULL;
    if (error == -ECANCELED)
        *failure = "a background save has begun: the measurement was given up";
    else if (error == -ESHUTDOWN)
        *failure = switched_off;
    else if (error == -ENOTTY || error == -EINVAL)
        *failure = no_tracking;
    else if (error)
        *failure = strerrordesc_np(-error);
    else {
        the_face.predicted_bytes = result->predicted_bytes;
        the_face.written_per_second =
            result->measured_msec ? result->pages * 1000 / result->measured_msec : 0;
    }
    return true;
}
