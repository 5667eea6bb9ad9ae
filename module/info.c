#include "info.h"

#include "rdb_uffd.h"
#include "settings.h"

static const char *const state_names[] = {"idle", "saving", "releasing"};

static void visit_texts(const struct info_visitor *to,
                        const struct rdb_uffd_statistics *now)
{
    to->text(to, "version", RDB_UFFD_VERSION);
    to->number(to, "enabled", settings.enabled);
    to->number(to, "supported", now->supported);
    to->text(to, "unsupported_reason", now->unsupported_reason);
    to->text(to, "state", state_names[now->state]);
    to->text(to, "save_cause", now->save_cause);
    to->text(to, "last_fallback_reason", now->last_fallback_reason);
    to->text(to, "last_error", now->last_error);
    to->text(to, "madvise", now->vectored_madvise ? "vectored" : "one by one");
}

static void visit_backup(const struct info_visitor *to)
{
    struct rdb_uffd_backup backup;
    rdb_uffd_get_backup(&backup);
    to->text(to, "backup_state", backup.state);
    to->text(to, "backup_name", backup.name);
    to->text(to, "backup_reason", backup.reason);
    to->number(to, "backup_elapsed_msec", backup.elapsed_msec);
    to->number(to, "backup_bytes", backup.bytes);
    to->number(to, "backups_ok", backup.ok);
    to->number(to, "backups_failed", backup.failed);
    to->number(to, "backups_cancelled", backup.cancelled);
}

void info_visit(const struct info_visitor *to)
{
    struct rdb_uffd_statistics now;
    rdb_uffd_get_statistics(&now);
    visit_texts(to, &now);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"save_id", now.save_id},
        {"save_elapsed_msec", now.save_elapsed_msec},
        {"snapshots_ok", now.snapshots_ok},
        {"snapshots_failed", now.snapshots_failed},
        {"snapshots_cancelled", now.snapshots_cancelled},
        {"forks_replaced", now.forks_replaced},
        {"fork_fallbacks", now.fork_fallbacks},
        {"last_freeze_usec", now.last_freeze_usec},
        {"last_freeze_capture_usec", now.last_freeze_capture_usec},
        {"last_freeze_prepare_usec", now.last_freeze_prepare_usec},
        {"last_freeze_steer_usec", now.last_freeze_steer_usec},
        {"last_freeze_protect_usec", now.last_freeze_protect_usec},
        {"last_save_msec", now.last_save_msec},
        {"last_rest_msec", now.last_rest_msec},
        {"last_release_usec", now.last_release_usec},
        {"last_audit_usec", now.last_audit_usec},
        {"last_pages_lost", now.last_pages_lost},
        {"last_faults", now.last_faults},
        {"last_unprotects", now.last_unprotects},
        {"last_huge_pages_split", now.last_huge_pages_split},
        {"last_pages_preserved", now.last_pages_preserved},
        {"last_regions", now.last_regions},
        {"last_frozen_bytes", now.last_frozen_bytes},
        {"last_protected_bytes", now.last_protected_bytes},
        {"keys_saved", now.keys_saved},
        {"keys_total", now.keys_total},
        {"buffer_limit_bytes", now.buffer_limit_bytes},
        {"buffer_used_bytes", now.buffer_used_bytes},
        {"buffer_peak_bytes", now.buffer_peak_bytes},
        {"index_bytes", now.index_bytes},
        {"new_values_peak_bytes", now.new_values_peak_bytes},
        {"limit_least_bytes", now.limit_least_bytes},
        {"limit_spooled_pages", now.limit_spooled_pages},
        {"pages_packed", now.pages_packed},
        {"packed_bytes", now.packed_bytes},
        {"spool_bytes", now.spool_bytes},
        {"last_spool_peak_bytes", now.last_spool_peak_bytes},
        {"last_child_values", now.child_values},
        {"last_child_fork_usec", now.child_fork_usec},
        {"last_child_wait_usec", now.child_wait_usec},
        {"last_child_pages", now.child_pages},
        {"last_child_pages_dropped", now.child_pages_dropped},
        {"last_child_peak_bytes", now.child_peak_bytes},
        {"writer_waits", now.writer_waits},
        {"writer_wait_usec", now.writer_wait_usec},
        {"writer_wait_longest_usec", now.writer_wait_longest_usec},
        {"fault_wait_p50_usec", now.fault_wait_p50_usec},
        {"fault_wait_p99_usec", now.fault_wait_p99_usec},
        {"fault_wait_max_usec", now.fault_wait_max_usec},
        {"last_fault_sched_wait_usec", now.last_fault_sched_wait_usec},
        {"advices_refused", now.advices_refused},
        {"deferred_free_bytes", now.deferred_free_bytes},
        {"evicted_bytes", now.evicted_bytes},
        {"ready_bytes", now.ready_bytes},
        {"saver_faults", now.saver_faults},
        {"huge_pages_mended", now.huge_pages_mended},
        {"threads", now.threads},
    };
    visit_backup(to);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        to->number(to, numbers[i].name, numbers[i].value);
}

static void add_text(const struct info_visitor *visitor, const char *name,
                     const char *value)
{
    api.InfoAddFieldCString(visitor->context, name, value);
}

static void add_number(const struct info_visitor *visitor, const char *name,
                       uint64_t value)
{
    api.InfoAddFieldULongLong(visitor->context, name, value);
}

/* The server puts "uffd_" before every name. */
void info_fill(api_info *info, int for_crash_report)
{
    if (for_crash_report)
        rdb_uffd_note_crash();
    const struct info_visitor visitor = {
        .text = add_text, .number = add_number, .context = info};
    api.InfoAddSection(info, "");
    info_visit(&visitor);
}
