#include "result.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "rdb/output.h"
#include "reporting/report.h"

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
    if (error == KEYSPACE_STRANGER)
        return "a value of a type that this version of the module does not know";
    if (error == -ENOBUFS)
        return "the snapshot buffer is full (buffer-policy abort)";
    if (error == -ECHILD)
        return "the child that saves values of modules' types has ended before it had "
               "written them";
    if (error == -ETIME)
        return "a module's callback that saves a value has been silent for too long";
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
    if (!given_up && snapshot->backup_refusal[0]) {
        snprintf(snapshot->last_error, sizeof(snapshot->last_error), "%s",
                 snapshot->backup_refusal);
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
    snapshot_count(snapshot, history_result_of(error));
    /* A backup takes as long as its reader or its rate wants. */
    if (error || snapshot_is_backup(snapshot))
        return;
    atomic_store_explicit(&snapshot->last_whole_save_msec, msec, memory_order_relaxed);
    if (snapshot->request.cause == CHILD_SAVE_DISK)
        snapshot_log(snapshot, RDB_UFFD_NOTICE, "DB saved on disk");
    else if (snapshot->request.cause == CHILD_REWRITE_AOF)
        snapshot_log(snapshot, RDB_UFFD_NOTICE,
                     "SYNC append only file rewrite performed");
}

void result_note(struct snapshot *snapshot, int error, bool given_up, uint64_t msec)
{
    if (error && error != -ECANCELED)
        note_failure(snapshot, error, given_up);
    else
        snapshot->last_error[0] = '\0';
    count_result(snapshot, error, msec);
    report_fill_record(snapshot, error, msec);
}
