/* The histogram of waits against a sorted list, and the ring of saves, and how many
 * warnings pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reporting/history.h"
#include "reporting/log_limit.h"
#include "view/wait_histogram.h"

#define VALUES 20000

static uint64_t seed(void)
{
    const char *given = getenv("SEED");
    uint64_t value = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    fprintf(stderr, "SEED=%llu\n", (unsigned long long)value);
    return value;
}

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int compare(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void nothing_recorded(void **state)
{
    (void)state;
    static struct wait_histogram histogram;
    assert_int_equal(wait_histogram_quantile(&histogram, 500), 0);
    assert_int_equal(wait_histogram_quantile(&histogram, 1000), 0);
}

static void small_values_are_exact(void **state)
{
    (void)state;
    static struct wait_histogram histogram;
    wait_histogram_clear(&histogram);
    for (uint64_t value = 1; value <= 10; value++)
        wait_histogram_add(&histogram, value);
    assert_int_equal(wait_histogram_quantile(&histogram, 1), 1);
    assert_int_equal(wait_histogram_quantile(&histogram, 500), 5);
    assert_int_equal(wait_histogram_quantile(&histogram, 501), 6);
    assert_int_equal(wait_histogram_quantile(&histogram, 990), 10);
    wait_histogram_clear(&histogram);
    assert_int_equal(wait_histogram_quantile(&histogram, 990), 0);
}

static void extreme_values(void **state)
{
    (void)state;
    static struct wait_histogram histogram;
    wait_histogram_clear(&histogram);
    wait_histogram_add(&histogram, 0);
    wait_histogram_add(&histogram, UINT64_MAX);
    assert_int_equal(wait_histogram_quantile(&histogram, 500), 0);
    assert_true(wait_histogram_quantile(&histogram, 1000) == UINT64_MAX);
}

/* Every quantile: not below the true one, at most an eighth above. */
static void against_a_sorted_list(void **state)
{
    (void)state;
    static struct wait_histogram histogram;
    static uint64_t values[VALUES];
    uint64_t random = seed() | 1;
    wait_histogram_clear(&histogram);
    for (size_t i = 0; i < VALUES; i++) {
        uint64_t value = next_random(&random);
        values[i] = value >> next_random(&random) % 64;
        wait_histogram_add(&histogram, values[i]);
    }
    qsort(values, VALUES, sizeof(*values), compare);
    for (unsigned permille = 1; permille <= 1000; permille++) {
        uint64_t exact = values[((uint64_t)VALUES * permille + 999) / 1000 - 1];
        uint64_t told = wait_histogram_quantile(&histogram, permille);
        assert_true(told >= exact);
        assert_true(told - exact <= exact / 8);
    }
    assert_true(wait_histogram_quantile(&histogram, 1000) == values[VALUES - 1]);
}

static void newest_saves_first(void **state)
{
    (void)state;
    static struct history history;
    struct history_entry entry = {.cause = "command"};
    history_clear(&history);
    assert_null(history_at(&history, 0));
    for (uint64_t id = 1; id <= HISTORY_SAVES * 5 / 2; id++) {
        entry.id = id;
        snprintf(entry.reason, sizeof(entry.reason), "save %d", (int)id);
        history_add(&history, &entry);
        size_t known = id < HISTORY_SAVES ? (size_t)id : HISTORY_SAVES;
        for (size_t back = 0; back < known; back++)
            assert_int_equal(history_at(&history, back)->id, id - back);
        assert_null(history_at(&history, known));
    }
    assert_string_equal(history_at(&history, 0)->reason, "save 250");
    history_clear(&history);
    assert_null(history_at(&history, 0));
}

static void warnings_are_limited(void **state)
{
    (void)state;
    struct log_limit limit = {0};
    uint64_t now = LOG_LIMIT_USEC * 3;
    for (unsigned i = 0; i < LOG_LIMIT_LINES + 5; i++)
        assert_int_equal(log_limit_pass(&limit, now + i), i < LOG_LIMIT_LINES);
    assert_int_equal(log_limit_left_out(&limit, now + 100), 0);
    assert_false(log_limit_pass(&limit, now + LOG_LIMIT_USEC - 1));
    now += LOG_LIMIT_USEC;
    assert_int_equal(log_limit_left_out(&limit, now), 6);
    assert_int_equal(log_limit_left_out(&limit, now), 0);
    assert_true(log_limit_pass(&limit, now));
    now += LOG_LIMIT_USEC;
    assert_int_equal(log_limit_left_out(&limit, now), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_recorded),   cmocka_unit_test(small_values_are_exact),
        cmocka_unit_test(extreme_values),     cmocka_unit_test(against_a_sorted_list),
        cmocka_unit_test(newest_saves_first), cmocka_unit_test(warnings_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
