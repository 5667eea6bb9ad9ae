/* How dense a heap is: told by what is there in small pages, by content in huge ones. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/advice.h"
#include "kernel/pagemap.h"
#include "kernel/userfaultfd.h"
#include "memory/density.h"
#include "memory/pages.h"

#define WINDOWS 16

static unsigned char *memory;
static struct region region;
static struct region_set set;

static int set_up(void **state)
{
    void *mapped = mmap(NULL, (WINDOWS + 1) * HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (unsigned char *)round_up((uintptr_t)mapped, HUGE_PAGE_BYTES);
    madvise(memory, WINDOWS * HUGE_PAGE_BYTES, *state ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    regions_init(&set, &region, 1);
    return regions_add(&set, (uintptr_t)memory,
                       (uintptr_t)memory + WINDOWS * HUGE_PAGE_BYTES);
}

static int tear_down(void **state)
{
    (void)state;
    return munmap(memory, WINDOWS * HUGE_PAGE_BYTES);
}

/* So many pages of every eight of a window hold something. */
static void fill(int window, int of_eight)
{
    unsigned char *start = memory + (uint64_t)window * HUGE_PAGE_BYTES;
    for (uint64_t page = 0; page < HUGE_PAGE_BYTES / PAGE_BYTES; page++)
        if (page % 8 < (uint64_t)of_eight)
            start[page * PAGE_BYTES + PAGE_BYTES - 1] = 1;
}

static struct density measured(void)
{
    struct density density;
    assert_int_equal(density_measure(&set, WINDOWS, &density), 0);
    return density;
}

static void full_is_dense(void **state)
{
    for (int i = 0; i < WINDOWS; i++)
        fill(i, 8);
    struct density density = measured();
    assert_int_equal(density.windows, WINDOWS);
    assert_int_equal(density.used, density.pages);
    int pagemap = pagemap_open();
    bool huge = pagemap_is_huge(pagemap, (uintptr_t)memory,
                                (uintptr_t)memory + HUGE_PAGE_BYTES) == 1;
    assert_int_equal(huge, *state != NULL);
    assert_int_equal(density.small, *state ? 0 : WINDOWS);
}

static void holes_are_seen(void **state)
{
    (void)state;
    for (int i = 0; i < WINDOWS; i++)
        fill(i, 7);
    struct density density = measured();
    assert_int_equal(density.windows, WINDOWS);
    assert_int_equal(density.small, 0);
    assert_int_equal(density.used, density.pages / 8 * 7);
}

/* What is hardly used says nothing of the values; nor does what nobody has touched. */
static void nearly_empty_is_left_out(void **state)
{
    (void)state;
    for (int i = 0; i < WINDOWS / 2; i++)
        fill(i, i % 2 ? 8 : 3);
    struct density density = measured();
    assert_int_equal(density.windows, WINDOWS / 4);
}

/* What upkeep/huge_pages.c relies on: putting huge pages together takes no memory. */
static void kernel_fills_no_holes(void **state)
{
    (void)state;
    uint64_t start = (uintptr_t)memory, granted;
    int descriptor = userfaultfd_open();
    assert_true(descriptor >= 0);
    assert_int_equal(userfaultfd_handshake(descriptor, 0, &granted), 0);
    assert_int_equal(userfaultfd_register(descriptor, start, HUGE_PAGE_BYTES), 0);
    fill(0, 7);
    madvise(memory, HUGE_PAGE_BYTES, MADV_HUGEPAGE); /* small pages up to here */
    assert_int_equal(madvise(memory, HUGE_PAGE_BYTES, MADV_COLLAPSE), -1);
    assert_int_equal(errno, EBUSY);
    fill(0, 8);
    assert_int_equal(madvise(memory, HUGE_PAGE_BYTES, MADV_COLLAPSE), 0);
    close(descriptor);
}

static void nothing_is_measured_of_nothing(void **state)
{
    (void)state;
    struct density density;
    struct region_set empty;
    regions_init(&empty, &region, 1);
    assert_int_equal(density_measure(&empty, WINDOWS, &density), 0);
    assert_int_equal(density.windows, 0);
}

#define ON_SMALL_PAGES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_HUGE_PAGES(test)                                                              \
    {                                                                                    \
#test "_on_huge_pages", test, set_up, tear_down, (void *)1                       \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_SMALL_PAGES(full_is_dense),
        ON_HUGE_PAGES(full_is_dense),
        ON_SMALL_PAGES(holes_are_seen),
        ON_SMALL_PAGES(kernel_fills_no_holes),
        ON_HUGE_PAGES(holes_are_seen),
        ON_SMALL_PAGES(nearly_empty_is_left_out),
        ON_HUGE_PAGES(nearly_empty_is_left_out),
        ON_SMALL_PAGES(nothing_is_measured_of_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
