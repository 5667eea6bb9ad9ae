/* When the saver rests for the writers, and when it has made way already. */
#include "snapshot/pace.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/thread.h"
#include "keyspace/worker_pool.h"
#include "snapshot/snapshot.h"

#define LONG_USEC UINT64_C(100000000)

static struct snapshot snapshot;
static _Atomic bool over;

/* Its CPU has no time left, and faults are the reason. */
static void *write_to_the_past(void *unused)
{
    (void)unused;
    atomic_store(&snapshot.fault_server.own_id, (int32_t)syscall(SYS_gettid));
    while (!atomic_load(&over))
        atomic_fetch_add(&snapshot.fault_server.statistics.faults, 1);
    return NULL;
}

static uint64_t rested_usec(void)
{
    return atomic_load(&snapshot.rested_usec);
}

/* Ends the rest, which else lasts as long as it is allowed. */
static void *end_rest(void *unused)
{
    (void)unused;
    while (!atomic_load(&over)) {
        if (rested_usec())
            atomic_store(&snapshot.phase, PHASE_NONE);
        sleep_usec(1000);
    }
    return NULL;
}

/* Calls it as a saver does that began long ago and was on a CPU all of that time, or never:
 * until it has rested, or for so long. */
static void save_for(uint64_t usec, bool on_cpu)
{
    struct pace pace;
    pthread_t writer, ending;
    atomic_store(&snapshot.rested_usec, 0);
    atomic_store(&over, false);
    assert_int_equal(pthread_create(&writer, NULL, write_to_the_past, NULL), 0);
    atomic_store(&snapshot.phase, PHASE_NONE); /* without a rest */
    pace_begin(&pace, &snapshot);
    atomic_store(&snapshot.phase, PHASE_SAVING);
    assert_int_equal(pthread_create(&ending, NULL, end_rest, NULL), 0);
    pace.began_usec -= LONG_USEC;
    pace.cpu_began_usec -= on_cpu ? LONG_USEC : 0;
    for (uint64_t until = clock_usec() + usec; !rested_usec() && clock_usec() < until;)
        pace_yield(&pace, &snapshot, clock_usec());
    atomic_store(&over, true);
    pthread_join(writer, NULL);
    pthread_join(ending, NULL);
}

static void rests_for_writers(void **state)
{
    (void)state;
    save_for(10000000, true);
    assert_true(rested_usec() > 0);
}

/* Others had its CPU: it rested for a quarter of the time on top of that. */
static void who_waited_for_a_cpu_has_made_way(void **state)
{
    (void)state;
    save_for(300000, false);
    assert_int_equal(rested_usec(), 0);
}

static void place(unsigned cpus, unsigned workers, struct thread_cpus *for_workers)
{
    static const struct rdb_uffd_host anywhere = {.saver_cpus = "", .rewriter_cpus = ""};
    struct thread_cpus all = {{(1UL << cpus) - 1}}, before;
    thread_get_cpus(0, &before);
    snapshot.host = &anywhere;
    snapshot.fault_server.writer_cpu = 0;
    assert_int_equal(worker_pool_resize(snapshot.workers, workers), workers);
    pace_take_cpus(&snapshot, &all, for_workers);
    thread_set_cpus(0, &before);
}

/* Two CPUs: a helper that was free to choose stayed on the saver's, which has no time for
 * it, while the writer's was idle for half of the time. */
static void helpers_go_where_there_is_time(void **state)
{
    (void)state;
    struct thread_cpus cpus;
    snapshot.workers = worker_pool_create();
    place(2, 1, &cpus);
    assert_int_equal(cpus.mask[0], 1);
    place(3, 1, &cpus);
    assert_int_equal(cpus.mask[0], 6);
    place(3, 2, &cpus);
    assert_int_equal(cpus.mask[0], 7);
    worker_pool_destroy(snapshot.workers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rests_for_writers),
        cmocka_unit_test(who_waited_for_a_cpu_has_made_way),
        cmocka_unit_test(helpers_go_where_there_is_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
