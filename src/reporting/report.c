#include "report.h"

#include <errno.h>
#include <stdio.h>

#include "kernel/contract.h"
#include "rdb/output.h"

typedef unsigned long long number;

static uint64_t get(_Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

uint64_t report_wait_usec(const struct wait_histogram *waits, unsigned permille)
{
    return (wait_histogram_quantile(waits, permille) + 500) / 1000;
}

void report_start(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    snapshot_log(
        snapshot, RDB_UFFD_NOTICE,
        "uffd: save %llu started: cause %s, freeze %llu us (capture %llu, "
        "prepare %llu, allocator %llu, protect %llu), heap %llu bytes in %llu "
        "regions, buffer limit %llu bytes",
        (number)snapshot->record.id, snapshot->record.cause,
        (number)get(&snapshot->last_freeze_usec), (number)snapshot->capture_usec,
        (number)snapshot->prepare_usec, (number)snapshot->steer_usec,
        (number)snapshot->protect_usec, (number)get(&snapshot->last_frozen_bytes),
        (number)snapshot->view.region_count, (number)get(&snapshot->preserved.limit));
}

static void fill_waits(struct history_entry *record, struct fault_server *server)
{
    struct fault_statistics *faults = &server->statistics;
    record->faults = get(&faults->faults);
    record->writer_waits = get(&faults->writer_waits);
    record->writer_wait_usec = get(&faults->writer_wait_usec);
    record->writer_wait_longest_usec = get(&faults->writer_wait_longest_usec);
    record->fault_wait_p50_usec = report_wait_usec(server->waits, 500);
    record->fault_wait_p99_usec = report_wait_usec(server->waits, 990);
    record->fault_wait_max_usec = report_wait_usec(server->waits, 1000);
}

static void fill_child(struct history_entry *record, struct value_child *child)
{
    record->child_values = get(&child->values);
    record->child_fork_usec = get(&child->fork_usec);
    record->child_wait_usec = get(&child->wait_usec);
    record->child_pages = get(&child->pager.pages);
    record->child_peak_bytes = get(&child->pager.pages_peak) * PAGE_BYTES;
}

void report_fill_record(struct snapshot *snapshot, int error, uint64_t msec)
{
    DEMAND_THREAD(THREAD_SAVER);
    struct history_entry *record = &snapshot->record;
    record->result = history_result_of(error);
    if (error)
        snprintf(record->reason, sizeof(record->reason), "%s",
                 error != -ECANCELED            ? snapshot->last_error
                 : snapshot_is_backup(snapshot) ? "ended by UFFD.BACKUP CANCEL"
                                                : "ended by the server");
    record->duration_msec = msec;
    record->freeze_usec = get(&snapshot->last_freeze_usec);
    record->keys = get(&snapshot->keys_saved);
    record->file_bytes = rdb_output_bytes(snapshot->output);
    record->pages_preserved = get(&snapshot->last_pages_preserved);
    record->buffer_peak_bytes = get(&snapshot->preserved.bytes_peak);
    record->spool_peak_bytes = get(&snapshot->last_spool_peak_bytes);
    fill_waits(record, &snapshot->fault_server);
    fill_child(record, &snapshot->values);
}

void report_end(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_SAVER);
    const struct history_entry *save = &snapshot->record;
    enum rdb_uffd_level level =
        save->result == HISTORY_FAILED ? RDB_UFFD_WARNING : RDB_UFFD_NOTICE;
    snapshot_log(snapshot, level,
                 "uffd: save %llu %s%s%.100s: cause %s, %llu ms, %llu keys, %llu bytes, "
                 "freeze %llu us, %llu faults (p50 %llu us, p99 %llu us, max %llu us), "
                 "%llu pages preserved, buffer peak %llu bytes, spool peak %llu bytes, "
                 "%llu writer waits (%llu us, longest %llu us)",
                 (number)save->id, history_result_name(save->result),
                 save->reason[0] ? ": " : "", save->reason, save->cause,
                 (number)save->duration_msec, (number)save->keys,
                 (number)save->file_bytes, (number)save->freeze_usec,
                 (number)save->faults, (number)save->fault_wait_p50_usec,
                 (number)save->fault_wait_p99_usec, (number)save->fault_wait_max_usec,
                 (number)save->pages_preserved, (number)save->buffer_peak_bytes,
                 (number)save->spool_peak_bytes, (number)save->writer_waits,
                 (number)save->writer_wait_usec, (number)save->writer_wait_longest_usec);
}
