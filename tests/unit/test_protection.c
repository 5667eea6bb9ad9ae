/* Whatever way a set of regions is protected, every page of it is, and nothing else. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/ability.h"
#include "kernel/fault_points.h"
#include "kernel/pagemap.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"
#include "memory/protection.h"

#define MB          (UINT64_C(1) << 20)
#define TOTAL_BYTES (400 * MB)
#define REGIONS     5
/* What up to three helpers may have that the caller does too. */
#define TWICE     (3 * 16 * MB)
#define PROTECTED (UINT64_C(1) << 57) /* in an entry of /proc/PID/pagemap */

static unsigned char *memory;
static int userfaultfd;
static struct protection *protection;
static struct region regions[REGIONS];
static struct region_set set;

/* Some that end anywhere, some within a share, one of many shares; gaps between. */
static void lay_out(void)
{
    static const struct {
        uint64_t start, end;
    } layout[REGIONS] = {{0, 12288},
                         {16384, 3 * MB + 4096},
                         {5 * MB, 21 * MB},
                         {30 * MB + 8192, 300 * MB - 4096},
                         {320 * MB, 400 * MB}};
    regions_init(&set, regions, REGIONS);
    for (size_t i = 0; i < REGIONS; i++)
        assert_int_equal(regions_add(&set, (uintptr_t)memory + layout[i].start,
                                     (uintptr_t)memory + layout[i].end),
                         0);
}

static int set_up(void **state)
{
    struct ability ability;
    int advice = *state ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
    if (ability_probe(&ability) != 0)
        return -1;
    memory = mmap(NULL, TOTAL_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                  -1, 0);
    madvise(memory, TOTAL_BYTES, advice);
    for (uint64_t at = 0; at < TOTAL_BYTES; at += PAGE_BYTES)
        memory[at] = 1;
    userfaultfd = userfaultfd_open();
    if (userfaultfd_handshake(userfaultfd, ability_features(&ability), NULL) ||
        userfaultfd_register(userfaultfd, (uintptr_t)memory, TOTAL_BYTES))
        return -1;
    protection = protection_create();
    lay_out();
    return !protection;
}

static int tear_down(void **state)
{
    (void)state;
    fault_points_init();
    protection_destroy(protection);
    close(userfaultfd);
    return munmap(memory, TOTAL_BYTES);
}

static uint64_t count_protected(uint64_t start, uint64_t end)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    static uint64_t entries[4096];
    uint64_t count = 0;
    assert_true(pagemap >= 0);
    for (uint64_t page = start / PAGE_BYTES; page < end / PAGE_BYTES;) {
        uint64_t more = end / PAGE_BYTES - page < 4096 ? end / PAGE_BYTES - page : 4096;
        assert_int_equal(pread(pagemap, entries, more * 8, (off_t)(page * 8)), more * 8);
        for (uint64_t i = 0; i < more; i++)
            count += (entries[i] & PROTECTED) != 0;
        page += more;
    }
    close(pagemap);
    return count;
}

static void check_all_protected(void)
{
    uint64_t all = 0;
    for (size_t i = 0; i < REGIONS; i++) {
        uint64_t pages = (regions[i].end - regions[i].start) / PAGE_BYTES;
        assert_int_equal(count_protected(regions[i].start, regions[i].end), pages);
        all += pages;
    }
    assert_int_equal(count_protected((uintptr_t)memory, (uintptr_t)memory + TOTAL_BYTES),
                     all);
}

/* Several times: helpers come from the job before. */
static void protects_all(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        assert_int_equal(protection_set(protection, userfaultfd, &set), 0);
        check_all_protected();
        protection_wait(protection);
        assert_int_equal(
            userfaultfd_unprotect(userfaultfd, (uintptr_t)memory, TOTAL_BYTES), 0);
    }
}

static void protects_nothing(void **state)
{
    (void)state;
    regions_clear(&set);
    assert_int_equal(protection_set(protection, userfaultfd, &set), 0);
    assert_int_equal(count_protected((uintptr_t)memory, (uintptr_t)memory + TOTAL_BYTES),
                     0);
}

/* Wherever it is: at the beginning, or in a share. */
static void tells_what_cannot_be_protected(void **state)
{
    (void)state;
    static const uint64_t holes[] = {0, 6 * MB, 31 * MB, 250 * MB, 399 * MB};
    for (size_t i = 0; i < sizeof(holes) / sizeof(holes[0]); i++) {
        uint64_t hole = (uintptr_t)memory + holes[i];
        assert_int_equal(userfaultfd_unregister(userfaultfd, hole, PAGE_BYTES), 0);
        assert_int_equal(protection_set(protection, userfaultfd, &set), -ENOENT);
        assert_int_equal(userfaultfd_register(userfaultfd, hole, PAGE_BYTES), 0);
        assert_int_equal(protection_set(protection, userfaultfd, &set), 0);
    }
}

static void switch_fault(const char *name, bool on)
{
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    assert_true(fault_point_set(name, on));
}

/* A helper that takes a piece and then gets no CPU for three seconds: the caller does that
 * piece too. The helper protects it once more when it wakes, which nobody may miss. */
static void waits_for_no_helper(void **state)
{
    (void)state;
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        skip();
    switch_fault("sleeping_helper", true);
    bool late = false;
    /* That a helper comes in time to take anything is not certain, less so on a machine
     * that has other things to do. */
    uint64_t end = clock_usec() + 60 * UINT64_C(1000000);
    while (!late && clock_usec() < end) {
        uint64_t began = clock_usec();
        assert_int_equal(protection_set(protection, userfaultfd, &set), 0);
        assert_in_range(clock_usec() - began, 0,
                        2500000); /* it sleeps for three seconds */
        late = protection_is_at_work(protection);
        switch_fault("sleeping_helper", !late);
        if (!late)
            userfaultfd_unprotect(userfaultfd, (uintptr_t)memory, TOTAL_BYTES);
    }
    assert_true(late);
    check_all_protected();
    /* Alone meanwhile. */
    assert_int_equal(protection_set(protection, userfaultfd, &set), 0);
    check_all_protected();
    protection_wait(protection);
    assert_false(protection_is_at_work(protection));
    check_all_protected();
}

#define ON_SMALL_PAGES(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
#define ON_HUGE_PAGES(test)                                                              \
    {                                                                                    \
#test "_on_huge_pages", test, set_up, tear_down, (void *)1                       \
    }

int main(void)
{
    struct ability ability;
    if (ability_probe(&ability) != 0) {
        fprintf(stderr, "no userfaultfd here: %s\n", ability.reason);
        return getenv("STRICT") ? 1 : 77;
    }
    const struct CMUnitTest tests[] = {
        ON_SMALL_PAGES(protects_all),
        ON_SMALL_PAGES(protects_nothing),
        ON_SMALL_PAGES(tells_what_cannot_be_protected),
        ON_SMALL_PAGES(waits_for_no_helper),
        ON_HUGE_PAGES(protects_all),
        ON_HUGE_PAGES(tells_what_cannot_be_protected),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
