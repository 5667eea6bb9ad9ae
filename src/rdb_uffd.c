#include "rdb_uffd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/deferred_free.h"
#include "host/guard.h"
#include "host/module_values.h"
#include "kernel/contract.h"
#include "kernel/cpu_quota.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/sandbox.h"
#include "keyspace/worker_pool.h"
#include "memory/allocator.h"
#include "memory/arena_pool.h"
#include "memory/decommitted.h"
#include "memory/deferred_unmap.h"
#include "reporting/log.h"
#include "save.h"
#include "snapshot/crash.h"
#include "snapshot/freeze.h"
#include "snapshot/guard_operations.h"
#include "snapshot/limit_share.h"
#include "snapshot/rescue.h"
#include "snapshot/saver.h"
#include "snapshot/service.h"
#include "snapshot/snapshot.h"
#include "snapshot/watchdog.h"
#include "upkeep/environment.h"
#include "upkeep/proof.h"
#include "upkeep/trust.h"
#include "upkeep/upkeep.h"
#include "value_child/inside.h"

/* A tick comes ten times a second: a quarter of a million frees in a second or
 * two, and no command waits for long. */
#define FREE_USEC_PER_TICK 1000

void rdb_uffd_default_settings(struct rdb_uffd_settings *settings)
{
    *settings = (struct rdb_uffd_settings){
        .enabled = true,
        .fallback = true,
        .compression = true,
        .huge_pages = HUGE_PAGES_WHERE_DENSE,
        .buffer_policy = BUFFER_SPOOL,
        .buffer_limit = UINT64_C(256) << 20,
    };
}

/* ---- the server's fork ----------------------------------------------------------- */

static enum child_decision fall_back(struct snapshot *snapshot, int cause, char *reason,
                                     int *error)
{
    bool news = strcmp(reason, the_service.last_fallback_reason) != 0;
    bool fallback = snapshot->settings.fallback;
    the_service.fork_fallbacks++;
    save_note_refused(fallback ? HISTORY_FORKED : HISTORY_REFUSED, reason);
    if (news) {
        char text[MESSAGE_BYTES + REASON_BYTES];
        memcpy(the_service.last_fallback_reason, reason, REASON_BYTES);
        /* What was missing at load was said then, with the remedy. */
        bool told = strcmp(reason, the_service.unsupported) == 0;
        snprintf(text, sizeof(text), "uffd: %s: %s",
                 fallback ? "saving with the server's own fork"
                          : "save refused (fallback no)",
                 told ? "UFFD.DOCTOR says why" : reason);
        log_now(snapshot, told ? RDB_UFFD_NOTICE : RDB_UFFD_WARNING, text);
    }
    if (fallback)
        return CHILD_REAL_FORK;
    *error = cause < 0 ? -cause : ENOTSUP;
    return CHILD_REFUSE;
}

static enum child_decision begin(const struct child_request *request, int *error)
{
    struct snapshot *snapshot = &the_snapshot;
    char reason[REASON_BYTES] = "";
    if (!snapshot->settings.enabled || request->cause == CHILD_OTHER)
        return CHILD_REAL_FORK;
    save_ask(request);
    backup_settle(snapshot);
    int result = save_begin(snapshot, request, reason);
    if (result)
        return fall_back(snapshot, result, reason, error);
    the_service.forks_replaced++;
    return CHILD_TAKE_OVER;
}

static void kill_save(int signal)
{
    saver_kill(&the_snapshot, signal);
}

static void wait_for_child(void)
{
    saver_wait(&the_snapshot);
}

static void reaped(void)
{
    save_end(&the_snapshot);
}

static void fork_took(uint64_t usec)
{
    if (the_snapshot.settings.enabled) /* else it was not noted */
        history_note_freeze(&the_service.history, usec);
}

/* Whoever asks the module in there, a script that is debugged or a crash report, must not
 * be answered from memory that is not there. */
static void leave_parents_memory(struct snapshot *snapshot)
{
    static struct wait_histogram no_waits;
    snapshot->fault_server.waits = &no_waits;
    snapshot->workers = NULL;
    snapshot->view.region_count = 0;
    regions_clear(&snapshot->heap.registered);
    snprintf(the_service.unsupported, REASON_BYTES, "this is a forked child");
}

/* A real fork's child: the snapshot is its parent's, and so is the descriptor,
 * which must not stay open here: closing the last one is the emergency exit. */
static void forked(void)
{
    the_service.in_forked_child = true;
    leave_parents_memory(&the_snapshot);
    deferred_free_forked(inside_is_here());
    decommitted_forked();
    close(the_snapshot.heap.userfaultfd);
    dirty_rate_forked();
}

static const struct child_operations child_operations = {
    .begin = begin,
    .kill = kill_save,
    .wait = wait_for_child,
    .reaped = reaped,
    .fork_took = fork_took,
    .forked = forked,
};

/* ---- life of the module ---------------------------------------------------------- */

static void snapshot_failed(void *context, int error)
{
    (void)error;
    snapshot_cancel_output(context);
}

static int create_parts(struct snapshot *snapshot)
{
    /* First, since whatever fails, the preserved pages are taken apart. */
    int error = preserved_create(&snapshot->preserved);
    if (!error)
        error = heap_create(&snapshot->heap);
    snapshot->heap.prefaulted = &snapshot->prefaulted;
    if (!error)
        error = view_create(&snapshot->view, &snapshot->preserved);
    if (!error)
        error = fault_server_start(&snapshot->fault_server, &snapshot->view,
                                   snapshot_failed, snapshot);
    if (!error)
        error = deferred_unmap_create();
    if (!error && !(snapshot->workers = worker_pool_create()))
        error = -ENOMEM;
    if (!error)
        error = saver_start(snapshot);
    if (!error)
        error = watchdog_start(snapshot);
    if (!error)
        error = upkeep_start(snapshot);
    return error;
}

static void destroy_parts(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    while (!upkeep_stop(snapshot))
        sleep_usec(1000); /* nothing has been begun that it could wait for */
    if (snapshot->watchdog.running)
        watchdog_stop(snapshot);
    if (snapshot->saver.running)
        saver_stop(snapshot);
    worker_pool_destroy(snapshot->workers);
    snapshot->workers = NULL;
    if (snapshot->fault_server.thread.running)
        fault_server_stop(&snapshot->fault_server);
    value_child_release(&snapshot->values);
    view_destroy(&snapshot->view);
    preserved_destroy(&snapshot->preserved);
    heap_destroy(&snapshot->heap);
    prefaulted_release(&snapshot->prefaulted);
    deferred_unmap_destroy();
    arena_pool_leave();
}

/* Why nothing can be served in this process; "" when all is well. */
static void find_what_is_missing(struct snapshot *snapshot, char *reason)
{
    const struct rdb_uffd_host *host = snapshot->host;
    reason[0] = '\0';
    if (server_identify(host->server_name, host->server_version,
                        snapshot->settings.layout_file, the_service.layout_reason,
                        REASON_BYTES) == 0)
        trust_prove_at_load(snapshot);
    the_service.has_allocator = allocator_find() == 0 && !fault_point(FAULT_NO_JEMALLOC);
    if (ability_probe(&snapshot->ability) != 0 || fault_point(FAULT_NO_USERFAULTFD))
        snprintf(reason, REASON_BYTES, "%s",
                 snapshot->ability.error ? snapshot->ability.reason
                                         : "no permission for userfaultfd");
    if (!the_service.has_allocator)
        snprintf(reason, REASON_BYTES, "the server does not use jemalloc");
    if (the_service.layout_reason[0])
        memcpy(reason, the_service.layout_reason, REASON_BYTES);
}

static int install(struct snapshot *snapshot)
{
    if (the_service.unsupported[0])
        return child_install(&child_operations);
    int error = fault_point(FAULT_NO_GUARD)
                    ? -ENOENT
                    : guard_install(&snapshot_guard, allocator_function());
    if (error) {
        freeze_explain(the_service.guard_reason, error,
                       "the allocator's calls to the kernel cannot be guarded");
        memcpy(the_service.unsupported, the_service.guard_reason, REASON_BYTES);
        snapshot->ability.error = -ENOTSUP;
        return child_install(&child_operations);
    }
    allocator_create_pool();
    allocator_prepare_arena();
    allocator_prepare_arena();
    deferred_free_install(arena_pool_free, arena_pool_free_past);
    environment_settle_huge_pages(&snapshot->settings);
    environment_lift_merging(snapshot);
    environment_tell(snapshot);
    return child_install(&child_operations);
}

/* As it was, but for the forks. */
static void leave_server(void)
{
    module_values_unwatch();
    guard_remove();
    deferred_free_remove();
    allocator_restore();
    allocator_leave_growth();
    environment_restore();
}

int rdb_uffd_start(const struct rdb_uffd_host *host,
                   const struct rdb_uffd_settings *settings)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    memset(snapshot, 0, sizeof(*snapshot));
    memset(&the_service, 0, sizeof(the_service));
    dirty_rate_init();
    backup_init();
    value_child_init(&snapshot->values);
    snapshot->host = host;
    snapshot->settings = *settings;
    find_what_is_missing(snapshot, the_service.unsupported);
    thread_allow_placing(the_service.unsupported[0] || sandbox_allows_placing());
    snapshot->ability.error = the_service.unsupported[0] ? -ENOTSUP : 0;
    memory_probe();
    /* While there is no thread of ours. */
    if (!the_service.unsupported[0])
        deferred_free_reach(allocator_function(), allocator_prefix());
    int error = crash_install();
    if (!error)
        error = create_parts(snapshot);
    if (!error)
        error = install(snapshot);
    if (error) {
        leave_server();
        destroy_parts(snapshot);
        crash_remove();
        return error;
    }
    the_service.cpu_quota = cpu_quota_percent("");
    environment_settle_workers(snapshot);
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    snapshot_wake_upkeep(snapshot);
    the_service.started = true;
    return 0;
}

/* All is looked at before the first thing is put back. */
static int check_leaving(char *reason, size_t size)
{
    int error = child_check(reason, size);
    if (!error)
        error = guard_check(reason, size);
    if (!error)
        error = deferred_free_check(reason, size);
    if (!error)
        error = module_values_check(reason, size);
    if (!error && !arena_pool_may_leave()) {
        snprintf(reason, size, "the hooks of its arenas were replaced since");
        error = -EBUSY;
    }
    if (error) {
        size_t length = strlen(reason);
        snprintf(reason + length, size - length,
                 ": unload what did that first, or restart the server");
    }
    return error;
}

int rdb_uffd_stop(char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    if (child_pid()) {
        snprintf(reason, reason_size, "a background save is running");
        return -EBUSY;
    }
    backup_settle(snapshot);
    if (backup_is_running()) {
        snprintf(reason, reason_size, BACKUP_IS_RUNNING);
        return -EBUSY;
    }
    /* Somebody who has not come back still runs in this code. */
    const char *obstacle = rescue_obstacle(snapshot);
    if (obstacle) {
        snprintf(reason, reason_size, "%s", obstacle);
        return -EBUSY;
    }
    int error = check_leaving(reason, reason_size);
    if (error)
        return error;
    if (!upkeep_stop(snapshot)) {
        snprintf(reason, reason_size, UPKEEP_IS_LATE);
        return -EBUSY;
    }
    child_remove();
    /* From here on nobody serves faults: there must be none, whatever was overlooked. */
    heap_disarm_now(&snapshot->heap);
    leave_server();
    destroy_parts(snapshot);
    crash_remove();
    the_service.started = false;
    return 0;
}

bool rdb_uffd_values_are_possible(void)
{
    DEMAND_MAIN_THREAD();
    return module_values_are_possible();
}

void rdb_uffd_note_value(const void *type)
{
    DEMAND_MAIN_THREAD();
    module_values_note(type);
}

void rdb_uffd_search_values(bool under_way)
{
    DEMAND_MAIN_THREAD();
    module_values_search(under_way);
}

void rdb_uffd_modules_changed(void)
{
    DEMAND_MAIN_THREAD();
    module_values_modules_changed();
}

void rdb_uffd_configure(const struct rdb_uffd_settings *settings)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    /* The operator wants it tried again: perhaps it was one key, and that is gone. */
    if (settings->enabled && !snapshot->settings.enabled) {
        trust_try_again();
        atomic_store_explicit(&snapshot->child_failed, false, memory_order_relaxed);
    }
    snapshot->settings = *settings;
    if (!the_service.started)
        return;
    the_service.cpu_quota = cpu_quota_percent("");
    environment_settle_huge_pages(settings);
    if (snapshot_phase(snapshot) != PHASE_NONE) {
        snapshot->limit = snapshot_limit(snapshot);
        preserved_set_limit(&snapshot->preserved, snapshot->limit);
        fault_server_nudge(&snapshot->fault_server);
    }
    snapshot_wake_upkeep(snapshot);
}

void rdb_uffd_note_crash(void)
{
    if (the_service.started)
        crash_begin();
}

void rdb_uffd_tick(void)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    if (!the_service.started)
        return;
    log_hand_over(snapshot);
    backup_settle(snapshot);
    if (the_service.unsupported[0]) {
        deferred_free_some(FREE_USEC_PER_TICK); /* what earlier saves have left */
        return;
    }
    bool saving = snapshot_phase(snapshot) != PHASE_NONE;
    if (saving || dirty_rate_is_active()) {
        allocator_stop_decay();
        if (!(saving ? limit_share(snapshot) : limit_share_measuring(snapshot))) {
            /* Old memory is used again from here on: it must be free for that. */
            deferred_free_end();
            deferred_free_some(FREE_USEC_PER_TICK);
        }
        return;
    }
    trust_prove_in_time(snapshot);
    environment_settle_workers(snapshot);
    deferred_free_end();
    allocator_restore();
    allocator_prepare_arena();
    deferred_free_some(FREE_USEC_PER_TICK);
}
