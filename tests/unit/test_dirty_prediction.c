/* What UFFD.DIRTYRATE continues: curves whose end is known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>

#include "memory/dirty_prediction.h"

#define SAMPLES 10
#define SECOND  UINT64_C(1000000)
#define HEAP    (UINT64_C(8) << 30)

/* `written(t)` pages after t seconds, sampled ten times in ten seconds. */
static uint64_t predict(double (*written)(double seconds), double seconds)
{
    struct dirty_sample samples[SAMPLES];
    for (unsigned i = 0; i < SAMPLES; i++) {
        samples[i].usec = (i + 1) * SECOND;
        samples[i].pages = (uint64_t)written(i + 1);
    }
    return dirty_predict(samples, SAMPLES, (uint64_t)(seconds * (double)SECOND), HEAP);
}

static void assert_about(uint64_t value, double expected)
{
    if (fabs((double)value - expected) > 0.03 * expected + 1)
        fail_msg("%llu, not %.0f", (unsigned long long)value, expected);
}

static double steady(double seconds)
{
    return 1000 * seconds;
}

static double saturating(double seconds)
{
    return 100000 * (1 - exp(-seconds / 8));
}

/* Pages that everybody writes to, at once, and others. */
static double with_hot_pages(double seconds)
{
    return 5000 * (1 - exp(-seconds * 3)) + saturating(seconds);
}

static double over_at_once(double seconds)
{
    return seconds > 0 ? 700 : 0;
}

static double huge(double seconds)
{
    return 1e6 * seconds;
}

static void known_curves(void **state)
{
    (void)state;
    double (*const curves[])(double) = {steady, saturating, with_hot_pages, over_at_once};
    for (unsigned i = 0; i < sizeof(curves) / sizeof(curves[0]); i++) {
        assert_about(predict(curves[i], 10), curves[i](10));
        assert_about(predict(curves[i], 20), curves[i](20));
        assert_about(predict(curves[i], 60), curves[i](60));
    }
    assert_about(predict(steady, 2.5), 2500);
}

static void never_more_than_there_is(void **state)
{
    (void)state;
    assert_int_equal(predict(huge, 600), HEAP / 4096);
}

static void nothing_measured(void **state)
{
    (void)state;
    assert_int_equal(dirty_predict(NULL, 0, SECOND, HEAP), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_curves),
        cmocka_unit_test(never_more_than_there_is),
        cmocka_unit_test(nothing_measured),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
