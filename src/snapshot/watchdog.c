#include "watchdog.h"

#include <poll.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "rescue.h"

#define STACK_BYTES (64 * 1024)
#define LOOK_MSEC   40
/* So long somebody waits and there is no heart beat: a slow spool device may hold the
 * fault server for hundreds of milliseconds. And so many looks in a row, since the
 * process may have been stopped meanwhile. */
#define STUCK_USEC  4000000
#define STUCK_LOOKS 50
/* After that, as long as the saver may take to give up. */
#define CHILD_LOOKS 50
/* So many, and the fault server may leave a CPU that has no time for it. */
#define BUSY_LOOKS 1
/* The allocator's decay ends so long after a freeze: what it purges before is preserved
 * for nothing. Not in the pause, since it may take a millisecond. */
#define TICK_AFTER_FREEZE_USEC 5000

static bool is_due(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->frozen, memory_order_acquire) ||
           snapshot_phase(snapshot) != PHASE_NONE;
}

/* Still the snapshot that the watch is for: the next may have begun between two looks, or
 * a freeze have begun anew, and what is meant for the last one would not help it. */
static bool is_same_watch(struct snapshot *snapshot, uint32_t watch)
{
    return atomic_load_explicit(&snapshot->watches, memory_order_acquire) == watch;
}

static bool is_stopping(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->stopping, memory_order_acquire);
}

static bool fault_waits(struct snapshot *snapshot)
{
    struct pollfd waiting = {.fd = snapshot->heap.userfaultfd, .events = POLLIN};
    return poll(&waiting, 1, 0) > 0 && (waiting.revents & POLLIN);
}

static void give_snapshot_up(struct snapshot *snapshot, uint32_t seen)
{
    if (rescue_pull(snapshot, seen))
        snapshot_log(snapshot, RDB_UFFD_WARNING,
                     "uffd: page faults were not served for %d ms: protection lifted, "
                     "the snapshot is given up",
                     STUCK_USEC / 1000);
}

/* The fault server hangs, be it with a fault that it has read, a request, or what it
 * shall do next. */
static bool is_waited_for(struct snapshot *snapshot)
{
    struct fault_server *server = &snapshot->fault_server;
    return (fault_waits(snapshot) || fault_server_is_due(server)) &&
           !atomic_load_explicit(&server->blocked_by_policy, memory_order_relaxed) &&
           !fault_server_is_missing(server);
}

/* Not in a fault: asking takes as long as copying a page. */
static void note_delay(struct snapshot *snapshot, int file, uint64_t *seen_nsec)
{
    uint64_t now = thread_delay_nsec(file);
    uint64_t usec = (now - *seen_nsec) / 1000;
    *seen_nsec = now;
    if (usec > atomic_load_explicit(&snapshot->fault_delay_usec, memory_order_relaxed))
        atomic_store_explicit(&snapshot->fault_delay_usec, usec, memory_order_relaxed);
}

static void watch(struct snapshot *snapshot, uint32_t seen)
{
    struct fault_server *server = &snapshot->fault_server;
    uint64_t beats = 0, since = 0;
    int stuck = 0, missing = 0;
    int delay = thread_open_delay(fault_server_thread(server));
    uint64_t delayed = thread_delay_nsec(delay);
    struct thread_cpus all_cpus;
    thread_get_cpus(0, &all_cpus);
    thread_stay_off(&all_cpus, server->writer_cpu);
    atomic_store_explicit(&snapshot->fault_delay_usec, 0, memory_order_relaxed);
    sleep_usec(TICK_AFTER_FREEZE_USEC);
    snapshot->host->wake();
    while (is_same_watch(snapshot, seen) && is_due(snapshot) && !is_stopping(snapshot)) {
        uint32_t phase = atomic_load_explicit(&snapshot->phase, memory_order_acquire);
        futex_wait(&snapshot->phase, phase, LOOK_MSEC);
        note_delay(snapshot, delay, &delayed);
        fault_server_nudge(server);
        uint64_t now = atomic_load_explicit(&server->beats, memory_order_relaxed);
        stuck = now == beats && is_waited_for(snapshot) ? stuck + 1 : 0;
        beats = now;
        if (stuck == 0)
            since = clock_usec();
        if (stuck >= BUSY_LOOKS)
            fault_server_roam(server);
        if (stuck >= STUCK_LOOKS && clock_usec() - since >= STUCK_USEC)
            give_snapshot_up(snapshot, seen);
        missing += fault_server_is_missing(server);
        if (missing == CHILD_LOOKS)
            rescue_end_watched(snapshot, seen);
    }
    if (delay >= 0)
        close(delay);
    thread_set_cpus(0, &all_cpus);
}

static void *watchdog(void *argument)
{
    struct snapshot *snapshot = argument;
    uint32_t seen = 0;
    /* It looks in time on a busy machine too. */
    thread_set_urgent(true);
    while (!is_stopping(snapshot)) {
        uint32_t begun = atomic_load_explicit(&snapshot->watches, memory_order_acquire);
        if (begun == seen) {
            futex_wait(&snapshot->watches, seen, -1);
            continue;
        }
        seen = begun;
        watch(snapshot, seen);
    }
    return NULL;
}

int watchdog_start(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    return thread_start(&snapshot->watchdog, THREAD_WATCHDOG, STACK_BYTES, watchdog,
                        snapshot);
}

void watchdog_begin(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    atomic_fetch_add_explicit(&snapshot->watches, 1, memory_order_seq_cst);
    futex_wake_all(&snapshot->watches);
}

void watchdog_stop(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    watchdog_begin(snapshot);
    thread_join(&snapshot->watchdog);
}
