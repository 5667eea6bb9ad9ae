#include "saver.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "host/child_files.h"
#include "host/child_report.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "keyspace/keyspace.h"
#include "keyspace/worker_pool.h"
#include "memory/decommitted.h"
#include "memory/protection.h"
#include "rdb/encoder.h"
#include "rdb/output.h"
#include "reporting/report.h"
#include "rescue.h"

/* The server's LZF keeps 512 KB on the stack. */
#define STACK_BYTES    (4 * 1024 * 1024)
#define RDB_OPCODE_EOF 255
/* Characters of the mark around a transfer. */
#define MARK_BYTES        40
#define REPORT_EVERY_USEC 1000000
/* How often to look at the writer's CPU, and from which load on to rest. */
#define LOOK_USEC       1000
#define PRESSED_PERCENT 80
#define BEGIN_USEC      3000
/* At most so much rest at first, and this part of the time after that. */
#define YIELD_FIRST_USEC 1000000
#define YIELD_SHARE      4
/* So many names are tried: at random, so that only a mistake of ours takes as many. */
#define NAMES_TRIED 16
/* A kill waits so often while the file is being made: a tenth of a second. */
#define CREATION_WAITS 10
/* … while it is being published: a second. */
#define PUBLISHING_WAITS 100
#define WAIT_MSEC        10

struct save {
    struct keyspace_observer observer;
    struct snapshot *snapshot;
    uint64_t next_report_usec;
    /* Keeping out of the writers' way. */
    uint64_t faults_seen;
    uint64_t cpu_seen_usec;
    uint64_t looked_usec;
    uint64_t began_usec;
    uint64_t yielded_usec;
};

/* What the workers ask. */
struct help {
    struct keyspace_observer observer;
    struct snapshot *snapshot;
};

static uint64_t preserved_so_far(struct snapshot *snapshot)
{
    return PAGE_BYTES *
           atomic_load_explicit(&snapshot->preserved.pages, memory_order_relaxed);
}

/* As long as this thread runs, every page that the fault server gives free costs
 * an interrupt of this thread's CPU, more than the copy of the page itself. So
 * when the CPU of the writer and the fault server has no time left, and faults
 * are the reason, the saver rests until it has; within a bound that keeps the
 * save moving. */
static bool writers_are_pressed(struct save *save, uint64_t now)
{
    struct fault_server *server = &save->snapshot->fault_server;
    uint64_t faults =
        atomic_load_explicit(&server->statistics.faults, memory_order_relaxed);
    uint64_t used =
        thread_cpu_usec(server->writer_id) +
        thread_cpu_usec(atomic_load_explicit(&server->own_id, memory_order_relaxed));
    uint64_t wall = now - save->looked_usec;
    bool pressed = faults > save->faults_seen &&
                   used - save->cpu_seen_usec > wall * PRESSED_PERCENT / 100;
    save->faults_seen = faults;
    save->cpu_seen_usec = used;
    save->looked_usec = now;
    atomic_store_explicit(&save->snapshot->writers_pressed, pressed,
                          memory_order_relaxed);
    return pressed;
}

static void yield_to_writers(struct save *save, uint64_t now)
{
    uint64_t allowed = YIELD_FIRST_USEC + (now - save->began_usec) / YIELD_SHARE;
    if (now - save->looked_usec < LOOK_USEC)
        return;
    while (writers_are_pressed(save, now) && save->yielded_usec < allowed &&
           snapshot_phase(save->snapshot) == PHASE_SAVING) {
        sleep_usec(LOOK_USEC);
        uint64_t rested = clock_usec() - now;
        save->yielded_usec += rested;
        atomic_store_explicit(&save->snapshot->rested_usec, save->yielded_usec,
                              memory_order_relaxed);
        now += rested;
    }
}

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

/* The first moments after a freeze, when nearly every write of the server hits a
 * page for the first time. */
static void let_writers_begin(struct save *save)
{
    uint64_t now = clock_usec();
    writers_are_pressed(save, now);
    sleep_usec(BEGIN_USEC);
    yield_to_writers(save, clock_usec());
}

static int progress(struct keyspace_observer *observer, uint64_t keys)
{
    struct save *save = (struct save *)observer;
    struct snapshot *snapshot = save->snapshot;
    atomic_store_explicit(&snapshot->keys_saved, keys, memory_order_relaxed);
    if (snapshot_phase(snapshot) != PHASE_SAVING)
        return -ECANCELED;
    uint64_t now = clock_usec();
    if (now >= save->next_report_usec) {
        save->next_report_usec = now + REPORT_EVERY_USEC;
        child_report_send(snapshot->capture.report_pipe, snapshot->request.cause,
                          CHILD_REPORT_PROGRESS, keys, preserved_so_far(snapshot));
    }
    yield_to_writers(save, now);
    return atomic_load_explicit(&snapshot->view.error, memory_order_relaxed);
}

/* Where the operator wants it to run, "": anywhere. */
static const char *wanted_cpus(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_REWRITE_AOF ? snapshot->host->rewriter_cpus
                                                        : snapshot->host->saver_cpus;
}

/* The writer and the fault server share one CPU; this thread takes another, and so do
 * those that help it, where there are enough. */
static void take_place(struct snapshot *snapshot, const struct thread_cpus *all,
                       struct thread_cpus *for_workers)
{
    uint32_t writer_cpu = snapshot->fault_server.writer_cpu;
    const char *wanted = wanted_cpus(snapshot);
    if (wanted[0] && thread_may_place()) {
        server_set_cpus(wanted);
        thread_get_cpus(0, for_workers);
        return;
    }
    thread_stay_off(all, writer_cpu);
    *for_workers = *all;
    thread_leave_out_cpu(for_workers, writer_cpu);
    if (thread_count_cpus(for_workers) <= worker_pool_size(snapshot->workers))
        *for_workers = *all;
}

/* What no walk of a keyspace that is as it should be ends with. */
static bool is_unexpected(const struct snapshot *snapshot, int error)
{
    return (error == -EFAULT || error == -EBADMSG || error == -ENOTSUP ||
            error == -ENODATA) &&
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
    if (pool)
        worker_pool_end(pool);
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
        .began_usec = clock_usec(),
    };
    struct thread_cpus all_cpus, for_workers;
    thread_get_cpus(0, &all_cpus);
    take_place(snapshot, &all_cpus, &for_workers);
    let_writers_begin(&save);
    fault_point_crash(FAULT_WILD_SAVER);
    int error = rdb_encode_raw(encoder, capture->header, capture->header_length);
    if (!error)
        error = write_keys(&save, encoder, &for_workers);
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

static int write_dump(struct snapshot *snapshot)
{
    struct rdb_encoder *encoder =
        rdb_encoder_create(rdb_output_sink(snapshot->output), snapshot->capture.compress);
    if (!encoder)
        return -ENOMEM;
    int error = write_body(snapshot, encoder);
    rdb_encoder_destroy(encoder);
    error = check_dump(snapshot, error);
    if (error)
        return error;
    /* Little endian on every machine a layout table exists for. */
    uint64_t checksum = rdb_output_checksum(snapshot->output);
    return rdb_output_write_plain(snapshot->output, &checksum, sizeof(checksum));
}

/* False if the save was not in the phase `from`. */
static bool move_phase(struct snapshot *snapshot, uint32_t from, enum phase to)
{
    if (!atomic_compare_exchange_strong_explicit(
            &snapshot->phase, &from, to, memory_order_acq_rel, memory_order_relaxed))
        return false;
    futex_wake_all(&snapshot->phase);
    return true;
}

/* The step after which the save can no longer be cancelled. */
static int publish(struct snapshot *snapshot)
{
    int error = atomic_load_explicit(&snapshot->view.error, memory_order_acquire);
    if (error)
        return error;
    if (!move_phase(snapshot, PHASE_SAVING, PHASE_PUBLISHING))
        return -ECANCELED;
    return rdb_output_publish(snapshot->output, snapshot->capture.file_name);
}

/* Under the name that the server expects, or under another one where that is taken: by
 * what a crash has left, by another server, by whoever guesses names. */
static int create_under_free_name(struct snapshot *snapshot, char name[CHILD_FILE_BYTES])
{
    int number = snapshot->request.pid, error = -EEXIST;
    for (int tries = 0; error == -EEXIST && tries < NAMES_TRIED; tries++) {
        if (tries)
            number = child_files_number();
        child_files_name(number, name);
        error = rdb_output_create_file(snapshot->output, name);
    }
    if (!error)
        child_files_made(number);
    return error;
}

/* A child that cannot open its file says so. */
static int create_file(struct snapshot *snapshot)
{
    char directory[256], name[CHILD_FILE_BYTES];
    if (!move_phase(snapshot, PHASE_SAVING, PHASE_CREATING))
        return -ECANCELED;
    int error = create_under_free_name(snapshot, name);
    if (!move_phase(snapshot, PHASE_CREATING, PHASE_SAVING))
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

static bool is_transfer(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_SAVE_SOCKET;
}

static void release_memory(struct snapshot *snapshot)
{
    uint64_t began = clock_usec();
    /* From here on a fault preserves nothing: it only lifts the protection. */
    view_fail(&snapshot->view, -ECANCELED);
    audit_end(&snapshot->fault_server.audit);
    atomic_store_explicit(&snapshot->frozen, false, memory_order_release);
    decommitted_thaw();
    protection_wait(snapshot->heap.protection);
    snapshot_lift_protection(snapshot);
    bool there = fault_server_disarm(&snapshot->fault_server);
    atomic_store_explicit(&snapshot->last_bytes_peak,
                          atomic_load(&snapshot->preserved.bytes_peak),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_index_bytes,
                          preserved_index_bytes(&snapshot->preserved),
                          memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_pages_spooled_at_limit,
                          atomic_load(&snapshot->preserved.pages_spooled_at_limit),
                          memory_order_relaxed);
    rescue_give_back(snapshot, there);
    atomic_store_explicit(&snapshot->last_release_usec, clock_usec() - began,
                          memory_order_relaxed);
}

static void note_lost_pages(struct snapshot *snapshot)
{
    uint64_t pages =
        atomic_load_explicit(&snapshot->fault_server.audit.lost, memory_order_relaxed);
    snprintf(snapshot->last_error, sizeof(snapshot->last_error),
             "%llu pages lost their write protection behind the module's back (same-page "
             "merging, another module, or the kernel)",
             (unsigned long long)pages);
}

static const char *name_error(int error)
{
    if (error == -EFAULT || error == -EBADMSG)
        return "unexpected data in the server's memory";
    if (error == -ENODATA)
        return "a kind of value that the layout from a file is not proved for yet";
    if (error == -ENOBUFS)
        return "the snapshot buffer is full (buffer-policy abort)";
    if (error == -ETIMEDOUT)
        return "page faults were not served";
    return strerrordesc_np(-error);
}

/* What failed, and at what: a walk also ends where it is because something else has. */
static void note_failure(struct snapshot *snapshot, int error, bool given_up)
{
    char doing[96];
    const char *what = name_error(error), *verb = "", *object = "";
    bool spool = error == atomic_load_explicit(&snapshot->preserved.spool.write_error,
                                               memory_order_relaxed);
    if (error == AUDIT_LOST) {
        note_lost_pages(snapshot);
        return;
    }
    if (given_up) {
        what = error == -EFAULT ? "a page of the server's memory cannot be read" : what;
        verb = spool ? ", writing to the spool" : "";
    } else if (rdb_output_tell_failure(snapshot->output, doing, sizeof(doing))) {
        what = strerrordesc_np(-error);
        verb = ", ";
        object = doing;
    } else if (snapshot->failed_where) {
        verb = ", reading ";
        object = snapshot->failed_where;
    }
    snprintf(snapshot->last_error, sizeof(snapshot->last_error), "%s%s%s", what, verb,
             object);
}

static void count_result(struct snapshot *snapshot, int error, uint64_t msec)
{
    struct preserved *preserved = &snapshot->preserved;
    uint64_t pages = atomic_load_explicit(&preserved->pages, memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_pages_preserved, pages, memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_spool_peak_bytes,
                          atomic_load(&preserved->spool.bytes), memory_order_relaxed);
    uint32_t spooling =
        atomic_load_explicit(&preserved->spool.usec_for_64, memory_order_relaxed);
    if (spooling)
        atomic_store_explicit(&snapshot->spool_pages_per_second,
                              UINT64_C(64000000) / spooling, memory_order_relaxed);
    atomic_store_explicit(&snapshot->last_save_msec, msec, memory_order_relaxed);
    if (error) {
        atomic_fetch_add_explicit(error == -ECANCELED ? &snapshot->snapshots_cancelled
                                                      : &snapshot->snapshots_failed,
                                  1, memory_order_relaxed);
        return;
    }
    atomic_store_explicit(&snapshot->last_whole_save_msec, msec, memory_order_relaxed);
    atomic_fetch_add_explicit(&snapshot->snapshots_ok, 1, memory_order_relaxed);
    if (snapshot->request.cause == CHILD_SAVE_DISK)
        snapshot_log(snapshot, RDB_UFFD_NOTICE, "DB saved on disk");
    else if (snapshot->request.cause == CHILD_REWRITE_AOF)
        snapshot_log(snapshot, RDB_UFFD_NOTICE,
                     "SYNC append only file rewrite performed");
}

/* As waitpid() would store it. */
static int exit_status(struct snapshot *snapshot, int error)
{
    int signal = atomic_load_explicit(&snapshot->kill_signal, memory_order_relaxed);
    if (error && signal)
        return signal;
    return error ? 1 << 8 : 0;
}

static void close_output(struct snapshot *snapshot)
{
    while (atomic_load_explicit(&snapshot->cancellers, memory_order_seq_cst))
        sleep_usec(10);
    rdb_output_close(snapshot->output);
    snapshot->output = NULL;
}

/* The bytes are out, or will never be. Tells the server's cost and progress
 * through its own pipe, as a child does before it exits. */
static void tell_server(struct snapshot *snapshot, int error)
{
    if (!error)
        child_report_send(snapshot->capture.report_pipe, snapshot->request.cause,
                          CHILD_REPORT_DONE, atomic_load(&snapshot->keys_saved),
                          preserved_so_far(snapshot));
    if (!error && is_transfer(snapshot) && snapshot->capture.exit_pipe < 0)
        child_report_send_output(snapshot->capture.report_pipe,
                                 rdb_output_bytes(snapshot->output));
    rdb_output_end(snapshot->output);
}

/* The child of a transfer through the server lives until that has read the last byte:
 * it would otherwise be reaped before the replicas have it. A kill ends the wait. */
static int wait_for_server(struct snapshot *snapshot, int error)
{
    if (snapshot->capture.exit_pipe < 0 || error)
        return error;
    return rdb_output_wait_closed(snapshot->output, snapshot->capture.exit_pipe);
}

static void tell_result(struct snapshot *snapshot, int error, bool given_up,
                        uint64_t msec)
{
    if (error && error != -ECANCELED)
        note_failure(snapshot, error, given_up);
    else
        snapshot->last_error[0] = '\0';
    count_result(snapshot, error, msec);
    report_fill_record(snapshot, error, msec);
}

/* The very last step of a save. Somebody may have done it who did not wait any more. */
static void end_child(struct snapshot *snapshot, int status)
{
    uint32_t end = END_NOT_YET;
    if (atomic_compare_exchange_strong_explicit(&snapshot->end, &end, END_BY_SAVER,
                                                memory_order_seq_cst,
                                                memory_order_relaxed))
        child_exited(status);
    else
        atomic_store_explicit(&snapshot->end, END_RETURNED, memory_order_release);
}

/* Not before: on a busy machine the main thread loses its CPU in the freeze, and its own
 * first fault would be the one that nobody serves. */
static void begin_to_hang(void)
{
    if (fault_point(FAULT_STUCK_WHEN_SAVING))
        fault_point_set("stuck_server", true);
    if (fault_point(FAULT_HUNG_WHEN_SAVING))
        fault_point_set("hung_server", true);
}

static void run(struct snapshot *snapshot)
{
    begin_to_hang();
    snapshot->failed_where = NULL;
    snapshot->walk_error = 0;
    while (fault_point(FAULT_HELD_SAVER) && snapshot_phase(snapshot) == PHASE_SAVING)
        sleep_usec(1000);
    int error = is_transfer(snapshot) ? save_to_pipe(snapshot) : save_to_file(snapshot);
    uint64_t msec = (clock_usec() - snapshot->freeze_began_usec) / 1000;
    int given_up = atomic_load_explicit(&snapshot->view.error, memory_order_acquire);
    if (error == -ECANCELED && given_up)
        error = given_up;
    if (error == AUDIT_LOST)
        snapshot->walk_error = error;
    atomic_store_explicit(&snapshot->phase, PHASE_RELEASING, memory_order_seq_cst);
    futex_wake_all(&snapshot->phase);
    if (!atomic_exchange_explicit(&snapshot->result_taken, true, memory_order_acq_rel)) {
        tell_result(snapshot, error, error == given_up, msec);
        tell_server(snapshot, error);
    }
    release_memory(snapshot);
    error = wait_for_server(snapshot, error);
    if (error && snapshot->record.result == HISTORY_OK) {
        snapshot->record.result = HISTORY_CANCELLED;
        snprintf(snapshot->record.reason, sizeof(snapshot->record.reason),
                 "ended before the replicas had it all");
    }
    if (atomic_load_explicit(&snapshot->end, memory_order_acquire) == END_NOT_YET)
        report_end(snapshot);
    int status = exit_status(snapshot, error);
    atomic_store_explicit(&snapshot->phase, PHASE_NONE, memory_order_seq_cst);
    close_output(snapshot);
    server_capture_release(&snapshot->capture);
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    end_child(snapshot, status);
}

static void *saver(void *argument)
{
    struct snapshot *snapshot = argument;
    uint32_t begun = 0;
    atomic_store_explicit(&snapshot->fault_server.own_thread, thread_own_id(),
                          memory_order_relaxed);
    while (!atomic_load_explicit(&snapshot->stopping, memory_order_acquire)) {
        uint32_t now = atomic_load_explicit(&snapshot->saves_begun, memory_order_acquire);
        if (now == begun) {
            futex_wait(&snapshot->saves_begun, begun, -1);
            continue;
        }
        begun = now;
        run(snapshot);
        atomic_store_explicit(&snapshot->saves_ended, begun, memory_order_release);
        futex_wake_all(&snapshot->saves_ended);
    }
    return NULL;
}

int saver_start(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    return thread_start(&snapshot->saver, THREAD_SAVER, STACK_BYTES, saver, snapshot);
}

void saver_stop(struct snapshot *snapshot)
{
    DEMAND(snapshot_phase(snapshot) == PHASE_NONE);
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    thread_join_sleeper(&snapshot->saver, &snapshot->saves_begun);
}

void saver_begin(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    DEMAND(atomic_load_explicit(&snapshot->frozen, memory_order_relaxed));
    atomic_fetch_add_explicit(&snapshot->saves_begun, 1, memory_order_release);
    futex_wake_all(&snapshot->saves_begun);
}

void saver_wait(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    uint32_t begun = atomic_load_explicit(&snapshot->saves_begun, memory_order_relaxed);
    for (;;) {
        uint32_t ended =
            atomic_load_explicit(&snapshot->saves_ended, memory_order_acquire);
        int signal = atomic_load_explicit(&snapshot->kill_signal, memory_order_relaxed);
        if (ended == begun)
            return;
        /* The server waits for nobody that it has not killed before. */
        if (signal && clock_usec() >= snapshot->killed_usec + RESCUE_MSEC * 1000) {
            rescue_end_child(snapshot, HISTORY_CANCELLED, "ended by the server", signal);
            return;
        }
        futex_wait(&snapshot->saves_ended, ended, 100);
    }
}

/* True if it was time to. What may not be cut in two is waited for, on a file system that
 * does not answer not for ever. */
static bool cancel(struct snapshot *snapshot)
{
    for (unsigned waits = 0;; waits++) {
        if (move_phase(snapshot, PHASE_SAVING, PHASE_CANCELLED))
            return true;
        if (waits >= CREATION_WAITS &&
            move_phase(snapshot, PHASE_CREATING, PHASE_CANCELLED))
            return true;
        uint32_t phase = snapshot_phase(snapshot);
        /* Then the dump is published, or not, when its disk answers, as by a child that
         * is killed in the middle of that. */
        if (phase == PHASE_PUBLISHING && waits >= PUBLISHING_WAITS)
            return false;
        if (phase == PHASE_CREATING || phase == PHASE_PUBLISHING)
            futex_wait(&snapshot->phase, phase, WAIT_MSEC);
        else if (phase != PHASE_SAVING)
            return false;
    }
}

void saver_kill(struct snapshot *snapshot, int signal)
{
    snapshot->killed_usec = clock_usec();
    atomic_store_explicit(&snapshot->kill_signal, signal, memory_order_relaxed);
    if (cancel(snapshot))
        view_fail(&snapshot->view, -ECANCELED);
    /* PUBLISHING: a dump whose disk does not answer. RELEASING: a transfer that waits for
     * the server to have read it all. */
    snapshot_cancel_output(snapshot);
}
