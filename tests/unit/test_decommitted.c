/* What the pool's arenas hold without using it is no anonymous memory to a report of a
 * crash, whose test would fill it; and is memory still. */
#include "memory/decommitted.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "kernel/mappings.h"
#include "memory/pages.h"

#define EXTENT_BYTES (64 * PAGE_BYTES)

struct anonymous {
    uint64_t start, end, bytes;
};

static int add_anonymous(const struct mapping *mapping, void *context)
{
    struct anonymous *anonymous = context;
    uint64_t start =
        mapping->start > anonymous->start ? mapping->start : anonymous->start;
    uint64_t end = mapping->end < anonymous->end ? mapping->end : anonymous->end;
    if (mapping->anonymous && start < end)
        anonymous->bytes += end - start;
    return 0;
}

static uint64_t anonymous_bytes(const char *extent)
{
    uint64_t start = (uint64_t)(uintptr_t)extent;
    struct anonymous anonymous = {start, start + EXTENT_BYTES, 0};
    assert_int_equal(mappings_visit(-1, add_anonymous, &anonymous), 0);
    return anonymous.bytes;
}

static void is_hidden_from_a_crash_report(void **state)
{
    (void)state;
    char *extent = mmap(NULL, EXTENT_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t start = (uint64_t)(uintptr_t)extent;
    assert_ptr_not_equal(extent, MAP_FAILED);
    assert_int_equal(decommitted_create(), 0);
    memset(extent, 1, EXTENT_BYTES);
    assert_true(decommitted_give_up(start + 8 * PAGE_BYTES, start + 40 * PAGE_BYTES));
    decommitted_take_back(start + 8 * PAGE_BYTES, start + 10 * PAGE_BYTES);
    assert_int_equal(anonymous_bytes(extent), EXTENT_BYTES);
    decommitted_abandon();
    assert_int_equal(anonymous_bytes(extent), EXTENT_BYTES - 30 * PAGE_BYTES);
    /* The server may live on: what is in use is as it was, the rest can be used. */
    assert_int_equal(extent[8 * PAGE_BYTES - 1], 1);
    assert_int_equal(extent[40 * PAGE_BYTES], 1);
    extent[10 * PAGE_BYTES] = 2;
    assert_int_equal(extent[10 * PAGE_BYTES + 1], 0);
    decommitted_destroy();
    munmap(extent, EXTENT_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_hidden_from_a_crash_report),
    };
    return cmocka_run_group_tests_name("decommitted", tests, NULL, NULL);
}
