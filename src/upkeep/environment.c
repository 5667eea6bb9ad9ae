#include "environment.h"

#include <errno.h>
#include <stdio.h>

#include "host/deferred_free.h"
#include "kernel/contract.h"
#include "kernel/cpu_quota.h"
#include "kernel/mark_probe.h"
#include "kernel/merging.h"
#include "kernel/process.h"
#include "kernel/thread.h"
#include "keyspace/worker_pool.h"
#include "reporting/log.h"
#include "snapshot/service.h"

/* Savers, when the operator does not say: more would be many against one disk. */
#define THREADS_BY_ITSELF 4u

/* Savers that the control groups' limit leaves room for beside the server: who uses it up
 * has the server stopped. */
static unsigned granted_threads(unsigned quota)
{
    return quota < 300 ? 1 : quota / 100 - 1;
}

/* How many workers help the saver. By itself it takes one where there are two CPUs: they
 * only run when nobody else wants to, and where that cannot be had there are none. */
static unsigned wanted_workers(struct snapshot *snapshot)
{
    unsigned threads = snapshot->settings.threads;
    struct thread_cpus cpus;
    if (the_service.unsupported[0] || !thread_may_place())
        return 0;
    if (!threads) {
        thread_get_cpus(0, &cpus);
        threads = thread_count_cpus(&cpus);
        if (threads > THREADS_BY_ITSELF)
            threads = THREADS_BY_ITSELF;
        if (the_service.cpu_quota && threads > granted_threads(the_service.cpu_quota))
            threads = granted_threads(the_service.cpu_quota);
    }
    return threads ? threads - 1 : 0;
}

void environment_settle_workers(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    unsigned wanted = wanted_workers(snapshot);
    if (wanted != the_service.workers_wanted)
        worker_pool_resize(snapshot->workers, wanted);
    the_service.workers_wanted = wanted;
}

/* The server, or who started it, switches huge pages off for it because of fork: that
 * is lifted while saves need none, and put back when they do. */
static void want_huge_pages(bool wanted)
{
    if (wanted && !the_service.huge_pages_refused) {
        int how = process_refuses_huge_pages();
        if (how > 0 && process_refuse_huge_pages(0) == 0)
            the_service.huge_pages_refused = how;
    } else if (!wanted && the_service.huge_pages_refused) {
        process_refuse_huge_pages(the_service.huge_pages_refused);
        the_service.huge_pages_refused = 0;
    }
}

void environment_settle_huge_pages(const struct rdb_uffd_settings *settings)
{
    DEMAND_MAIN_THREAD();
    want_huge_pages(settings->enabled && settings->huge_pages &&
                    !the_service.unsupported[0]);
}

/* Merged pages lose their protection. The service manager, or who started the server, has
 * it done to save memory: lifted while that is little, at the start of a server always. */
void environment_lift_merging(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    if (merging_find() != MERGING_PROCESS)
        return;
    the_service.merging_lifted = merging_lift() == 0;
    log_now(snapshot, RDB_UFFD_NOTICE,
            the_service.merging_lifted
                ? "uffd: same-page merging (KSM) was on for this process; switched off"
                : "uffd: same-page merging (KSM) is on for this process, and has merged "
                  "too much to be switched off: UFFD.DOCTOR says what to do");
}

/* Where marks are lost when a huge page is split, nothing of ours splits any. Saves are not
 * refused: it takes a shortage of memory amid one, and the audit finds it. */
static void try_splitting(struct snapshot *snapshot)
{
    int keeps_marks = mark_probe_split(&snapshot->ability);
    atomic_store_explicit(&snapshot->fault_server.splitter.keeps_marks, keeps_marks,
                          memory_order_relaxed);
    if (keeps_marks == 0)
        log_now(
            snapshot, RDB_UFFD_WARNING,
            "uffd: this kernel forgets the protection of zeros when it splits a huge "
            "page: a save to which that happens will fail; UFFD.DOCTOR says what to do");
}

/* All is saved all the same, at a higher price. */
static void tell_of_frees(struct snapshot *snapshot)
{
    char text[REASON_BYTES];
    const char *obstacle = deferred_free_obstacle();
    if (!obstacle[0])
        return;
    snprintf(
        text, sizeof(text),
        "uffd: frees are not put off during saves, nor large dead values evicted: %s; "
        "UFFD.DOCTOR says what to do",
        obstacle);
    log_now(snapshot, RDB_UFFD_NOTICE, text);
}

/* It would be found in the end, and the save would have been for nothing. */
int environment_refuse_merging(char *reason)
{
    DEMAND_MAIN_THREAD();
    enum merging merging = merging_find();
    if (merging == MERGING_NONE)
        return 0;
    snprintf(reason, REASON_BYTES,
             "same-page merging (KSM) is on for %s: merged pages lose their protection",
             merging == MERGING_PROCESS ? "this process" : "mappings of this process");
    return -ENOTSUP;
}

void environment_tell(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    try_splitting(snapshot);
    tell_of_frees(snapshot);
}

void environment_restore(void)
{
    DEMAND_MAIN_THREAD();
    want_huge_pages(false);
    if (the_service.merging_lifted)
        merging_restore();
    the_service.merging_lifted = false;
}
