#include "statistics.h"

#include <string.h>

#include "host/deferred_free.h"
#include "kernel/advice.h"
#include "kernel/contract.h"
#include "keyspace/worker_pool.h"
#include "report.h"
#include "snapshot/service.h"
#include "snapshot/snapshot.h"

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
    statistics->index_bytes =
        idle ? RELAXED(snapshot->last_index_bytes) : preserved_index_bytes(preserved);
    statistics->new_values_peak_bytes = snapshot->new_values_peak;
    statistics->limit_least_bytes = snapshot->limit_least;
    statistics->limit_spooled_pages = idle
                                          ? RELAXED(snapshot->last_pages_spooled_at_limit)
                                          : RELAXED(preserved->pages_spooled_at_limit);
    statistics->pages_packed = RELAXED(preserved->pages_packed);
    statistics->packed_bytes = RELAXED(preserved->packed_bytes);
    statistics->spool_bytes = idle ? 0 : RELAXED(preserved->spool.bytes);
    statistics->last_pages_preserved =
        idle ? RELAXED(snapshot->last_pages_preserved) : RELAXED(preserved->pages);
}

static void child_statistics(struct snapshot *snapshot,
                             struct rdb_uffd_statistics *statistics)
{
    struct value_child *child = &snapshot->values;
    statistics->child_values = RELAXED(child->values);
    statistics->child_fork_usec = RELAXED(child->fork_usec);
    statistics->child_wait_usec = RELAXED(child->wait_usec);
    statistics->child_pages = RELAXED(child->pager.pages);
    statistics->child_pages_dropped = RELAXED(child->pager.dropped);
    statistics->child_peak_bytes = RELAXED(child->pager.pages_peak) * PAGE_BYTES;
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
        .supported = !the_service.unsupported[0] && !the_service.doubt[0],
        .unsupported_reason =
            the_service.unsupported[0] ? the_service.unsupported : the_service.doubt,
        .snapshots_ok = RELAXED(snapshot->snapshots_ok),
        .snapshots_failed = RELAXED(snapshot->snapshots_failed),
        .snapshots_cancelled = RELAXED(snapshot->snapshots_cancelled),
        .forks_replaced = the_service.forks_replaced,
        .fork_fallbacks = the_service.fork_fallbacks,
        .last_fallback_reason = the_service.last_fallback_reason,
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
        .last_fault_sched_wait_usec = RELAXED(snapshot->fault_delay_usec),
        .last_unprotects = RELAXED(faults->unprotects),
        .last_huge_pages_split = RELAXED(snapshot->fault_server.splitter.splits),
        .last_spool_peak_bytes = RELAXED(snapshot->last_spool_peak_bytes),
        .last_regions = snapshot->view.region_count,
        .last_frozen_bytes = RELAXED(snapshot->last_frozen_bytes),
        .last_protected_bytes = RELAXED(snapshot->last_protected_bytes),
        .keys_saved = RELAXED(snapshot->keys_saved),
        .keys_total = RELAXED(snapshot->keys_total),
        .advices_refused = RELAXED(snapshot->advices_refused),
        .deferred_free_bytes = deferred_free_bytes(),
        .evicted_bytes = RELAXED(snapshot->evicted_bytes),
        .ready_bytes = prefaulted_bytes(&snapshot->prefaulted),
        .saver_faults = RELAXED(faults->saver_faults),
        .huge_pages_mended = RELAXED(snapshot->huge_pages_mended),
        .vectored_madvise = advice_is_vectored(),
        .threads = snapshot->workers ? 1 + worker_pool_size(snapshot->workers) : 1,
        .save_id = the_service.saves,
        .save_cause = the_service.last_cause ? the_service.last_cause : "",
    };
    if (statistics->state != RDB_UFFD_IDLE)
        statistics->save_elapsed_msec =
            (clock_usec() - snapshot->freeze_began_usec) / 1000;
    buffer_statistics(snapshot, statistics);
    child_statistics(snapshot, statistics);
    wait_statistics(snapshot, statistics);
}

void rdb_uffd_reset_statistics(void)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    _Atomic uint64_t *counters[] = {
        &snapshot->snapshots_ok,        &snapshot->snapshots_failed,
        &snapshot->snapshots_cancelled, &snapshot->advices_refused,
        &snapshot->huge_pages_mended,   &snapshot->backups_ok,
        &snapshot->backups_failed,      &snapshot->backups_cancelled,
    };
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        atomic_store_explicit(counters[i], 0, memory_order_relaxed);
    the_service.forks_replaced = the_service.fork_fallbacks = 0;
    the_service.last_fallback_reason[0] = '\0';
    history_clear(&the_service.history);
}

const struct history_entry *rdb_uffd_history(size_t back)
{
    return history_at(&the_service.history, back);
}

size_t rdb_uffd_examine(const struct doctor_server *server,
                        struct doctor_finding findings[DOCTOR_FINDINGS])
{
    struct snapshot *snapshot = &the_snapshot;
    struct doctor_case now = {
        .host = snapshot->host,
        .settings = &snapshot->settings,
        .server = server,
        .layout_reason = the_service.layout_reason,
        .proved = the_service.proved,
        .has_allocator = the_service.has_allocator,
        .reads_are_slow = view_is_slow(&snapshot->view),
        .merging_lifted = the_service.merging_lifted,
        .guard_reason = the_service.guard_reason,
        .frees_reason = deferred_free_obstacle(),
        .child_reason = snapshot_child_obstacle(snapshot),
        .supported = !the_service.unsupported[0],
        .doubt = the_service.doubt,
        .doubt_is_unknown_value = the_service.doubt_end == DOUBT_WHILE_STRANGER,
        .limit = snapshot_limit(snapshot),
        .last = history_at(&the_service.history, 0),
        .fallbacks = the_service.fork_fallbacks,
        .last_fallback_reason = the_service.last_fallback_reason,
        .predicted_bytes = the_service.predicted_bytes,
        .written_per_second = the_service.written_per_second,
        .spooled_per_second = RELAXED(snapshot->spool_pages_per_second),
    };
    /* The upkeep thread holds the lock for long when a measurement begins. */
    if (heap_try_lock(&snapshot->heap)) {
        now.heap_bytes = regions_bytes(&snapshot->heap.registered);
        now.least_limit = preserved_least_limit(
            (uint32_t)(now.heap_bytes / CHUNK_BYTES + snapshot->heap.registered.count));
        heap_unlock(&snapshot->heap);
    }
    /* Nothing is registered where saves use fork, nor right after the start. */
    if (!now.heap_bytes)
        now.heap_bytes = snapshot_memory_in_use(snapshot);
    return doctor_examine(&now, findings);
}
