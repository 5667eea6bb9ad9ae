#include "crash.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/fatal_signals.h"
#include "kernel/thread.h"
#include "memory/decommitted.h"
#include "rescue.h"
#include "service.h"
#include "snapshot.h"

#define UPKEEP_WAIT_MSEC 200

/* The thread that writes the report, 0: none. */
static _Atomic int32_t reporter;

bool crash_is_under_way(void)
{
    return atomic_load_explicit(&reporter, memory_order_seq_cst) != 0;
}

/* The servers have each thread write its stack into the report at this signal. */
static void let_report_see_this_thread(void)
{
    sigset_t asked;
    sigemptyset(&asked);
    sigaddset(&asked, SIGUSR2);
    pthread_sigmask(SIG_UNBLOCK, &asked, NULL);
}

/* A second report would spoil the first one. */
static void stay_here(void)
{
    while (crash_is_under_way())
        pause();
}

/* What the upkeep thread is at when the server crashes would be an error of the memory to
 * the report's test. It may need what the thread that crashed holds: not for long. */
static void let_upkeep_finish(struct snapshot *snapshot)
{
    for (unsigned waited = 0; waited < UPKEEP_WAIT_MSEC; waited++) {
        if (!atomic_load_explicit(&snapshot->upkeep_at_work, memory_order_seq_cst))
            return;
        sleep_usec(1000);
    }
}

void crash_begin(void)
{
    struct snapshot *snapshot = &the_snapshot;
    int32_t none = 0, self = thread_own_id();
    /* What it has is its parent's. */
    if (the_service.in_forked_child)
        return;
    if (!atomic_compare_exchange_strong_explicit(
            &reporter, &none, self, memory_order_seq_cst, memory_order_seq_cst)) {
        if (none != self && thread_is_ours())
            stay_here();
        return;
    }
    if (thread_is_ours())
        let_report_see_this_thread();
    thread_end_rseq();
    short_locks_give_way(true);
    rescue_from_crash(snapshot);
    if (!thread_is_ours())
        let_upkeep_finish(snapshot);
    prefaulted_abandon(&snapshot->prefaulted);
    preserved_abandon_reserve(&snapshot->preserved);
    decommitted_abandon();
}

/* The handler behind has come back: whoever it is has mended what was wrong, or the kernel
 * ends the process now. */
static void crash_over(void)
{
    int32_t self = thread_own_id();
    if (atomic_compare_exchange_strong_explicit(&reporter, &self, 0, memory_order_seq_cst,
                                                memory_order_relaxed))
        short_locks_give_way(false);
}

int crash_install(void)
{
    DEMAND_MAIN_THREAD();
    return fatal_signals_install(crash_begin, crash_over);
}

void crash_look(void)
{
    DEMAND_MAIN_THREAD();
    (void)fatal_signals_look();
}

void crash_remove(void)
{
    DEMAND_MAIN_THREAD();
    fatal_signals_remove();
}
