#include "rdb_uffd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "host/guard.h"
#include "keeper.h"
#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "memory/allocator.h"
#include "saver.h"
#include "snapshot.h"

#define REASON_BYTES 256

/* Main thread only. */
static struct {
    bool started;
    char unsupported[REASON_BYTES]; /* why no save can be served, "" if it can */
    char last_fallback_reason[REASON_BYTES];
    uint64_t forks_replaced;
    uint64_t fork_fallbacks;
    bool in_forked_child;
} face;

void rdb_uffd_default_settings(struct rdb_uffd_settings *settings)
{
    *settings = (struct rdb_uffd_settings){
        .enabled = true,
        .fallback = true,
        .compression = true,
        .huge_pages = true,
        .buffer_policy = BUFFER_SPOOL,
        .buffer_limit = UINT64_C(256) << 20,
    };
}

/* ---- the log --------------------------------------------------------------------- */

static bool take_message(struct snapshot *snapshot, enum rdb_uffd_level *level,
                         char text[MESSAGE_BYTES])
{
    bool found = false;
    while (atomic_exchange_explicit(&snapshot->log_lock, 1, memory_order_acquire))
        sleep_usec(1);
    if (snapshot->log_count) {
        *level = snapshot->log[snapshot->log_first].level;
        memcpy(text, snapshot->log[snapshot->log_first].text, MESSAGE_BYTES);
        snapshot->log_first = (snapshot->log_first + 1) % MESSAGES;
        snapshot->log_count--;
        found = true;
    }
    atomic_store_explicit(&snapshot->log_lock, 0, memory_order_release);
    return found;
}

static void hand_over_log(struct snapshot *snapshot)
{
    enum rdb_uffd_level level;
    char text[MESSAGE_BYTES];
    while (take_message(snapshot, &level, text))
        snapshot->host->log(level, text);
}

/* ---- prepare --------------------------------------------------------------------- */

static uint64_t limit_in_bytes(const struct snapshot *snapshot)
{
    const struct rdb_uffd_settings *settings = &snapshot->settings;
    if (!settings->buffer_percent || !snapshot->host->memory_in_use)
        return settings->buffer_limit;
    uint64_t limit = snapshot->host->memory_in_use() / 100 * settings->buffer_percent;
    return limit > RDB_UFFD_LEAST_BUFFER_LIMIT ? limit : RDB_UFFD_LEAST_BUFFER_LIMIT;
}

static int explain(char *reason, int error, const char *text)
{
    snprintf(reason, REASON_BYTES, "%s: %s", text, strerror(-error));
    return error;
}

static int open_output(struct snapshot *snapshot)
{
    struct rdb_output_options options = {
        .checksum = snapshot->capture.checksum,
        .sync_every = snapshot->capture.sync_every,
    };
    if (snapshot->request.cause != CHILD_SAVE_SOCKET)
        return rdb_output_open_file(&snapshot->output, snapshot->capture.directory,
                                    snapshot->capture.temporary_name, &options);
    int error = rdb_output_open_descriptor(&snapshot->output,
                                           snapshot->capture.transfer_pipe, &options);
    if (!error)
        snapshot->capture.transfer_pipe = -1; /* the output's now */
    return error;
}

/* The buffer and the index for what is registered now. */
static int prepare_view(struct snapshot *snapshot, char *reason)
{
    struct preserved_settings settings = {
        .limit = limit_in_bytes(snapshot),
        .policy = snapshot->settings.buffer_policy,
        .compress = snapshot->settings.compression,
        .spool_directory = snapshot->settings.spool_directory,
    };
    int error = view_set_regions(&snapshot->view, &snapshot->heap.registered);
    if (error)
        return explain(reason, error, "too many memory regions");
    error = preserved_begin(&snapshot->preserved, snapshot->view.chunk_count, &settings);
    if (error == -EDQUOT) {
        snprintf(reason, REASON_BYTES,
                 "buffer-limit is too small for this heap: it needs at least %llu bytes",
                 (unsigned long long)preserved_least_limit(snapshot->view.chunk_count));
        return error;
    }
    return error ? explain(reason, error, "snapshot buffer or spool") : 0;
}

/* What the fault server writes to must never be protected: it would wait for
 * itself. Checked, not believed. */
static bool own_memory_is_safe(const struct snapshot *snapshot)
{
    const void *own[] = {
        snapshot,
        &face,
        snapshot->fault_server.thread.stack,
        snapshot->saver.stack,
        snapshot->keeper.stack,
        snapshot->preserved.slots,
        (const void *)snapshot->preserved.directory,
        snapshot->preserved.packing,
        (const void *)&fault_points_on,
    };
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (regions_find(&snapshot->heap.registered, (uint64_t)(uintptr_t)own[i]))
            return false;
    return true;
}

static int prepare_heap(struct snapshot *snapshot, char *reason)
{
    int error = heap_open(&snapshot->heap, &snapshot->ability);
    if (error == -EPERM || error == -EACCES) {
        struct ability now;
        ability_probe(&now);
        snprintf(reason, REASON_BYTES, "%s",
                 now.error ? now.reason : "no permission for userfaultfd");
        return error;
    }
    if (error)
        return explain(reason, error, "userfaultfd");
    if (heap_is_stale(&snapshot->heap)) {
        error = heap_refresh(&snapshot->heap, false);
        if (error)
            return explain(reason, error, "cannot register the heap");
    }
    error = prepare_view(snapshot, reason);
    if (!error && !own_memory_is_safe(snapshot)) {
        preserved_end(&snapshot->preserved);
        snprintf(reason, REASON_BYTES, "the module's own memory is part of the heap");
        error = -EFAULT;
    }
    return error;
}

/* ---- freeze ---------------------------------------------------------------------- */

static int protect(struct snapshot *snapshot)
{
    int error = heap_protect(&snapshot->heap);
    if (error != -ENOENT && error != -EINVAL)
        return error;
    /* A mapping was replaced behind our back: register all again, once. */
    error = heap_refresh(&snapshot->heap, true);
    if (!error)
        error = view_set_regions(&snapshot->view, &snapshot->heap.registered);
    if (!error && snapshot->view.chunk_count > snapshot->preserved.chunk_count)
        error = -EAGAIN;
    return error ? error : heap_protect(&snapshot->heap);
}

/* Where the pause goes, for the statistics. */
static void end_step(struct snapshot *snapshot, uint64_t *usec)
{
    uint64_t now = clock_usec();
    *usec = now - snapshot->step_began_usec;
    snapshot->step_began_usec = now;
}

/* All or nothing. From here on the keyspace is the snapshot's. */
static int freeze(struct snapshot *snapshot, char *reason)
{
    allocator_steer();
    end_step(snapshot, &snapshot->steer_usec);
    atomic_store_explicit(&snapshot->frozen, true, memory_order_seq_cst);
    fault_server_arm(&snapshot->fault_server, snapshot->heap.userfaultfd);
    int error = protect(snapshot);
    end_step(snapshot, &snapshot->protect_usec);
    if (!error)
        return 0;
    atomic_store_explicit(&snapshot->frozen, false, memory_order_seq_cst);
    view_fail(&snapshot->view, -ECANCELED);
    fault_server_disarm(&snapshot->fault_server);
    preserved_end(&snapshot->preserved);
    allocator_restore();
    return explain(reason, error, "cannot protect the heap");
}

static int prepare_and_freeze(struct snapshot *snapshot, char *reason)
{
    heap_lock(&snapshot->heap);
    int error = prepare_heap(snapshot, reason);
    end_step(snapshot, &snapshot->prepare_usec);
    if (!error)
        error = freeze(snapshot, reason);
    heap_unlock(&snapshot->heap);
    return error;
}

/* ---- the server's fork ----------------------------------------------------------- */

static enum child_decision fall_back(struct snapshot *snapshot, int cause, char *reason,
                                     int *error)
{
    bool news = strcmp(reason, face.last_fallback_reason) != 0;
    bool fallback = snapshot->settings.fallback;
    face.fork_fallbacks++;
    if (news) {
        char text[MESSAGE_BYTES + REASON_BYTES];
        memcpy(face.last_fallback_reason, reason, REASON_BYTES);
        snprintf(text, sizeof(text), "uffd: %s: %s",
                 fallback ? "saving with the server's own fork"
                          : "save refused (fallback no)",
                 reason);
        snapshot->host->log(RDB_UFFD_WARNING, text);
    }
    if (fallback)
        return CHILD_REAL_FORK;
    *error = cause < 0 ? -cause : ENOTSUP;
    return CHILD_REFUSE;
}

/* A child that cannot open its file says so and exits with 1. */
static enum child_decision fail_like_a_child(struct snapshot *snapshot, int error)
{
    char directory[512], text[1024];
    snprintf(text, sizeof(text),
             "Failed opening the temp RDB file %s (in server root dir %s) for saving: %s",
             snapshot->capture.temporary_name,
             getcwd(directory, sizeof(directory)) ? directory : "unknown",
             strerror(-error));
    snapshot->host->log(RDB_UFFD_WARNING, text);
    snprintf(snapshot->last_error, sizeof(snapshot->last_error),
             "cannot open the temporary file: %s", strerror(-error));
    atomic_fetch_add_explicit(&snapshot->snapshots_failed, 1, memory_order_relaxed);
    face.forks_replaced++;
    server_capture_release(&snapshot->capture);
    child_exited(1 << 8);
    return CHILD_TAKE_OVER;
}

static void begin_saving(struct snapshot *snapshot)
{
    face.forks_replaced++;
    atomic_store_explicit(&snapshot->keys_saved, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->kill_signal, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_frozen_bytes,
                          regions_bytes(&snapshot->heap.registered),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->phase, PHASE_SAVING, memory_order_release);
    atomic_store_explicit(&snapshot->last_freeze_usec,
                          clock_usec() - snapshot->freeze_began_usec,
                          memory_order_relaxed);
    saver_begin(snapshot);
    keeper_nudge(snapshot);
}

static enum child_decision begin(const struct child_request *request, int *error)
{
    struct snapshot *snapshot = &the_snapshot;
    char reason[REASON_BYTES] = "";
    if (!snapshot->settings.enabled || request->cause == CHILD_OTHER)
        return CHILD_REAL_FORK;
    allocator_restore();
    if (face.unsupported[0])
        return fall_back(snapshot, snapshot->ability.error, face.unsupported, error);

    snapshot->freeze_began_usec = snapshot->step_began_usec = clock_usec();
    snapshot->request = *request;
    int result = server_capture(request, &snapshot->capture, reason, sizeof(reason));
    if (result)
        return fall_back(snapshot, result, reason, error);
    result = open_output(snapshot);
    if (result)
        return fail_like_a_child(snapshot, result);
    end_step(snapshot, &snapshot->capture_usec);
    result = prepare_and_freeze(snapshot, reason);
    if (result) {
        rdb_output_close(snapshot->output);
        server_capture_release(&snapshot->capture);
        return fall_back(snapshot, result, reason, error);
    }
    begin_saving(snapshot);
    return CHILD_TAKE_OVER;
}

static void kill_child(int signal)
{
    saver_kill(&the_snapshot, signal);
}

static void wait_for_child(void)
{
    saver_wait(&the_snapshot);
}

/* What a child logs comes before the server's line about its end. */
static void reaped(void)
{
    hand_over_log(&the_snapshot);
}

/* A real fork's child: the snapshot is its parent's, and so is the descriptor,
 * which must not stay open here: closing the last one is the emergency exit. */
static void forked(void)
{
    face.in_forked_child = true;
    close(the_snapshot.heap.userfaultfd);
}

static const struct child_operations child_operations = {
    .begin = begin,
    .kill = kill_child,
    .wait = wait_for_child,
    .reaped = reaped,
    .forked = forked,
};

/* ---- the guard's questions ------------------------------------------------------- */

static bool is_frozen(void)
{
    return atomic_load_explicit(&the_snapshot.frozen, memory_order_acquire) &&
           !face.in_forked_child;
}

static int keep(uint64_t start, uint64_t end, bool may_refuse)
{
    struct snapshot *snapshot = &the_snapshot;
    uint64_t limit =
        atomic_load_explicit(&snapshot->preserved.limit, memory_order_relaxed);
    uint64_t used = preserved_bytes(&snapshot->preserved);
    uint64_t room = used < limit ? limit - used : 0;
    /* A purge of much memory would fill the buffer with what nobody will read;
     * refused, jemalloc keeps the pages for its next need. */
    if (may_refuse && end - start > room / 4) {
        atomic_fetch_add_explicit(&snapshot->advices_refused, 1, memory_order_relaxed);
        return -EAGAIN;
    }
    fault_server_preserve(&snapshot->fault_server, start, end);
    return 0;
}

static void mapped(void *start, size_t length)
{
    if (face.in_forked_child)
        return;
    if (length && the_snapshot.settings.huge_pages && the_snapshot.settings.enabled)
        keeper_advise_huge(start, length);
    heap_note_change(&the_snapshot.heap);
}

static const struct guard_operations guard_operations = {
    .frozen = is_frozen,
    .keep = keep,
    .mapped = mapped,
};

/* ---- life of the module ---------------------------------------------------------- */

static void snapshot_failed(void *context, int error)
{
    (void)error;
    snapshot_cancel_output(context);
}

static int create_parts(struct snapshot *snapshot)
{
    int error = heap_create(&snapshot->heap);
    if (!error)
        error = preserved_create(&snapshot->preserved);
    if (!error)
        error = view_create(&snapshot->view, &snapshot->preserved);
    if (!error)
        error = fault_server_start(&snapshot->fault_server, &snapshot->view,
                                   snapshot_failed, snapshot);
    snapshot->fault_server.writer_cpu = thread_cpu_word();
    if (!error)
        error = saver_start(snapshot);
    if (!error)
        error = keeper_start(snapshot);
    return error;
}

static void destroy_parts(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    if (snapshot->keeper.running)
        keeper_stop(snapshot);
    if (snapshot->saver.running)
        saver_stop(snapshot);
    if (snapshot->fault_server.thread.running)
        fault_server_stop(&snapshot->fault_server);
    view_destroy(&snapshot->view);
    preserved_destroy(&snapshot->preserved);
    heap_destroy(&snapshot->heap);
}

/* Why nothing can be served in this process; "" when all is well. */
static void find_obstacle(struct snapshot *snapshot, char *reason)
{
    const struct rdb_uffd_host *host = snapshot->host;
    reason[0] = '\0';
    if (server_identify(host->server_name, host->server_version, reason, REASON_BYTES) !=
        0)
        return;
    if (allocator_find() != 0) {
        snprintf(reason, REASON_BYTES, "the server does not use jemalloc");
        return;
    }
    if (ability_probe(&snapshot->ability) != 0 || fault_point(FAULT_NO_USERFAULTFD))
        snprintf(reason, REASON_BYTES, "%s",
                 snapshot->ability.error ? snapshot->ability.reason
                                         : "no permission for userfaultfd");
}

static int stand_in(struct snapshot *snapshot)
{
    if (face.unsupported[0])
        return child_install(&child_operations);
    int error = guard_install(&guard_operations, allocator_function());
    if (error) {
        explain(face.unsupported, error, "cannot guard the allocator");
        return child_install(&child_operations);
    }
    allocator_make_ready();
    allocator_make_ready();
    /* The server switches huge pages off for itself because of fork. */
    if (snapshot->settings.huge_pages)
        prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    return child_install(&child_operations);
}

int rdb_uffd_start(const struct rdb_uffd_host *host,
                   const struct rdb_uffd_settings *settings)
{
    struct snapshot *snapshot = &the_snapshot;
    memset(snapshot, 0, sizeof(*snapshot));
    memset(&face, 0, sizeof(face));
    snapshot->host = host;
    snapshot->settings = *settings;
    find_obstacle(snapshot, face.unsupported);
    snapshot->ability.error = face.unsupported[0] ? -ENOTSUP : 0;
    int error = create_parts(snapshot);
    if (!error)
        error = stand_in(snapshot);
    if (error) {
        guard_remove();
        destroy_parts(snapshot);
        return error;
    }
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    keeper_nudge(snapshot);
    face.started = true;
    return 0;
}

int rdb_uffd_stop(void)
{
    struct snapshot *snapshot = &the_snapshot;
    if (snapshot_phase(snapshot) != PHASE_NONE)
        return -EBUSY;
    int error = child_remove();
    if (error)
        return error;
    guard_remove();
    allocator_restore();
    destroy_parts(snapshot);
    face.started = false;
    return 0;
}

void rdb_uffd_configure(const struct rdb_uffd_settings *settings)
{
    struct snapshot *snapshot = &the_snapshot;
    snapshot->settings = *settings;
    if (!face.started)
        return;
    if (snapshot_phase(snapshot) != PHASE_NONE) {
        preserved_set_limit(&snapshot->preserved, limit_in_bytes(snapshot));
        fault_server_nudge(&snapshot->fault_server);
    }
    keeper_nudge(snapshot);
}

void rdb_uffd_tick(void)
{
    struct snapshot *snapshot = &the_snapshot;
    if (!face.started)
        return;
    hand_over_log(snapshot);
    if (face.unsupported[0])
        return;
    if (snapshot_phase(snapshot) != PHASE_NONE) {
        allocator_stop_decay();
        return;
    }
    allocator_restore();
    allocator_make_ready();
}

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
    statistics->buffer_limit_bytes = limit_in_bytes(snapshot);
    statistics->buffer_used_bytes = idle ? 0 : preserved_bytes(preserved);
    statistics->buffer_peak_bytes =
        idle ? RELAXED(snapshot->last_bytes_peak) : RELAXED(preserved->bytes_peak);
    statistics->pages_packed = RELAXED(preserved->pages_packed);
    statistics->packed_bytes = RELAXED(preserved->packed_bytes);
    statistics->spool_bytes = idle ? 0 : RELAXED(preserved->pages_spooled) * PAGE_BYTES;
    statistics->last_pages_preserved =
        idle ? RELAXED(snapshot->last_pages_preserved) : RELAXED(preserved->pages);
}

void rdb_uffd_get_statistics(struct rdb_uffd_statistics *statistics)
{
    struct snapshot *snapshot = &the_snapshot;
    struct fault_statistics *faults = &snapshot->fault_server.statistics;
    *statistics = (struct rdb_uffd_statistics){
        .state = state_of(snapshot),
        .supported = !face.unsupported[0],
        .unsupported_reason = face.unsupported,
        .snapshots_ok = RELAXED(snapshot->snapshots_ok),
        .snapshots_failed = RELAXED(snapshot->snapshots_failed),
        .forks_replaced = face.forks_replaced,
        .fork_fallbacks = face.fork_fallbacks,
        .last_fallback_reason = face.last_fallback_reason,
        .last_error = snapshot->last_error,
        .last_freeze_usec = RELAXED(snapshot->last_freeze_usec),
        .last_freeze_capture_usec = snapshot->capture_usec,
        .last_freeze_prepare_usec = snapshot->prepare_usec,
        .last_freeze_steer_usec = snapshot->steer_usec,
        .last_freeze_protect_usec = snapshot->protect_usec,
        .last_save_msec = RELAXED(snapshot->last_save_msec),
        .last_release_usec = RELAXED(snapshot->last_release_usec),
        .last_faults = RELAXED(faults->faults),
        .last_unprotects = RELAXED(faults->unprotects),
        .last_spool_peak_bytes = RELAXED(snapshot->last_spool_peak_bytes),
        .last_regions = snapshot->view.region_count,
        .last_frozen_bytes = RELAXED(snapshot->last_frozen_bytes),
        .keys_saved = RELAXED(snapshot->keys_saved),
        .keys_total = RELAXED(snapshot->keys_total),
        .writer_waits = RELAXED(faults->writer_waits),
        .writer_wait_usec = RELAXED(faults->writer_wait_usec),
        .advices_refused = RELAXED(snapshot->advices_refused),
        .saver_faults = RELAXED(faults->saver_faults),
        .huge_pages_mended = RELAXED(snapshot->huge_pages_mended),
        .vectored_madvise = advice_is_vectored(),
    };
    buffer_statistics(snapshot, statistics);
}
