/* The end of a thread that is on its way to sleep when it is told to end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel/memory.h"
#include "kernel/thread.h"

struct sleeper {
    struct thread thread;
    _Atomic uint32_t word;
    _Atomic bool stopping;
    _Atomic bool has_looked;
};

/* What a process that is stopped and continued, or a CPU that is busy, puts between the
 * look and the sleep. */
static void *look_and_sleep(void *argument)
{
    struct sleeper *sleeper = argument;
    while (!atomic_load(&sleeper->stopping)) {
        atomic_store(&sleeper->has_looked, true);
        sleep_usec(50000);
        futex_wait(&sleeper->word, 0, -1);
    }
    return NULL;
}

static void is_woken_however_late(void **state)
{
    (void)state;
    struct sleeper *sleeper = memory_map(sizeof(*sleeper));
    assert_int_equal(
        thread_start(&sleeper->thread, "sleeper", 65536, look_and_sleep, sleeper), 0);
    while (!atomic_load(&sleeper->has_looked))
        sleep_usec(100);
    atomic_store(&sleeper->stopping, true);
    thread_join_sleeper(&sleeper->thread, &sleeper->word);
    assert_false(sleeper->thread.running);
    memory_unmap(sleeper, sizeof(*sleeper));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_woken_however_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
