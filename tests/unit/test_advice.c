/* The vectored madvise and its loop do the same. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/advice.h"

#define PAGES  3000
#define BYTES  4096
#define RANGES (PAGES / 2)

static unsigned char *pages;
static struct iovec ranges[RANGES];

/* Every other page, more ranges than one call takes. */
static int set_up(void **state)
{
    (void)state;
    pages = mmap(NULL, PAGES * BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    memset(pages, 0xAB, PAGES * BYTES);
    for (size_t i = 0; i < RANGES; i++)
        ranges[i] = (struct iovec){pages + 2 * i * BYTES, BYTES};
    return pages == MAP_FAILED;
}

static int tear_down(void **state)
{
    (void)state;
    advice_force_loop(false);
    return munmap(pages, PAGES * BYTES);
}

static unsigned count_pages_that_read(unsigned char byte)
{
    unsigned count = 0;
    for (size_t i = 0; i < PAGES; i++)
        count += pages[i * BYTES] == byte && pages[i * BYTES + BYTES - 1] == byte;
    return count;
}

static void check_dropped(void)
{
    assert_int_equal(advice_give_many(ranges, RANGES, MADV_DONTNEED), 0);
    assert_int_equal(count_pages_that_read(0), RANGES);
    assert_int_equal(count_pages_that_read(0xAB), PAGES - RANGES);
}

/* Asked past the code under test, by a descriptor, which the oldest kernels take too. */
static bool kernel_takes_many(void)
{
    int self = (int)syscall(SYS_pidfd_open, getpid(), 0);
    ssize_t advised = syscall(SYS_process_madvise, self, ranges, 2, MADV_DONTNEED, 0);
    close(self);
    return advised == 2 * BYTES;
}

/* Before anything else has found it out. */
static void knows_what_the_kernel_takes(void **state)
{
    (void)state;
    assert_int_equal(advice_is_vectored(), kernel_takes_many());
    assert_int_equal(count_pages_that_read(0xAB), PAGES - (kernel_takes_many() ? 2 : 0));
}

static void drops_in_one_call(void **state)
{
    (void)state;
    check_dropped();
    printf("vectored: %s\n", advice_is_vectored() ? "yes" : "this kernel refuses");
    assert_int_equal(advice_is_vectored(), kernel_takes_many());
}

static void drops_in_a_loop(void **state)
{
    (void)state;
    advice_force_loop(true);
    assert_false(advice_is_vectored());
    check_dropped();
}

/* A range in the middle that is not mapped: the others are advised all the same. */
static void check_hole(void)
{
    assert_int_equal(munmap(pages + 10 * BYTES, BYTES), 0);
    assert_int_equal(advice_give_many(ranges, RANGES, MADV_DONTNEED), -ENOMEM);
    unsigned char *again = mmap(pages + 10 * BYTES, BYTES, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    assert_ptr_equal(again, pages + 10 * BYTES);
    assert_int_equal(count_pages_that_read(0), RANGES);
}

static void goes_on_after_an_error(void **state)
{
    (void)state;
    check_hole();
}

static void goes_on_after_an_error_in_a_loop(void **state)
{
    (void)state;
    advice_force_loop(true);
    check_hole();
}

static void one_range(void **state)
{
    (void)state;
    assert_int_equal(advice_give(pages, BYTES, MADV_DONTNEED), 0);
    assert_int_equal(count_pages_that_read(0), 1);
    assert_int_equal(advice_give(pages + 1, BYTES, MADV_DONTNEED), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(knows_what_the_kernel_takes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(drops_in_one_call, set_up, tear_down),
        cmocka_unit_test_setup_teardown(drops_in_a_loop, set_up, tear_down),
        cmocka_unit_test_setup_teardown(goes_on_after_an_error, set_up, tear_down),
        cmocka_unit_test_setup_teardown(goes_on_after_an_error_in_a_loop, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(one_range, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
