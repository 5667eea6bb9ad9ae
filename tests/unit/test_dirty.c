/* A sample of the huge pages stands for all of them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "memory/dirty.h"

#define MB          (UINT64_C(1) << 20)
#define TOTAL_BYTES (128 * MB)
#define TOTAL_PAGES (TOTAL_BYTES / PAGE_BYTES)

static unsigned char *memory;
static struct region region;
static struct region_set set;
static const _Atomic bool never;

static int set_up(void **state)
{
    (void)state;
    if (dirty_probe() != 0) /* before Linux 6.7 */
        return -1;
    memory = mmap(NULL, TOTAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    memset(memory, 1, TOTAL_BYTES);
    regions_init(&set, &region, 1);
    return regions_add(&set, (uintptr_t)memory, (uintptr_t)memory + TOTAL_BYTES);
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(memory, TOTAL_BYTES);
}

/* Pages counted after every `step`-th one has been written to. */
static uint64_t count_written(struct dirty_sampling sampling, uint64_t step)
{
    struct dirty dirty = {.userfaultfd = -1, .pagemap = -1};
    static struct dirty_count count;
    assert_int_equal(dirty_open(&dirty, &set, &sampling), 0);
    assert_int_equal(dirty_start(&dirty, &never), 0);
    for (uint64_t page = 0; page < TOTAL_PAGES; page += step)
        memory[page * PAGE_BYTES]++;
    assert_int_equal(dirty_read(&dirty, &count, &never), 0);
    dirty_end(&dirty, &never);
    return count.pages;
}

static void counts_all(void **state)
{
    (void)state;
    struct dirty_sampling all = {1, 0};
    assert_int_equal(count_written(all, 1), TOTAL_PAGES);
    assert_int_equal(count_written(all, 4), TOTAL_PAGES / 4);
    assert_int_equal(count_written(all, TOTAL_PAGES), 1);
}

static void sample_stands_for_all(void **state)
{
    (void)state;
    for (unsigned which = 0; which < 8; which++) {
        struct dirty_sampling sampling = {8, which};
        uint64_t found = count_written(sampling, 4), right = TOTAL_PAGES / 4;
        /* Where the memory begins, there is half a huge page at either end. */
        if (found < right * 97 / 100 || found > right * 103 / 100)
            fail_msg("sample %u: %llu pages, not %llu", which, (unsigned long long)found,
                     (unsigned long long)right);
    }
}

static void larger_heaps_are_sampled_more(void **state)
{
    (void)state;
    assert_int_equal(dirty_choose_sampling(0).one_in, 1);
    assert_int_equal(dirty_choose_sampling(75 * MB).one_in, 1);
    assert_int_equal(dirty_choose_sampling(300 * MB).one_in, 4);
    assert_int_equal(dirty_choose_sampling(1024 * MB).one_in, 16);
    assert_int_equal(dirty_choose_sampling(UINT64_C(1) << 40).one_in, 32);
    for (int i = 0; i < 100; i++)
        assert_true(dirty_choose_sampling(1024 * MB).which < 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(counts_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sample_stands_for_all, set_up, tear_down),
        cmocka_unit_test(larger_heaps_are_sampled_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
