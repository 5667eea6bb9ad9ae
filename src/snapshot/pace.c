#include "pace.h"

#include "keyspace/worker_pool.h"

/* How often to look at the writer's CPU, and from which load on to rest. */
#define LOOK_USEC       1000
#define PRESSED_PERCENT 80
#define BEGIN_USEC      3000
/* At most so long off the CPU at first, and this part of the time after that. */
#define YIELD_FIRST_USEC 1000000
#define YIELD_SHARE      4

/* As long as this thread runs, every page that the fault server gives free costs
 * an interrupt of this thread's CPU, more than the copy of the page itself. So
 * when the CPU of the writer and the fault server has no time left, and faults
 * are the reason, the saver rests until it has; within a bound that keeps the
 * save moving. */
static bool writers_are_pressed(struct pace *pace, struct snapshot *snapshot,
                                uint64_t now)
{
    struct fault_server *server = &snapshot->fault_server;
    uint64_t faults =
        atomic_load_explicit(&server->statistics.faults, memory_order_relaxed);
    uint64_t used =
        thread_cpu_usec(server->writer_id) +
        thread_cpu_usec(atomic_load_explicit(&server->own_id, memory_order_relaxed));
    uint64_t wall = now - pace->looked_usec;
    bool pressed = faults > pace->faults_seen &&
                   used - pace->cpu_seen_usec > wall * PRESSED_PERCENT / 100;
    pace->faults_seen = faults;
    pace->cpu_seen_usec = used;
    pace->looked_usec = now;
    atomic_store_explicit(&snapshot->writers_pressed, pressed, memory_order_relaxed);
    return pressed;
}

/* Whoever waits for a CPU or the disk makes way as well: where others want the saver's CPU
 * it would rest on top of that, and the save would take for ever. */
static bool has_made_way(const struct pace *pace, uint64_t now)
{
    uint64_t elapsed = now - pace->began_usec;
    uint64_t on_cpu = thread_cpu_usec(0) - pace->cpu_began_usec;
    return elapsed - on_cpu >= YIELD_FIRST_USEC + elapsed / YIELD_SHARE;
}

void pace_yield(struct pace *pace, struct snapshot *snapshot, uint64_t now)
{
    if (now - pace->looked_usec < LOOK_USEC)
        return;
    while (writers_are_pressed(pace, snapshot, now) && !has_made_way(pace, now) &&
           snapshot_phase(snapshot) == PHASE_SAVING) {
        sleep_usec(LOOK_USEC);
        uint64_t rested = clock_usec() - now;
        pace->yielded_usec += rested;
        atomic_store_explicit(&snapshot->rested_usec, pace->yielded_usec,
                              memory_order_relaxed);
        now += rested;
    }
}

void pace_begin(struct pace *pace, struct snapshot *snapshot)
{
    *pace =
        (struct pace){.began_usec = clock_usec(), .cpu_began_usec = thread_cpu_usec(0)};
    writers_are_pressed(pace, snapshot, clock_usec());
    sleep_usec(BEGIN_USEC);
    pace_yield(pace, snapshot, clock_usec());
}

/* Where the operator wants it to run, "": anywhere. */
static const char *wanted_cpus(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_REWRITE_AOF ? snapshot->host->rewriter_cpus
                                                        : snapshot->host->saver_cpus;
}

/* The writer and the fault server share one CPU; this thread takes another, and so do
 * those that help it, where there are enough. Where there is only one besides, a helper,
 * which runs when nobody else wants to, takes what the writer leaves of its own: left to
 * choose, it stays with this thread, since the writer is never idle for long enough for the
 * scheduler to move anybody there. */
void pace_take_cpus(struct snapshot *snapshot, const struct thread_cpus *all,
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
    unsigned others = thread_count_cpus(for_workers);
    if (others > worker_pool_size(snapshot->workers))
        return;
    *for_workers = *all;
    if (others == 1 && thread_count_cpus(all) == 2)
        thread_only_cpu(for_workers, writer_cpu);
}
