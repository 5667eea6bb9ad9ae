/* The guard, tried on this program: its own calls of madvise(), mmap() and the like
 * go to the guard, which asks a toy that takes the place of the snapshot.
 *
 * In a server the guard lies in the module, whose calls stay as they are. Here it is
 * part of the program whose table it changes and would call itself for ever, so it is
 * compiled into this file with its system calls going past the table.
 *
 * Not here: an allocator in a library of its own that gives memory back. No library
 * that a unit test loads does; the integration tests have the server's. */
#include <errno.h>
#include <lz4.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "got_table.h"
#include "host/got.h"
#include "kernel/fault_points.h"

static int kernel_madvise(void *start, size_t length, int advice)
{
    return (int)syscall(SYS_madvise, start, length, advice);
}

static int kernel_munmap(void *start, size_t length)
{
    return (int)syscall(SYS_munmap, start, length);
}

static void *kernel_mmap(void *wanted, size_t length, int protection, int flags,
                         int descriptor, off_t offset)
{
    return (void *)syscall(SYS_mmap, wanted, length, protection, flags, descriptor,
                           offset);
}

static void *kernel_mremap(void *start, size_t length, size_t new_length, int flags,
                           void *wanted)
{
    return (void *)syscall(SYS_mremap, start, length, new_length, flags, wanted);
}

#define guard_install        tested_install
#define guard_remove         tested_remove
#define guard_check          tested_check
#define guard_wait_for_calls tested_wait_for_calls
#define madvise              kernel_madvise
#define munmap               kernel_munmap
#define mmap                 kernel_mmap
#define mremap               kernel_mremap
#include "host/guard.c"
#undef madvise
#undef munmap
#undef mmap
#undef mremap

/* ---- the toy --------------------------------------------------------------------- */

#define PAGE  ((size_t)4096)
#define BYTES (4 * PAGE)
#define PLAIN (MAP_PRIVATE | MAP_ANONYMOUS)

/* What the guard asked, and what it is answered. */
static struct {
    bool frozen;
    bool past;   /* what is_past() says */
    bool no_put; /* put_off() has no room */
    int error;   /* of preserve() */
    void *prefaulted_block;
    unsigned preserved, puts, readies, mappings;
    uint64_t kept_start, kept_end;
    bool may_refuse;
    unsigned char byte_then; /* the first of what is kept, at that moment */
    size_t prefaulted_length;
    void *mapped_start;
    size_t mapped_length;
} toy;
static unsigned char *memory;

static bool toy_frozen(void)
{
    return toy.frozen;
}

/* Changes errno, as what the module does there may. */
static int toy_preserve(uint64_t start, uint64_t end, bool may_refuse)
{
    toy.preserved++;
    toy.kept_start = start;
    toy.kept_end = end;
    toy.may_refuse = may_refuse;
    toy.byte_then = *(unsigned char *)(uintptr_t)start;
    errno = EILSEQ;
    return toy.error;
}

static bool toy_is_past(uint64_t start, uint64_t end)
{
    (void)start, (void)end;
    return toy.past;
}

static bool toy_put_off(uint64_t start, uint64_t end)
{
    toy.puts++;
    toy.kept_start = start;
    toy.kept_end = end;
    errno = EILSEQ;
    return !toy.no_put;
}

static void *toy_prefaulted(size_t length)
{
    toy.readies++;
    toy.prefaulted_length = length;
    return toy.prefaulted_block;
}

static void toy_mapped(void *start, size_t length)
{
    toy.mappings++;
    toy.mapped_start = start;
    toy.mapped_length = length;
    errno = EILSEQ;
}

static const struct guard_operations toy_operations = {.frozen = toy_frozen,
                                                       .preserve = toy_preserve,
                                                       .is_past = toy_is_past,
                                                       .put_off = toy_put_off,
                                                       .prefaulted = toy_prefaulted,
                                                       .mapped = toy_mapped};

/* Any function of the executable: the allocator is linked into it. */
static const void *own_code(void)
{
    return (const void *)toy_preserve;
}

static int set_up(void **state)
{
    (void)state;
    memory = kernel_mmap(NULL, BYTES, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    memset(memory, 0xAB, BYTES);
    memset(&toy, 0, sizeof(toy));
    toy.frozen = true;
    return guard_install(&toy_operations, own_code());
}

static int tear_down(void **state)
{
    (void)state;
    guard_remove();
    fault_points_init();
    return kernel_munmap(memory, BYTES);
}

static void check_kept(const void *start, size_t length, bool may_refuse)
{
    assert_int_equal(toy.preserved, 1);
    assert_int_equal(toy.kept_start, (uintptr_t)start);
    assert_int_equal(toy.kept_end, (uintptr_t)start + length);
    assert_int_equal(toy.may_refuse, may_refuse);
    assert_int_equal(toy.byte_then, 0xAB);
    toy.preserved = 0;
}

static void check_told(const void *start, size_t length)
{
    assert_int_equal(toy.mappings, 1);
    assert_ptr_equal(toy.mapped_start, start);
    assert_int_equal(toy.mapped_length, length);
    toy.mappings = 0;
}

static bool is_mapped(void *start)
{
    unsigned char resident;
    return mincore(start, PAGE, &resident) == 0;
}

/* ---- advice ---------------------------------------------------------------------- */

static void preserves_what_an_advice_drops(void **state)
{
    (void)state;
    assert_int_equal(madvise(memory + PAGE, PAGE, MADV_DONTNEED), 0);
    check_kept(memory + PAGE, PAGE, true);
    assert_int_equal(memory[PAGE], 0);
    assert_int_equal(memory[2 * PAGE], 0xAB);
    assert_int_equal(madvise(memory + 2 * PAGE, PAGE, MADV_FREE), 0);
    check_kept(memory + 2 * PAGE, PAGE, true);
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED_LOCKED), 0);
    check_kept(memory, PAGE, true);
    assert_int_equal(memory[0], 0);
    /* Of no use to private memory, but whoever asks for it wants to drop pages. */
    assert_int_equal(madvise(memory + 3 * PAGE, PAGE, MADV_REMOVE), -1);
    assert_int_equal(errno, EINVAL);
    check_kept(memory + 3 * PAGE, PAGE, true);
    assert_int_equal(toy.mappings, 0);
}

static void lets_other_advice_pass(void **state)
{
    (void)state;
    assert_int_equal(madvise(memory, BYTES, MADV_WILLNEED), 0);
    assert_int_equal(madvise(memory, BYTES, MADV_NOHUGEPAGE), 0);
    assert_int_equal(madvise(memory, BYTES, MADV_DONTFORK), 0);
    assert_int_equal(madvise(memory, 0, MADV_DONTNEED), 0);
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(memory[0], 0xAB);
}

/* The allocator believes what it is told: refused, the pages must be as they were. */
static void refuses_an_advice(void **state)
{
    (void)state;
    toy.error = -ENOBUFS;
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), -1);
    assert_int_equal(errno, ENOBUFS);
    check_kept(memory, PAGE, true);
    assert_int_equal(memory[0], 0xAB);
    toy.error = -EAGAIN;
    assert_int_equal(madvise(memory, PAGE, MADV_FREE), -1);
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(memory[0], 0xAB);
    assert_int_equal(madvise(memory, PAGE, MADV_WILLNEED), 0);
}

static void asks_nothing_when_nothing_is_frozen(void **state)
{
    (void)state;
    toy.frozen = false;
    toy.error = -ENOBUFS;
    toy.prefaulted_block = memory;
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
    assert_int_equal(memory[0], 0);
    void *block = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    assert_ptr_not_equal(block, MAP_FAILED);
    assert_ptr_not_equal(block, memory);
    check_told(block, BYTES);
    assert_int_equal(munmap(block, BYTES), 0);
    check_told(NULL, 0);
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(toy.readies, 0);
}

/* The fault point with which other tests show that they find a page not kept. */
static void preserves_nothing_with_the_fault_point(void **state)
{
    (void)state;
    toy.error = -ENOBUFS;
    fault_point_set("skip_advice", true);
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(memory[0], 0);
}

/* ---- memory that goes ------------------------------------------------------------ */

/* A reader may be looking at it: it stays, and nothing needs to be kept. */
static void puts_off_what_is_past(void **state)
{
    (void)state;
    toy.past = true;
    errno = EXDEV;
    assert_int_equal(munmap(memory + PAGE, 2 * PAGE), 0);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(toy.puts, 1);
    assert_int_equal(toy.kept_start, (uintptr_t)memory + PAGE);
    assert_int_equal(toy.kept_end, (uintptr_t)memory + 3 * PAGE);
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(toy.mappings, 0);
    assert_int_equal(memory[PAGE], 0xAB);
    toy.no_put = true;
    assert_int_equal(munmap(memory + PAGE, PAGE), 0);
    check_kept(memory + PAGE, PAGE, false);
    assert_false(is_mapped(memory + PAGE));
}

/* Neither may leave a reader without the page; whoever asks can do without. */
static void refuses_to_lock_or_move_what_is_past(void **state)
{
    (void)state;
    toy.past = true;
    assert_ptr_equal(
        mmap(memory, PAGE, PROT_NONE, PLAIN | MAP_NORESERVE | MAP_FIXED, -1, 0),
        MAP_FAILED);
    assert_int_equal(errno, ENOMEM);
    assert_ptr_equal(mremap(memory, PAGE, 2 * PAGE, MREMAP_MAYMOVE), MAP_FAILED);
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(memory[0], 0xAB);
    /* What is mapped over with memory reads as zeros, and was kept before. */
    assert_ptr_equal(mmap(memory, PAGE, PROT_READ | PROT_WRITE, PLAIN | MAP_FIXED, -1, 0),
                     memory);
    check_kept(memory, PAGE, false);
    toy.frozen = false;
    assert_ptr_equal(mremap(memory, PAGE, PAGE, 0), memory);
}

/* These two cannot be refused: the caller counts on them. */
static void preserves_what_is_unmapped(void **state)
{
    (void)state;
    toy.error = -ENOBUFS;
    assert_int_equal(munmap(memory + PAGE, 2 * PAGE), 0);
    check_kept(memory + PAGE, 2 * PAGE, false);
    check_told(NULL, 0);
    assert_true(is_mapped(memory));
    assert_false(is_mapped(memory + PAGE));
    assert_false(is_mapped(memory + 2 * PAGE));
}

static void preserves_what_is_mapped_over(void **state)
{
    (void)state;
    toy.error = -ENOBUFS;
    toy.prefaulted_block = memory + 3 * PAGE; /* not for who wants a place */
    void *block =
        mmap(memory + PAGE, PAGE, PROT_READ | PROT_WRITE, PLAIN | MAP_FIXED, -1, 0);
    assert_ptr_equal(block, memory + PAGE);
    check_kept(memory + PAGE, PAGE, false);
    check_told(memory + PAGE, PAGE);
    assert_int_equal(memory[PAGE], 0);
    /* jemalloc's way to give memory back but not its place. */
    block = mmap(memory, PAGE, PROT_NONE, PLAIN | MAP_NORESERVE | MAP_FIXED, -1, 0);
    assert_ptr_equal(block, memory);
    check_kept(memory, PAGE, false);
    assert_int_equal(toy.mappings, 0);
    assert_int_equal(toy.readies, 0);
}

static void moves_what_is_not_past(void **state)
{
    (void)state;
    unsigned char *place = kernel_mmap(NULL, BYTES, PROT_NONE, PLAIN, -1, 0);
    void *moved = mremap(memory, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, place + PAGE);
    assert_ptr_equal(moved, place + PAGE);
    check_told(NULL, 0);
    assert_int_equal(place[PAGE], 0xAB);
    assert_false(is_mapped(memory));
    moved = mremap(memory + PAGE, 2 * PAGE, PAGE, 0); /* without a fifth argument */
    assert_ptr_equal(moved, memory + PAGE);
    check_told(NULL, 0);
    assert_false(is_mapped(memory + 2 * PAGE));
    assert_int_equal(toy.preserved, 0);
    assert_int_equal(kernel_munmap(place, BYTES), 0);
}

/* ---- memory that comes ----------------------------------------------------------- */

static void gives_prefaulted_memory_while_frozen(void **state)
{
    (void)state;
    toy.prefaulted_block = memory;
    void *block = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    assert_ptr_equal(block, memory);
    assert_int_equal(toy.prefaulted_length, BYTES);
    check_told(memory, BYTES);
    block = mmap64(NULL, PAGE, PROT_READ | PROT_WRITE, PLAIN | MAP_NORESERVE, -1, 0);
    assert_ptr_equal(block, memory);
    assert_int_equal(toy.prefaulted_length, PAGE);
    check_told(memory, PAGE);
    assert_int_equal(toy.readies, 2);
}

static void takes_new_memory_when_none_is_prefaulted(void **state)
{
    (void)state;
    unsigned char *block = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    assert_ptr_not_equal(block, MAP_FAILED);
    assert_int_equal(toy.readies, 1);
    check_told(block, BYTES);
    assert_int_equal(block[BYTES - 1], 0);
    assert_int_equal(kernel_munmap(block, BYTES), 0);
}

/* Ready memory is private, anonymous, writable and anywhere: nothing else will do. */
static void gives_prefaulted_memory_to_nobody_else(void **state)
{
    (void)state;
    static const struct {
        bool wanted;
        int protection, flags;
        bool told;
    } calls[] = {
        {true, PROT_READ | PROT_WRITE, PLAIN, true},
        {false, PROT_READ | PROT_WRITE, PLAIN | MAP_POPULATE, true},
        {false, PROT_READ | PROT_WRITE | PROT_EXEC, PLAIN, true},
        {false, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, false},
        {false, PROT_READ, PLAIN, false},
        {false, PROT_NONE, PLAIN, false},
    };
    toy.prefaulted_block = memory;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *block = mmap(calls[i].wanted ? memory - (64 << 20) : NULL, BYTES,
                           calls[i].protection, calls[i].flags, -1, 0);
        assert_ptr_not_equal(block, MAP_FAILED);
        assert_ptr_not_equal(block, memory);
        if (calls[i].told)
            check_told(block, BYTES);
        assert_int_equal(toy.mappings, 0);
        assert_int_equal(kernel_munmap(block, BYTES), 0);
    }
    assert_int_equal(toy.readies, 0);
    assert_int_equal(toy.preserved, 0);
}

/* ---- errno ----------------------------------------------------------------------- */

/* A free() that gives memory back leaves errno alone, and so must what comes before
 * and after it. */
static void leaves_errno_alone(void **state)
{
    (void)state;
    errno = EXDEV;
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
    assert_int_equal(errno, EXDEV);
    void *block = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    assert_int_equal(errno, EXDEV);
    block = mremap(block, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    assert_int_equal(errno, EXDEV);
    assert_int_equal(munmap(block, 2 * PAGE), 0);
    assert_int_equal(errno, EXDEV);
}

static void tells_the_kernels_error(void **state)
{
    (void)state;
    assert_int_equal(munmap(memory + 1, PAGE), -1);
    assert_int_equal(errno, EINVAL);
    assert_ptr_equal(mremap(memory + 1, PAGE, PAGE, 0), MAP_FAILED);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(madvise(memory + 1, PAGE, MADV_DONTNEED), -1);
    assert_int_equal(errno, EINVAL);
    toy.mappings = 0;
    assert_ptr_equal(mmap(NULL, 0, PROT_READ | PROT_WRITE, PLAIN, -1, 0), MAP_FAILED);
    assert_int_equal(errno, EINVAL);
    assert_int_equal(toy.mappings, 0);
}

/* ---- putting it in and taking it out --------------------------------------------- */

static const char *const names[GOT_TABLE_NAMES] = {"madvise", "munmap", "mmap", "mmap64",
                                                   "mremap"};

static void check_program_is_as_before(void)
{
    toy.preserved = toy.mappings = toy.readies = 0;
    toy.error = -ENOBUFS;
    assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
    assert_int_equal(memory[0], 0);
    void *block = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    block = mremap(block, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    assert_ptr_not_equal(block, MAP_FAILED);
    assert_int_equal(munmap(block, 2 * PAGE), 0);
    block = mmap64(NULL, PAGE, PROT_READ | PROT_WRITE, PLAIN, -1, 0);
    assert_int_equal(munmap(block, PAGE), 0);
    assert_int_equal(toy.preserved + toy.mappings + toy.readies, 0);
    toy.error = 0;
}

static void removed_leaves_the_program_as_before(void **state)
{
    (void)state;
    guard_remove();
    check_program_is_as_before();
    struct got_table before = got_table_read(names);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(guard_install(&toy_operations, own_code()), 0);
        got_table_check(&before, names, false);
        memory[0] = 0xAB;
        assert_int_equal(madvise(memory, PAGE, MADV_DONTNEED), 0);
        check_kept(memory, PAGE, true);
        guard_remove();
        got_table_check(&before, names, true);
        check_program_is_as_before();
        guard_remove(); /* once more does nothing */
        got_table_check(&before, names, true);
    }
}

static void failed_install_changes_nothing(void **state)
{
    (void)state;
    int on_the_stack = 0;
    guard_remove();
    check_program_is_as_before();
    struct got_table before = got_table_read(names);
    assert_int_equal(guard_install(&toy_operations, &on_the_stack), -ENOENT);
    got_table_check(&before, names, true);
    assert_int_equal(guard_install(&toy_operations, NULL), -ENOENT);
    got_table_check(&before, names, true);
    check_program_is_as_before();
}

/* The server's own calls count as well as those of an allocator in a library, even of
 * one that imports nothing of all that. */
static void guards_the_executable_beside_a_library(void **state)
{
    (void)state;
    struct got_object library;
    guard_remove();
    check_program_is_as_before();
    struct got_table before = got_table_read(names);
    assert_int_equal(got_find_object((const void *)LZ4_versionNumber, &library), 0);
    assert_non_null(strstr(library.name, "lz4"));
    assert_int_equal(guard_install(&toy_operations, (const void *)LZ4_versionNumber), 0);
    got_table_check(&before, names, false);
    assert_int_equal(munmap(memory + PAGE, PAGE), 0);
    check_kept(memory + PAGE, PAGE, false);
    guard_remove();
    got_table_check(&before, names, true);
    check_program_is_as_before();
}

/* ---- who is amid a call ------------------------------------------------------------ */

static void *drop(void *unused)
{
    (void)unused;
    madvise(memory, PAGE, MADV_DONTNEED);
    return NULL;
}

/* A freeze waits for it, not for ever, and the next time not at all. */
static void waits_for_calls_within_a_bound(void **state)
{
    (void)state;
    pthread_t thread;
    assert_int_equal(tested_wait_for_calls(), 0);
    fault_point_set("hung_guard", true);
    assert_int_equal(pthread_create(&thread, NULL, drop, NULL), 0);
    while (!atomic_load_explicit(&in_calls, memory_order_relaxed))
        sleep_usec(1000);
    uint64_t began = clock_usec();
    assert_int_equal(tested_wait_for_calls(), -EBUSY);
    assert_in_range(clock_usec() - began, LOCK_IN_TIME_USEC, 2 * LOCK_IN_TIME_USEC);
    began = clock_usec();
    assert_int_equal(tested_wait_for_calls(), -EBUSY);
    assert_in_range(clock_usec() - began, 0, LOCK_IN_TIME_USEC / 2);
    fault_point_set("hung_guard", false);
    pthread_join(thread, NULL);
    assert_int_equal(tested_wait_for_calls(), 0);
}

#define GUARDED_TEST(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        GUARDED_TEST(preserves_what_an_advice_drops),
        GUARDED_TEST(lets_other_advice_pass),
        GUARDED_TEST(refuses_an_advice),
        GUARDED_TEST(asks_nothing_when_nothing_is_frozen),
        GUARDED_TEST(preserves_nothing_with_the_fault_point),
        GUARDED_TEST(puts_off_what_is_past),
        GUARDED_TEST(refuses_to_lock_or_move_what_is_past),
        GUARDED_TEST(preserves_what_is_unmapped),
        GUARDED_TEST(preserves_what_is_mapped_over),
        GUARDED_TEST(moves_what_is_not_past),
        GUARDED_TEST(gives_prefaulted_memory_while_frozen),
        GUARDED_TEST(takes_new_memory_when_none_is_prefaulted),
        GUARDED_TEST(gives_prefaulted_memory_to_nobody_else),
        GUARDED_TEST(leaves_errno_alone),
        GUARDED_TEST(tells_the_kernels_error),
        GUARDED_TEST(waits_for_calls_within_a_bound),
        GUARDED_TEST(removed_leaves_the_program_as_before),
        GUARDED_TEST(failed_install_changes_nothing),
        GUARDED_TEST(guards_the_executable_beside_a_library),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
