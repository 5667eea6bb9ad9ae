/* Interval arithmetic against a naive model: one byte of a map for every page. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "memory/regions.h"

#define PAGES    300
#define UNIT     4096u
#define CAPACITY 256
#define ROUNDS   20000

static uint64_t seed;

static uint64_t number(uint64_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (seed >> 33) % below;
}

static void check(const struct region_set *set, const char *model)
{
    uint64_t bytes = 0;
    for (uint64_t page = 0; page < PAGES; page++) {
        const struct region *found = regions_find(set, page * UNIT + 17);
        assert_int_equal(found != NULL, model[page]);
        bytes += model[page] ? UNIT : 0;
    }
    assert_int_equal(regions_bytes(set), bytes);
    for (size_t i = 0; i < set->count; i++) {
        assert_true(set->regions[i].start < set->regions[i].end);
        /* Sorted, and neighbours are one region. */
        if (i)
            assert_true(set->regions[i - 1].end < set->regions[i].start);
    }
}

static void adds_and_removes(void **state)
{
    (void)state;
    struct region storage[CAPACITY];
    struct region_set set;
    char model[PAGES] = {0};
    regions_init(&set, storage, CAPACITY);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t from = number(PAGES),
                 to = from + 1 + number(PAGES - from > 20 ? 20 : PAGES - from);
        bool add = number(2);
        int error = add ? regions_add(&set, from * UNIT, to * UNIT)
                        : regions_remove(&set, from * UNIT, to * UNIT);
        assert_int_equal(error, 0);
        memset(model + from, add, to - from);
        check(&set, model);
    }
}

static void fill_at_random(struct region_set *set, char *model)
{
    memset(model, 0, PAGES);
    regions_clear(set);
    for (int i = 0; i < 30; i++) {
        uint64_t from = number(PAGES - 10), to = from + 1 + number(10);
        assert_int_equal(regions_add(set, from * UNIT, to * UNIT), 0);
        memset(model + from, 1, to - from);
    }
}

static void subtracts(void **state)
{
    (void)state;
    struct region storage[3][CAPACITY];
    struct region_set first, second, result;
    char models[2][PAGES], expected[PAGES];
    regions_init(&first, storage[0], CAPACITY);
    regions_init(&second, storage[1], CAPACITY);
    regions_init(&result, storage[2], CAPACITY);
    for (int i = 0; i < 500; i++) {
        fill_at_random(&first, models[0]);
        fill_at_random(&second, models[1]);
        for (int page = 0; page < PAGES; page++)
            expected[page] = models[0][page] && !models[1][page];
        assert_int_equal(regions_subtract(&first, &second, &result), 0);
        check(&result, expected);
    }
}

static void refuses_more_than_it_holds(void **state)
{
    (void)state;
    struct region storage[2];
    struct region_set set;
    regions_init(&set, storage, 2);
    assert_int_equal(regions_add(&set, 0, UNIT), 0);
    assert_int_equal(regions_add(&set, 4 * UNIT, 5 * UNIT), 0);
    assert_int_equal(regions_add(&set, 8 * UNIT, 9 * UNIT), -ENOSPC);
    assert_int_equal(set.count, 2);
    /* Neighbours need no room. */
    assert_int_equal(regions_add(&set, UNIT, 4 * UNIT), 0);
    assert_int_equal(set.count, 1);
    assert_int_equal(regions_remove(&set, 2 * UNIT, 3 * UNIT), 0);
    assert_int_equal(regions_remove(&set, 0, 0), 0);
    assert_null(regions_find(&set, 2 * UNIT));
    assert_int_equal(regions_at_or_after(&set, 2 * UNIT)->start, 3 * UNIT);
    assert_null(regions_at_or_after(&set, 5 * UNIT));
}

int main(void)
{
    const char *given = getenv("SEED");
    seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    printf("SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adds_and_removes),
        cmocka_unit_test(subtracts),
        cmocka_unit_test(refuses_more_than_it_holds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
