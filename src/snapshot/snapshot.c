#include "snapshot.h"

#include <stdarg.h>
#include <stdio.h>

#include "host/deferred_free.h"
#include "host/server.h"
#include "kernel/contract.h"

struct snapshot the_snapshot;

void snapshot_log(struct snapshot *snapshot, enum rdb_uffd_level level,
                  const char *format, ...)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    short_lock_take(&snapshot->log_lock);
    if (snapshot->log_count < MESSAGES) {
        unsigned at = (snapshot->log_first + snapshot->log_count++) % MESSAGES;
        va_list arguments;
        va_start(arguments, format);
        snapshot->log[at].level = level;
        vsnprintf(snapshot->log[at].text, MESSAGE_BYTES, format, arguments);
        va_end(arguments);
    }
    short_lock_release(&snapshot->log_lock);
}

/* The slices that the preserved pages are counted by. */
static void lift_region(struct snapshot *snapshot, const struct view_region *region)
{
    for (uint64_t at = region->start, end; at < region->end; at = end) {
        end = round_down(at, CHUNK_BYTES) + CHUNK_BYTES;
        end = end < region->end ? end : region->end;
        heap_unprotect(&snapshot->heap, at, end);
    }
}

void snapshot_lift_protection(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->view.region_count; i++)
        lift_region(snapshot, &snapshot->view.regions[i]);
}

bool snapshot_move_phase(struct snapshot *snapshot, uint32_t from, enum phase to)
{
    if (!atomic_compare_exchange_strong_explicit(
            &snapshot->phase, &from, to, memory_order_acq_rel, memory_order_relaxed))
        return false;
    futex_wake_all(&snapshot->phase);
    return true;
}

uint64_t snapshot_preserved_bytes(struct snapshot *snapshot)
{
    return PAGE_BYTES *
           atomic_load_explicit(&snapshot->preserved.pages, memory_order_relaxed);
}

void snapshot_cancel_output(struct snapshot *snapshot)
{
    /* The saver frees the output only when it finds no canceller after it has
     * left these phases: one of the two sees the other. */
    atomic_fetch_add_explicit(&snapshot->cancellers, 1, memory_order_seq_cst);
    enum phase phase = atomic_load_explicit(&snapshot->phase, memory_order_seq_cst);
    if (phase != PHASE_NONE)
        rdb_output_cancel(snapshot->output);
    atomic_fetch_sub_explicit(&snapshot->cancellers, 1, memory_order_release);
}

void snapshot_count(struct snapshot *snapshot, enum history_result result)
{
    bool backup = snapshot_is_backup(snapshot);
    _Atomic uint64_t *counter =
        backup ? &snapshot->backups_failed : &snapshot->snapshots_failed;
    if (result == HISTORY_OK)
        counter = backup ? &snapshot->backups_ok : &snapshot->snapshots_ok;
    else if (result == HISTORY_CANCELLED)
        counter = backup ? &snapshot->backups_cancelled : &snapshot->snapshots_cancelled;
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* Of a backup the main thread learns at its next tick. In both cases it may begin the next
 * save from here on. */
void snapshot_end_child(struct snapshot *snapshot, int status)
{
    if (snapshot_is_backup(snapshot))
        atomic_store_explicit(&snapshot->backup_is_over, true, memory_order_release);
    else
        child_exited(status);
}

void snapshot_wake_upkeep(struct snapshot *snapshot)
{
    atomic_fetch_add_explicit(&snapshot->chores, 1, memory_order_release);
    futex_wake_all(&snapshot->chores);
}

uint64_t snapshot_memory_in_use(const struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    return snapshot->host->memory_in_use ? snapshot->host->memory_in_use() : 0;
}

uint64_t snapshot_limit(const struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    const struct rdb_uffd_settings *settings = &snapshot->settings;
    if (!settings->buffer_percent || !snapshot->host->memory_in_use)
        return settings->buffer_limit;
    uint64_t limit = snapshot->host->memory_in_use() / 100 * settings->buffer_percent;
    return limit > RDB_UFFD_LEAST_BUFFER_LIMIT ? limit : RDB_UFFD_LEAST_BUFFER_LIMIT;
}

const char *snapshot_child_obstacle(struct snapshot *snapshot)
{
    static char text[96];
    const char *missing = server_missing_for_value_child();
    DEMAND_MAIN_THREAD();
    if (!snapshot->settings.value_child)
        return "uffd.value-child is no";
    if (atomic_load_explicit(&snapshot->child_failed, memory_order_relaxed))
        return "the child for them has failed";
    /* It works in the arena that the freeze has switched to, and leaves the past alone. */
    if (!deferred_free_is_installed())
        return "free() cannot be replaced";
    /* It is not proved which value is which. */
    if (server_layout_is_of_file())
        return "the layout is a file's";
    if (!missing)
        return NULL;
    snprintf(text, sizeof(text), "the server does not export %s", missing);
    return text;
}
