/* What is registered of the process's memory, when some of it refuses to be. */
#include "memory/heap.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/ability.h"
#include "kernel/userfaultfd.h"
#include "memory/metadata.h"
#include "memory/pages.h"

#define BYTES (UINT64_C(4) << 20)
/* Linux 6.11: pages that the kernel may drop, which know no protection. */
#define DROPPABLE 0x08

static struct heap heap;
static struct ability ability;

static int set_up(void **state)
{
    (void)state;
    if (ability_probe(&ability) != 0 || heap_create(&heap) != 0)
        return -1;
    heap_lock(&heap);
    return heap_open(&heap, &ability);
}

static int tear_down(void **state)
{
    (void)state;
    heap_unlock(&heap);
    heap_destroy(&heap);
    return 0;
}

static uint64_t map_data(void)
{
    void *start =
        mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(start != MAP_FAILED);
    return (uint64_t)(uintptr_t)start;
}

/* All of the data is there, whatever lies between. */
static void expect_all_but(uint64_t start, uint64_t hole)
{
    assert_int_equal(heap_refresh(&heap, false), 0);
    for (uint64_t at = start; at < start + BYTES; at += PAGE_BYTES)
        assert_int_equal(regions_find(&heap.registered, at) != NULL, at != hole);
    assert_int_equal(munmap((void *)(uintptr_t)start, BYTES), 0);
}

/* Linux 6.11 to at least 6.12 registers them as it does others. */
static bool is_refused(uint64_t page)
{
    int other = userfaultfd_open();
    assert_true(other >= 0);
    assert_int_equal(userfaultfd_handshake(other, ability_features(&ability), NULL), 0);
    bool refused = userfaultfd_register(other, page, PAGE_BYTES) != 0;
    close(other);
    return refused;
}

static void droppable_pages_cost_only_themselves(void **state)
{
    (void)state;
    uint64_t start = map_data(), hole = start + BYTES / 2;
    void *mapped = mmap((void *)(uintptr_t)hole, PAGE_BYTES, PROT_READ | PROT_WRITE,
                        DROPPABLE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (mapped == MAP_FAILED)
        skip(); /* the kernel has none, or does not tell it from MAP_SHARED */
    if (!is_refused(hole))
        skip();
    expect_all_but(start, hole);
}

static void another_userfaultfd_costs_only_its_own(void **state)
{
    (void)state;
    uint64_t start = map_data(), hole = start + BYTES / 2;
    int other = userfaultfd_open();
    assert_true(other >= 0);
    assert_int_equal(userfaultfd_handshake(other, ability_features(&ability), NULL), 0);
    assert_int_equal(userfaultfd_register(other, hole, PAGE_BYTES), 0);
    expect_all_but(start, hole);
    close(other);
}

/* Whole blocks of 2 MB, until somebody else maps anything there, and not those of which a
 * part is not of the heap; none where all of it is wanted. */
static void allocators_blocks_are_left_out(void **state)
{
    (void)state;
    uint64_t start = map_data(), block = round_up(start, HUGE_PAGE_BYTES);
    uint64_t last = round_down(start + BYTES - 1, HUGE_PAGE_BYTES);
    metadata_note(block + 5 * PAGE_BYTES);
    metadata_note(last);
    munmap((void *)(uintptr_t)(last + PAGE_BYTES), start + BYTES - last - PAGE_BYTES);
    assert_true(heap_is_stale(&heap));
    assert_int_equal(heap_refresh(&heap, false), 0);
    assert_null(regions_find(&heap.registered, block));
    assert_null(regions_find(&heap.registered, block + HUGE_PAGE_BYTES - 1));
    assert_non_null(regions_find(&heap.registered, last));
    assert_false(heap_is_stale(&heap));
    heap_want_whole(&heap, true);
    assert_true(heap_is_stale(&heap));
    assert_int_equal(heap_refresh(&heap, false), 0);
    assert_non_null(regions_find(&heap.registered, block));
    heap_want_whole(&heap, false);
    assert_int_equal(heap_refresh(&heap, false), 0);
    assert_null(regions_find(&heap.registered, block));
    metadata_note_mapped(block + HUGE_PAGE_BYTES - 1, block + HUGE_PAGE_BYTES);
    assert_true(heap_is_stale(&heap));
    assert_int_equal(heap_refresh(&heap, false), 0);
    assert_non_null(regions_find(&heap.registered, block));
    munmap((void *)(uintptr_t)start, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(allocators_blocks_are_left_out, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(droppable_pages_cost_only_themselves, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(another_userfaultfd_costs_only_its_own, set_up,
                                        tear_down),
    };
    return cmocka_run_group_tests_name("heap", tests, NULL, NULL);
}
