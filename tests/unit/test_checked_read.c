/* Reads of live memory from addresses that may be wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "kernel/checked_read.h"
#include "view/view.h"

#define PAGE 4096u

static struct checked_reader reader;
/* Two pages that may be read, one that may not, one that may. */
static unsigned char *pages;

static uint64_t at(size_t offset)
{
    return (uint64_t)(uintptr_t)(pages + offset);
}

static int set_up(void **state)
{
    (void)state;
    pages =
        mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return -1;
    for (size_t i = 0; i < 4 * PAGE; i++)
        pages[i] = (unsigned char)(i * 7 >> 3);
    if (mprotect(pages + 2 * PAGE, PAGE, PROT_NONE) != 0)
        return -1;
    return checked_reader_open(&reader);
}

static int tear_down(void **state)
{
    (void)state;
    checked_reader_close(&reader);
    return munmap(pages, 4 * PAGE);
}

static void reads_what_is_there(void **state)
{
    (void)state;
    unsigned char bytes[2 * PAGE];
    for (size_t from = 0; from < PAGE; from += 509)
        for (size_t length = 0; from + length <= 2 * PAGE; length += 1021) {
            memset(bytes, 0, sizeof(bytes));
            assert_int_equal(checked_read(&reader, bytes, at(from), length), 0);
            assert_memory_equal(bytes, pages + from, length);
        }
}

/* And the next read gets its own bytes, not what was left of a wrong one. */
static void refuses_what_is_not(void **state)
{
    (void)state;
    const uint64_t wrong[] = {0,
                              8,
                              at(2 * PAGE),
                              at(2 * PAGE - 1),
                              at(3 * PAGE - 1),
                              UINT64_MAX - 8,
                              -1,
                              UINT64_C(1) << 47};
    unsigned char bytes[PAGE + 1];
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(checked_read(&reader, bytes, wrong[i], 16), -EFAULT);
        assert_int_equal(checked_read(&reader, bytes, at(3 * PAGE), 16), 0);
        assert_memory_equal(bytes, pages + 3 * PAGE, 16);
    }
    assert_int_equal(checked_read(&reader, bytes, at(PAGE - 1), PAGE + 2), -EFAULT);
}

static void keeps_to_what_is_allowed(void **state)
{
    (void)state;
    unsigned char bytes[64];
    reader.allowed = 100;
    assert_int_equal(checked_read(&reader, bytes, at(0), 64), 0);
    assert_int_equal(checked_read(&reader, bytes, at(0), 37), -E2BIG);
    assert_int_equal(checked_read(&reader, bytes, at(0), 36), 0);
    assert_int_equal(checked_read(&reader, bytes, at(0), 1), -E2BIG);
    reader.allowed = UINT64_MAX;
}

static void serves_a_view(void **state)
{
    (void)state;
    struct view_reader live;
    unsigned char bytes[16];
    view_reader_init_live(&live, &reader);
    view_hint(&live, at(2 * PAGE));
    view_give_hints(&live);
    assert_int_equal(view_read(&live, bytes, at(2 * PAGE), 0), 0);
    assert_int_equal(view_read(&live, bytes, at(2 * PAGE), 1), -EFAULT);
    assert_int_equal(view_read(&live, bytes, at(5), sizeof(bytes)), 0);
    assert_memory_equal(bytes, pages + 5, sizeof(bytes));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_what_is_there),
        cmocka_unit_test(refuses_what_is_not),
        cmocka_unit_test(keeps_to_what_is_allowed),
        cmocka_unit_test(serves_a_view),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
