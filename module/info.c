#include "info.h"

#include "rdb_uffd.h"
#include "settings.h"

static const char *const state_names[] = {"idle", "saving", "releasing"};

/* The server puts "uffd_" before every name. */
void info_fill(api_info *info, int for_crash_report)
{
    (void)for_crash_report;
    struct rdb_uffd_statistics now;
    rdb_uffd_get_statistics(&now);
    api.InfoAddSection(info, "");
    api.InfoAddFieldCString(info, "version", RDB_UFFD_VERSION);
    api.InfoAddFieldULongLong(info, "enabled", settings.enabled);
    api.InfoAddFieldULongLong(info, "supported", now.supported);
    api.InfoAddFieldCString(info, "unsupported_reason", now.unsupported_reason);
    api.InfoAddFieldCString(info, "state", state_names[now.state]);
    api.InfoAddFieldCString(info, "last_fallback_reason", now.last_fallback_reason);
    api.InfoAddFieldCString(info, "last_error", now.last_error);
    api.InfoAddFieldCString(info, "madvise",
                            now.vectored_madvise ? "vectored" : "one by one");
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"snapshots_ok", now.snapshots_ok},
        {"snapshots_failed", now.snapshots_failed},
        {"forks_replaced", now.forks_replaced},
        {"fork_fallbacks", now.fork_fallbacks},
        {"last_freeze_usec", now.last_freeze_usec},
        {"last_freeze_capture_usec", now.last_freeze_capture_usec},
        {"last_freeze_prepare_usec", now.last_freeze_prepare_usec},
        {"last_freeze_steer_usec", now.last_freeze_steer_usec},
        {"last_freeze_protect_usec", now.last_freeze_protect_usec},
        {"last_save_msec", now.last_save_msec},
        {"last_release_usec", now.last_release_usec},
        {"last_faults", now.last_faults},
        {"last_unprotects", now.last_unprotects},
        {"last_pages_preserved", now.last_pages_preserved},
        {"last_regions", now.last_regions},
        {"last_frozen_bytes", now.last_frozen_bytes},
        {"keys_saved", now.keys_saved},
        {"keys_total", now.keys_total},
        {"buffer_limit_bytes", now.buffer_limit_bytes},
        {"buffer_used_bytes", now.buffer_used_bytes},
        {"buffer_peak_bytes", now.buffer_peak_bytes},
        {"pages_packed", now.pages_packed},
        {"packed_bytes", now.packed_bytes},
        {"spool_bytes", now.spool_bytes},
        {"last_spool_peak_bytes", now.last_spool_peak_bytes},
        {"writer_waits", now.writer_waits},
        {"writer_wait_usec", now.writer_wait_usec},
        {"advices_refused", now.advices_refused},
        {"saver_faults", now.saver_faults},
        {"huge_pages_mended", now.huge_pages_mended},
    };
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        api.InfoAddFieldULongLong(info, numbers[i].name, numbers[i].value);
}
