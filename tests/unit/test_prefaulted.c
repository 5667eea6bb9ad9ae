/* Memory that is prefaulted for the allocator is no part of the heap, at any moment. */
#include "memory/prefaulted.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/fault_points.h"
#include "kernel/thread.h"
#include "memory/pages.h"
#include "memory/regions.h"

static struct prefaulted_memory prefaulted;

static void *fill_anew(void *unused)
{
    (void)unused;
    prefaulted_fill(&prefaulted, 4 * HUGE_PAGE_BYTES, 4 * HUGE_PAGE_BYTES, false);
    return NULL;
}

static void *release(void *unused)
{
    (void)unused;
    prefaulted_release(&prefaulted);
    return NULL;
}

/* What a scan of the memory map has found there is left out, as long as it is there. */
static void check_known_until_gone(void *(*body)(void *))
{
    struct region storage[8];
    struct region_set found;
    pthread_t thread;
    prefaulted_fill(&prefaulted, HUGE_PAGE_BYTES, HUGE_PAGE_BYTES, false);
    uint64_t old_at = prefaulted.at, old_end = prefaulted.end;
    assert_true(old_end > old_at);
    fault_point_set("held_prefaulted", true);
    assert_int_equal(pthread_create(&thread, NULL, body, NULL), 0);
    /* It has been replaced, and is still there. */
    for (uint64_t at = old_at; at == old_at; sleep_usec(1000)) {
        short_lock_take(&prefaulted.lock);
        at = prefaulted.at;
        short_lock_release(&prefaulted.lock);
    }
    regions_init(&found, storage, 8);
    assert_int_equal(regions_add(&found, old_at, old_end), 0);
    assert_int_equal(prefaulted_leave_out(&prefaulted, &found), 0);
    assert_int_equal(found.count, 0);
    fault_point_set("held_prefaulted", false);
    pthread_join(thread, NULL);
    /* Then it may be somebody else's. */
    assert_int_equal(regions_add(&found, old_at, old_end), 0);
    assert_int_equal(prefaulted_leave_out(&prefaulted, &found), 0);
    assert_int_equal(found.count, 1);
    prefaulted_release(&prefaulted);
}

static void is_known_until_it_has_gone(void **state)
{
    (void)state;
    check_known_until_gone(fill_anew);
    check_known_until_gone(release);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_known_until_it_has_gone),
    };
    return cmocka_run_group_tests_name("prefaulted", tests, NULL, NULL);
}
