#include "freeze.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "destination.h"
#include "eviction.h"
#include "host/deferred_free.h"
#include "host/guard.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "memory/allocator.h"
#include "memory/decommitted.h"
#include "memory/deferred_unmap.h"
#include "memory/protection.h"
#include "memory_budget.h"
#include "rescue.h"
#include "service.h"
#include "watchdog.h"

/* Of the limit, or of the room where that is less, for pages that the child for modules'
 * values has. */
#define VALUE_CHILD_SHARE 4

int freeze_explain(char *reason, int error, const char *what)
{
    snprintf(reason, REASON_BYTES, "%s: %s", what, strerror(-error));
    return error;
}

static int open_sockets(struct snapshot *snapshot,
                        const struct rdb_output_options *options)
{
    int error = rdb_output_open_sockets(&snapshot->output, snapshot->capture.sockets,
                                        snapshot->capture.socket_count, options);
    if (!error)
        snapshot->capture.socket_count = 0; /* the output's now */
    return error;
}

int freeze_open_output(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    struct rdb_output_options options = {
        .checksum = snapshot->capture.checksum,
        .sync_every = snapshot->capture.sync_every,
    };
    if (snapshot_is_backup(snapshot)) {
        options.lz4 = snapshot->backup.lz4;
        options.keep_existing = !snapshot->backup.replace;
        options.bytes_per_second = snapshot->backup.bytes_per_second;
        options.patience_msec = BACKUP_READER_RESTS_MSEC;
        return rdb_output_open_nowhere(&snapshot->output, &options);
    }
    if (snapshot->request.cause != CHILD_SAVE_SOCKET)
        return rdb_output_open_file(&snapshot->output, snapshot->capture.directory,
                                    &options);
    if (snapshot->capture.socket_count)
        return open_sockets(snapshot, &options);
    int error = rdb_output_open_descriptor(&snapshot->output,
                                           snapshot->capture.transfer_pipe, &options);
    if (!error)
        snapshot->capture.transfer_pipe = -1; /* the output's now */
    return error;
}

/* A writer that is blocked is the server itself, which then does not read the pipe that
 * the saver waits for: both would wait for ever. And a backup's reader or rate may make it
 * as slow as they like. */
static enum buffer_policy policy_of(const struct snapshot *snapshot)
{
    bool waits_for_others =
        snapshot->capture.exit_pipe >= 0 || snapshot_is_backup(snapshot);
    enum buffer_policy wanted = snapshot->settings.buffer_policy;
    return waits_for_others && wanted == BUFFER_BLOCK ? BUFFER_SPOOL : wanted;
}

/* The buffer and the index for what is registered now. */
static int prepare_view(struct snapshot *snapshot, char *reason)
{
    snapshot->limit = snapshot_limit(snapshot);
    struct preserved_settings settings = {
        .limit = snapshot->limit,
        .policy = policy_of(snapshot),
        .compress = snapshot->settings.compression,
        .spool_directory = snapshot->settings.spool_directory,
    };
    int error = view_set_regions(&snapshot->view, &snapshot->heap.registered);
    if (error)
        return freeze_explain(reason, error, "too many memory regions");
    error = preserved_begin(&snapshot->preserved, snapshot->view.chunk_count, &settings);
    if (error == -EDQUOT) {
        snprintf(reason, REASON_BYTES,
                 "buffer-limit is too small for this heap: it needs at least %llu bytes",
                 (unsigned long long)preserved_least_limit(snapshot->view.chunk_count));
        return error;
    }
    if (error == -EBUSY) {
        snprintf(reason, REASON_BYTES, UPKEEP_IS_LATE);
        return error;
    }
    return error ? freeze_explain(reason, error,
                                  error == -ETIMEDOUT ? "the spool's disk does not answer"
                                                      : "snapshot buffer or spool")
                 : 0;
}

/* What the fault server writes to must never be protected: it would wait for
 * itself. Checked, not believed. */
static bool own_memory_is_safe(const struct snapshot *snapshot)
{
    const void *own[] = {
        snapshot,
        &the_service,
        snapshot->fault_server.thread.stack,
        snapshot->saver.stack,
        snapshot->upkeep.stack,
        snapshot->watchdog.stack,
        snapshot->fault_server.waits,
        snapshot->preserved.slots,
        (const void *)snapshot->preserved.directory,
        (const void *)snapshot->preserved.marks,
        snapshot->preserved.slot_table,
        snapshot->preserved.slot_kinds,
        snapshot->preserved.packer,
        (const void *)fault_points_on,
    };
    for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
        if (regions_find(&snapshot->heap.registered, (uint64_t)(uintptr_t)own[i]))
            return false;
    return true;
}

static int explain_heap(char *reason, int error)
{
    if (error != -EAGAIN)
        return freeze_explain(reason, error, "cannot register the heap");
    snprintf(reason, REASON_BYTES, "the kernel does not list the whole memory map");
    return error;
}

/* Where the server's data begin: where they are missing, so is more. Seen once, on Valkey
 * 9.1 on a busy machine: two regions were registered, of a dozen, and the save failed. */
static bool has_databases(const struct snapshot *snapshot)
{
    return regions_find(&snapshot->heap.registered, snapshot->capture.roots.databases);
}

static int refresh_heap(struct snapshot *snapshot, char *reason)
{
    heap_want_whole(&snapshot->heap, snapshot->capture.needs_child);
    int error = heap_is_stale(&snapshot->heap) ? heap_refresh(&snapshot->heap, false) : 0;
    if (!error && !has_databases(snapshot)) {
        size_t listed = snapshot->heap.registered.count;
        error = heap_refresh(&snapshot->heap, true);
        snapshot_log(snapshot, RDB_UFFD_NOTICE,
                     "the heap was listed without the server's databases: %zu regions, "
                     "%zu when it was read again",
                     listed, snapshot->heap.registered.count);
    }
    return error ? explain_heap(reason, error) : 0;
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
        return freeze_explain(reason, error, "userfaultfd");
    error = refresh_heap(snapshot, reason);
    if (error)
        return error;
    error = prepare_view(snapshot, reason);
    if (!error && !own_memory_is_safe(snapshot)) {
        preserved_end(&snapshot->preserved);
        snprintf(reason, REASON_BYTES, "the module's own memory is part of the heap");
        error = -EFAULT;
    }
    return error;
}

/* ---- freeze ---------------------------------------------------------------------- */

void freeze_end_step(struct snapshot *snapshot, uint64_t *usec)
{
    uint64_t now = clock_usec();
    *usec += now - snapshot->step_began_usec;
    snapshot->step_began_usec = now;
}

static void thaw(struct snapshot *snapshot)
{
    value_child_end(&snapshot->values);
    view_fail(&snapshot->view, -ECANCELED);
    /* The watchdog looks as long as it is frozen, and nobody else ends this wait when the
     * fault server hangs. */
    bool there = fault_server_disarm(&snapshot->fault_server);
    atomic_store_explicit(&snapshot->frozen, false, memory_order_seq_cst);
    rescue_give_back(snapshot, there);
    decommitted_thaw();
    deferred_free_end();
    allocator_restore();
}

/* After the emergency exit it is the descriptor that refuses: that is not the reason. */
static int protect_heap(struct snapshot *snapshot, bool again)
{
    if (atomic_load_explicit(&snapshot->rescuing, memory_order_seq_cst))
        return -ETIMEDOUT;
    if (!again && fault_point(FAULT_REPLACED_MAPPING)) {
        heap_disarm_now(&snapshot->heap); /* as when a helper is late */
        return -ENOENT;
    }
    int error = heap_protect(&snapshot->heap);
    int given_up = atomic_load_explicit(&snapshot->view.error, memory_order_acquire);
    return error && given_up ? given_up : error;
}

/* The child that saves values of modules' types, as the heap is at this instant: nothing
 * of the server's is done from here until it is protected. */
static int make_value_child(struct snapshot *snapshot)
{
    uint64_t room = memory_budget_spare(snapshot);
    uint64_t memory =
        (snapshot->limit < room ? snapshot->limit : room) / VALUE_CHILD_SHARE;
    snapshot->values.compress = snapshot->capture.compress;
    int error = value_child_prepare(&snapshot->values);
    if (!error)
        error = value_child_fork(&snapshot->values, &snapshot->heap.registered,
                                 prefaulted_region(&snapshot->prefaulted), memory,
                                 thread_own_cpu());
    return error ? -ECHILD : 0;
}

/* All or nothing. From here on the keyspace is the snapshot's. */
static int freeze(struct snapshot *snapshot, bool again)
{
    allocator_steer(deferred_free_is_installed());
    deferred_free_begin(eviction_is_possible(snapshot), NULL);
    eviction_begin(snapshot);
    snapshot->new_values_peak = 0;
    snapshot->limit_least = preserved_limit(&snapshot->preserved);
    freeze_end_step(snapshot, &snapshot->steer_usec);
    value_child_forget(&snapshot->values);
    int error = snapshot->capture.needs_child ? make_value_child(snapshot) : 0;
    atomic_store_explicit(&snapshot->frozen, true, memory_order_seq_cst);
    fault_server_arm(&snapshot->fault_server, snapshot->heap.userfaultfd,
                     !snapshot->capture.needs_child);
    watchdog_begin(snapshot);
    if (!error)
        error = protect_heap(snapshot, again);
    if (fault_point(FAULT_SLOW_FREEZE))
        sleep_usec(20000);
    freeze_end_step(snapshot, &snapshot->protect_usec);
    atomic_store_explicit(&snapshot->last_protected_bytes,
                          protection_bytes(snapshot->heap.protection),
                          memory_order_relaxed);
    if (error)
        thaw(snapshot);
    else
        audit_begin(&snapshot->fault_server.audit, &snapshot->view,
                    snapshot->heap.pagemap, heap_content(&snapshot->heap));
    return error;
}

static int explain_refusal(char *reason, int error)
{
    if (error == -ECHILD) {
        snprintf(reason, REASON_BYTES,
                 "values or data of modules need a child, and there is none to be had");
        return error;
    }
    if (error != -ETIMEDOUT)
        return freeze_explain(reason, error, "cannot protect the heap");
    snprintf(reason, REASON_BYTES, "page faults were not served in the freeze");
    return error;
}

/* A mapping was replaced behind our back: what is registered at its place is not any
 * more. All is registered and numbered anew, since other threads may have had pages
 * preserved under the old numbers. */
static int freeze_again(struct snapshot *snapshot, char *reason)
{
    const char *obstacle = rescue_obstacle(snapshot);
    if (obstacle) {
        snprintf(reason, REASON_BYTES, "%s", obstacle);
        return -EBUSY;
    }
    deferred_unmap_begin(); /* thaw() has ended it */
    /* heap_protect() has given the descriptor up if a helper was late. */
    int error = heap_open(&snapshot->heap, &snapshot->ability);
    if (!error)
        error = heap_refresh(&snapshot->heap, true);
    if (error)
        return explain_heap(reason, error);
    error = prepare_view(snapshot, reason);
    freeze_end_step(snapshot, &snapshot->prepare_usec);
    if (error)
        return error;
    error = freeze(snapshot, true);
    return error ? explain_refusal(reason, error) : 0;
}

static int prepare_and_freeze(struct snapshot *snapshot, char *reason)
{
    int error = prepare_heap(snapshot, reason);
    freeze_end_step(snapshot, &snapshot->prepare_usec);
    if (error)
        return error;
    error = freeze(snapshot, false);
    if (error == -ENOENT || error == -EINVAL)
        return freeze_again(snapshot, reason);
    return error ? explain_refusal(reason, error) : 0;
}

int freeze_begin(struct snapshot *snapshot, char reason[REASON_BYTES])
{
    DEMAND_MAIN_THREAD();
    DEMAND(snapshot_phase(snapshot) == PHASE_NONE);
    DEMAND(!atomic_load_explicit(&snapshot->frozen, memory_order_relaxed));
    int error = heap_lock_in_time(&snapshot->heap);
    if (error) {
        snprintf(reason, REASON_BYTES, UPKEEP_IS_LATE);
        return error;
    }
    /* What is found now shall be there when it is protected: the allocator's own
     * threads unmap at any time. */
    deferred_unmap_begin();
    atomic_store_explicit(&snapshot->freezing, true, memory_order_seq_cst);
    error = guard_wait_for_calls();
    if (error)
        snprintf(reason, REASON_BYTES,
                 "a thread that gives memory back to the system does not end that");
    else
        error = prepare_and_freeze(snapshot, reason);
    atomic_store_explicit(&snapshot->freezing, false, memory_order_seq_cst);
    /* Who has not come back may be reading still: rescue_tend() ends it then. */
    if (error && !atomic_load_explicit(&snapshot->unreleased, memory_order_acquire) &&
        deferred_unmap_end())
        heap_note_change(&snapshot->heap);
    heap_unlock(&snapshot->heap);
    return error;
}
