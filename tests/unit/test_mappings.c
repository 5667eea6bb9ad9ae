/* The memory map is read as a whole, or not at all, whatever other threads map meanwhile. */
#include "kernel/mappings.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/fault_points.h"
#include "kernel/thread.h"
#include "memory/pages.h"

#define MARKS      60
#define MARK_BYTES (4 * PAGE_BYTES)
#define READ_USEC  2500000

/* Mappings that stay, with gaps between them; one at a time is split and put together. */
static uint64_t marks[MARKS];
static _Atomic bool stop;

static void *map_plain(size_t bytes, int protection)
{
    void *start =
        mmap(NULL, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(start != MAP_FAILED);
    return start;
}

static int set_marks(void **state)
{
    (void)state;
    for (int i = 0; i < MARKS; i++) {
        marks[i] = (uint64_t)(uintptr_t)map_plain(MARK_BYTES, PROT_READ | PROT_WRITE);
        map_plain(PAGE_BYTES, PROT_NONE);
    }
    return 0;
}

/* As memory is prefaulted: its ends are cut off, the rest is made writable, touched, and
 * given back. */
static void *map_and_unmap(void *unused)
{
    (void)unused;
    for (unsigned round = 0; !atomic_load_explicit(&stop, memory_order_relaxed);
         round++) {
        size_t bytes = (round % 16 + 1) * HUGE_PAGE_BYTES;
        char *mapped = map_plain(bytes + HUGE_PAGE_BYTES, PROT_NONE);
        char *start =
            (char *)(uintptr_t)round_up((uint64_t)(uintptr_t)mapped, HUGE_PAGE_BYTES);
        if (start > mapped)
            munmap(mapped, (size_t)(start - mapped));
        munmap(start + bytes, (size_t)(mapped + HUGE_PAGE_BYTES - start));
        mprotect(start, bytes, PROT_READ | PROT_WRITE);
        madvise(start, bytes, MADV_HUGEPAGE);
        for (size_t at = 0; at < bytes; at += HUGE_PAGE_BYTES)
            start[at] = 1;
        char *inside = (char *)(uintptr_t)marks[round % MARKS] + PAGE_BYTES;
        mprotect(inside, PAGE_BYTES, PROT_READ);
        mprotect(inside, PAGE_BYTES, PROT_READ | PROT_WRITE);
        munmap(start, bytes);
    }
    return NULL;
}

static int count_marks(const struct mapping *mapping, void *context)
{
    int *found = context;
    for (int i = 0; i < MARKS; i++)
        *found += mapping->start <= marks[i] && marks[i] < mapping->end;
    return 0;
}

static void all_is_listed_while_others_map(void **state)
{
    (void)state;
    pthread_t thread;
    int statm = mappings_open_statm();
    long readings = 0, refused = 0, short_ones = 0;
    assert_true(statm >= 0);
    assert_int_equal(pthread_create(&thread, NULL, map_and_unmap, NULL), 0);
    for (uint64_t end = clock_usec() + READ_USEC; clock_usec() < end; readings++) {
        int found = 0;
        int result = mappings_visit(statm, count_marks, &found);
        refused += result == -EAGAIN;
        short_ones += found != MARKS;
        if (result == 0)
            assert_int_equal(found, MARKS);
    }
    atomic_store_explicit(&stop, true, memory_order_relaxed);
    pthread_join(thread, NULL);
    print_message("# %ld readings, %ld not believed, the kernel left out marks in %ld\n",
                  readings, refused, short_ones);
    assert_true(refused < readings);
    close(statm);
}

static void a_short_list_is_not_believed(void **state)
{
    (void)state;
    int statm = mappings_open_statm(), found = 0;
    assert_int_equal(mappings_visit(statm, count_marks, &found), 0);
    assert_int_equal(found, MARKS);
    fault_point_set("short_list", true);
    assert_int_equal(mappings_visit(statm, count_marks, &found), -EAGAIN);
    fault_point_set("short_list", false);
    close(statm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_listed_while_others_map),
        cmocka_unit_test(a_short_list_is_not_believed),
    };
    return cmocka_run_group_tests_name("mappings", tests, set_marks, NULL);
}
