#include "backup.h"

#include <signal.h>
#include <stdio.h>

#include "kernel/contract.h"
#include "save.h"
#include "snapshot/saver.h"
#include "snapshot/service.h"

/* How long SHUTDOWN waits for the temporary file to go. */
#define LEAVE_WAITS 50
#define LEAVE_USEC  10000

/* Main thread. */
static struct {
    bool running;
    struct history_entry last; /* id 0: there was none */
    uint64_t last_bytes, last_total;
    char name[BACKUP_NAME_BYTES]; /* of the one under way, or the last */
} backups;

static uint64_t get(_Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

void backup_init(void)
{
    backups.running = false;
    backups.last = (struct history_entry){0};
    backups.name[0] = '\0';
}

static bool has_ended(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->backup_is_over, memory_order_acquire);
}

void backup_settle(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    if (!backups.running || !has_ended(snapshot))
        return;
    save_end(snapshot);
    const struct history_entry *last = history_at(&the_service.history, 0);
    backups.last = *last;
    backups.last_bytes = get(&snapshot->bytes_written);
    backups.last_total = get(&snapshot->keys_total);
    backups.running = false;
}

bool backup_is_running(void)
{
    return backups.running;
}

const char *rdb_uffd_begin_backup(const struct rdb_uffd_backup_order *order)
{
    DEMAND_MAIN_THREAD();
    static char reason[REASON_BYTES];
    const struct child_request request = {.cause = CHILD_BACKUP};
    struct snapshot *snapshot = &the_snapshot;
    if (!snapshot->settings.enabled)
        return "the module is switched off (uffd.enabled no)";
    backup_settle(snapshot);
    if (backups.running)
        return BACKUP_IS_RUNNING;
    save_ask(&request);
    snapshot->backup = *order;
    if (save_begin(snapshot, &request, reason) != 0) {
        save_note_refused(HISTORY_REFUSED, reason);
        return reason;
    }
    snprintf(backups.name, sizeof(backups.name), "%s", order->name);
    backups.running = true;
    return NULL;
}

bool rdb_uffd_cancel_backup(void)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    backup_settle(snapshot);
    if (backups.running)
        saver_kill(snapshot, SIGTERM);
    return backups.running;
}

void rdb_uffd_leave_backup(void)
{
    if (!rdb_uffd_cancel_backup())
        return;
    for (int i = 0; i < LEAVE_WAITS && !has_ended(&the_snapshot); i++)
        sleep_usec(LEAVE_USEC);
}

static void describe_running(struct rdb_uffd_backup *backup)
{
    struct snapshot *snapshot = &the_snapshot;
    backup->state = "running";
    backup->open = atomic_load_explicit(&snapshot->backup_is_open, memory_order_acquire);
    backup->id = snapshot->record.id;
    backup->started_msec = snapshot->record.started_msec;
    backup->elapsed_msec = (clock_usec() - snapshot->freeze_began_usec) / 1000;
    backup->keys = get(&snapshot->keys_saved);
    backup->keys_total = get(&snapshot->keys_total);
    backup->bytes = get(&snapshot->bytes_written);
}

static void describe_last(struct rdb_uffd_backup *backup)
{
    const struct history_entry *last = &backups.last;
    backup->state = history_result_name(last->result);
    backup->reason = last->reason;
    backup->id = last->id;
    backup->started_msec = last->started_msec;
    backup->elapsed_msec = last->duration_msec;
    backup->keys = last->keys;
    backup->keys_total = backups.last_total;
    backup->bytes = backups.last_bytes;
}

void rdb_uffd_get_backup(struct rdb_uffd_backup *backup)
{
    struct snapshot *snapshot = &the_snapshot;
    *backup = (struct rdb_uffd_backup){
        .running = backups.running,
        .state = "none",
        .name = backups.name,
        .reason = "",
        .ok = get(&snapshot->backups_ok),
        .failed = get(&snapshot->backups_failed),
        .cancelled = get(&snapshot->backups_cancelled),
    };
    if (backups.running)
        describe_running(backup);
    else if (backups.last.id)
        describe_last(backup);
}
