#include "dump.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "destination.h"
#include "host/child_report.h"
#include "kernel/fault_points.h"
#include "keyspace/keyspace.h"
#include "keyspace/worker_pool.h"
#include "pace.h"
#include "rdb/encoder.h"
#include "rdb/output.h"

#define RDB_OPCODE_EOF 255
/* Characters of the mark around a transfer. */
#define MARK_BYTES        40
#define REPORT_EVERY_USEC 1000000

struct save {
    struct keyspace_observer observer;
    struct snapshot *snapshot;
    struct pace pace;
    uint64_t next_report_usec;
};

/* What the workers ask. */
struct help {
    struct keyspace_observer observer;
    struct snapshot *snapshot;
};

/* Several threads. */
static int may_help(struct keyspace_observer *observer, uint64_t keys)
{
    struct snapshot *snapshot = ((struct help *)observer)->snapshot;
    if (snapshot_phase(snapshot) != PHASE_SAVING)
        return -ECANCELED;
    if (!keys && atomic_load_explicit(&snapshot->writers_pressed, memory_order_relaxed))
        return -EAGAIN;
    return atomic_load_explicit(&snapshot->view.error, memory_order_relaxed);
}

static int progress(struct keyspace_observer *observer, uint64_t keys)
{
    struct save *save = (struct save *)observer;
    struct snapshot *snapshot = save->snapshot;
    atomic_store_explicit(&snapshot->keys_saved, keys, memory_order_relaxed);
    atomic_store_explicit(&snapshot->bytes_written, rdb_output_written(snapshot->output),
                          memory_order_relaxed);
    if (snapshot_phase(snapshot) != PHASE_SAVING)
        return -ECANCELED;
    uint64_t now = clock_usec();
    if (now >= save->next_report_usec) {
        save->next_report_usec = now + REPORT_EVERY_USEC;
        child_report_send(snapshot->capture.report_pipe, snapshot->request.cause,
                          CHILD_REPORT_PROGRESS, keys,
                          snapshot_preserved_bytes(snapshot));
    }
    pace_yield(&save->pace, snapshot, now);
    return atomic_load_explicit(&snapshot->view.error, memory_order_relaxed);
}

/* What no walk of a keyspace that is as it should be ends with. */
static bool is_unexpected(const struct snapshot *snapshot, int error)
{
    return (error == -EFAULT || error == -EBADMSG || error == -ENOTSUP ||
            error == -ENODATA || error == KEYSPACE_STRANGER) &&
           atomic_load_explicit(&snapshot->view.error, memory_order_acquire) == 0;
}

static int write_keys(struct save *save, struct rdb_encoder *encoder,
                      const struct thread_cpus *for_workers)
{
    struct snapshot *snapshot = save->snapshot;
    if (snapshot->capture.no_data) {
        atomic_store_explicit(&snapshot->keys_total, 0, memory_order_relaxed);
        return 0;
    }
    const struct keyspace_roots *roots = &snapshot->capture.roots;
    struct help help = {.observer.progress = may_help, .snapshot = snapshot};
    struct worker_pool *pool = snapshot->workers;
    struct view_reader reader;
    uint64_t total = 0, imported;
    view_reader_init(&reader, &snapshot->view);
    if (keyspace_count(roots, &reader, &total, &imported) == 0)
        atomic_store_explicit(&snapshot->keys_total, total, memory_order_relaxed);
    if (worker_pool_begin(pool, &snapshot->view, snapshot->capture.compress,
                          &help.observer, for_workers) != 0)
        pool = NULL;
    int error = keyspace_save(roots, &reader, encoder, &save->observer, pool,
                              &snapshot->failed_where);
    if (is_unexpected(snapshot, error))
        snapshot->walk_error = error;
    snapshot->stranger = save->observer.stranger;
    if (pool)
        worker_pool_end(pool);
    return error;
}

/* By the child: where there is none, they are in what was captured. */
static int write_module_data(struct snapshot *snapshot, struct rdb_encoder *encoder,
                             enum aux_place place)
{
    if (!snapshot->capture.needs_child)
        return 0;
    int error = value_child_save_aux(&snapshot->values, place, encoder);
    if (error)
        snapshot->failed_where = "what modules write besides values";
    return error;
}

static int write_header(struct snapshot *snapshot, struct rdb_encoder *encoder)
{
    const struct server_capture *capture = &snapshot->capture;
    int error = rdb_encode_raw(encoder, capture->header, capture->header_aux);
    if (!error)
        error = write_module_data(snapshot, encoder, AUX_BEFORE_KEYS);
    if (!error)
        error = rdb_encode_raw(encoder, capture->header + capture->header_aux,
                               capture->header_length - capture->header_aux);
    return error;
}

/* Everything between the magic and the checksum. */
static int write_body(struct snapshot *snapshot, struct rdb_encoder *encoder)
{
    struct server_capture *capture = &snapshot->capture;
    struct save save = {
        .observer.progress = progress,
        .snapshot = snapshot,
        .next_report_usec = clock_usec(),
    };
    struct thread_cpus all_cpus, for_workers;
    thread_get_cpus(0, &all_cpus);
    pace_take_cpus(snapshot, &all_cpus, &for_workers);
    pace_begin(&save.pace, snapshot);
    fault_point_crash(FAULT_WILD_SAVER);
    int error = 0;
    if (value_child_exists(&snapshot->values)) {
        error = value_child_begin(&snapshot->values, &snapshot->view);
        save.observer.values = &snapshot->values.source;
    }
    if (!error)
        error = write_header(snapshot, encoder);
    if (!error)
        error = write_keys(&save, encoder, &for_workers);
    if (!error)
        error = write_module_data(snapshot, encoder, AUX_AFTER_KEYS);
    if (!error)
        error = rdb_encode_raw(encoder, capture->trailer, capture->trailer_length);
    if (!error)
        error = rdb_encode_byte(encoder, RDB_OPCODE_EOF);
    if (!error)
        error = rdb_encoder_flush(encoder);
    thread_set_cpus(0, &all_cpus);
    return error;
}

/* Nothing reads the past any more, and nothing that a server or a replica would take for
 * whole has been written: whether it was the past. A walk that has met what cannot be may
 * have met what was lost. */
static int check_dump(struct snapshot *snapshot, int error)
{
    struct audit *audit = &snapshot->fault_server.audit;
    struct thread_cpus all_cpus;
    if (error && !snapshot->walk_error)
        return error;
    thread_get_cpus(0, &all_cpus);
    thread_stay_off(&all_cpus, snapshot->fault_server.writer_cpu);
    int audited = audit_all(audit);
    thread_set_cpus(0, &all_cpus);
    return audited == AUDIT_LOST || !error ? audited : error;
}

/* What the child has written is in the encoder by now, or will never be. */
static void end_values(struct snapshot *snapshot, int error)
{
    if (!value_child_exists(&snapshot->values))
        return;
    value_child_end(&snapshot->values);
    /* It may be the child's, or of what it was given: a fork goes another way. */
    bool doubtful = error == -ECHILD || error == -ETIME || error == -EPROTO ||
                    error == -EFAULT || error == -EBADMSG || error == -ENOMEM;
    if (doubtful)
        atomic_store_explicit(&snapshot->child_failed, true, memory_order_relaxed);
}

static int write_dump(struct snapshot *snapshot)
{
    struct rdb_encoder *encoder =
        rdb_encoder_create(rdb_output_sink(snapshot->output), snapshot->capture.compress);
    if (!encoder)
        return -ENOMEM;
    int error = write_body(snapshot, encoder);
    rdb_encoder_destroy(encoder);
    end_values(snapshot, error);
    error = check_dump(snapshot, error);
    if (error)
        return error;
    /* Little endian on every machine a layout table exists for. */
    uint64_t checksum = rdb_output_checksum(snapshot->output);
    return rdb_output_write_plain(snapshot->output, &checksum, sizeof(checksum));
}

/* The step after which the save can no longer be cancelled. */
static int publish(struct snapshot *snapshot)
{
    int error = atomic_load_explicit(&snapshot->view.error, memory_order_acquire);
    if (error)
        return error;
    if (!snapshot_move_phase(snapshot, PHASE_SAVING, PHASE_PUBLISHING))
        return -ECANCELED;
    return rdb_output_publish(snapshot->output, snapshot_is_backup(snapshot)
                                                    ? snapshot->backup.name
                                                    : snapshot->capture.file_name);
}

/* A child that cannot open its file says so. */
static int create_file(struct snapshot *snapshot)
{
    char directory[256], name[CHILD_FILE_BYTES];
    if (!snapshot_move_phase(snapshot, PHASE_SAVING, PHASE_CREATING))
        return -ECANCELED;
    int number =
        destination_create_file(snapshot, snapshot->request.pid, child_files_name, name);
    int error = number < 0 ? number : 0;
    if (!error)
        child_files_made(number);
    if (!snapshot_move_phase(snapshot, PHASE_CREATING, PHASE_SAVING))
        return -ECANCELED;
    if (error)
        snapshot_log(snapshot, RDB_UFFD_WARNING,
                     "Failed opening the temp RDB file %s (in server root dir %s) for "
                     "saving: %s",
                     name, getcwd(directory, sizeof(directory)) ? directory : "unknown",
                     strerrordesc_np(-error));
    return error;
}

static int save_to_file(struct snapshot *snapshot)
{
    int error = create_file(snapshot);
    if (!error)
        error = write_dump(snapshot);
    if (!error)
        error = rdb_output_sync(snapshot->output);
    if (!error)
        error = publish(snapshot);
    return error;
}

/* A transfer to replicas: its length is not known ahead, so 40 characters that
 * nobody can guess stand before and after the dump. */
static int save_to_pipe(struct snapshot *snapshot)
{
    static const char digits[] = "0123456789abcdef";
    char head[5 + MARK_BYTES + 2] = "$EOF:";
    char *mark = head + 5;
    unsigned char random[MARK_BYTES];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return -EIO;
    for (size_t i = 0; i < MARK_BYTES; i++)
        mark[i] = digits[random[i] % 16];
    mark[MARK_BYTES] = '\r';
    mark[MARK_BYTES + 1] = '\n';
    /* Not before: a real child, had the freeze failed, would have got the same pipe. */
    int error = rdb_output_never_block(snapshot->output);
    if (!error)
        error = rdb_output_write_plain(snapshot->output, head, sizeof(head));
    if (!error)
        error = write_dump(snapshot);
    if (!error)
        error = rdb_output_write_plain(snapshot->output, mark, MARK_BYTES);
    if (!error)
        error = rdb_output_flush(snapshot->output);
    return error;
}

static int save_to_backup(struct snapshot *snapshot)
{
    bool is_file = false;
    int error = destination_open(snapshot, &is_file);
    if (error)
        return error;
    atomic_store_explicit(&snapshot->backup_is_open, true, memory_order_release);
    error = write_dump(snapshot);
    if (!error)
        error = is_file ? rdb_output_sync(snapshot->output)
                        : rdb_output_finish(snapshot->output);
    if (!error && is_file)
        error = publish(snapshot);
    atomic_store_explicit(&snapshot->bytes_written, rdb_output_written(snapshot->output),
                          memory_order_relaxed);
    return error;
}

int dump_write(struct snapshot *snapshot)
{
    if (snapshot_is_backup(snapshot))
        return save_to_backup(snapshot);
    return dump_is_transfer(snapshot) ? save_to_pipe(snapshot) : save_to_file(snapshot);
}

bool dump_is_transfer(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_SAVE_SOCKET;
}
