/* Replacing functions at their entry, tried on some that are made for it. They begin as
 * jemalloc's free() and sdallocx() do in servers of several makers. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/entry.h"

#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

/* Each returns its argument, plus 1, and is long enough. */
#define FUNCTION(name, first, rest)                                                      \
    long name(long argument);                                                            \
    __asm__(".pushsection .text\n.balign 16\n.globl " #name "\n.type " #name             \
            ", %function\n" #name ":\n" first "\n" rest "\nret\n.size " #name            \
            ", . - " #name "\n.popsection\n")

#if defined(__x86_64__)

#define LONG "lea 1(%rdi), %rax\n.fill 16, 1, 0x90"
#define MOVE "mov %rdi, %rax"

FUNCTION(begins_with_high_move, "mov %rdi, %r9", LONG);
FUNCTION(begins_with_load, "mov begins_with_load(%rip), %rdx", LONG);
FUNCTION(begins_with_test, "test %edx, %edx", LONG);
FUNCTION(begins_with_mark, "endbr64", LONG);
FUNCTION(begins_with_push, "push %rbp", "pop %rbp\n" LONG);
FUNCTION(begins_with_callers, "mov %rdi, %rbx", LONG);
FUNCTION(begins_with_argument, "mov %rax, %rdi", LONG);
FUNCTION(begins_with_narrow_move, "mov %edi, %eax", LONG);
FUNCTION(begins_with_store, "mov %rdi, -8(%rsp)", LONG);
FUNCTION(begins_with_breakpoint, "int3", LONG);
FUNCTION(is_short, MOVE, "lea 1(%rdi), %rax");

#define KNOWN begins_with_high_move, begins_with_load, begins_with_test, begins_with_mark
#define OTHERS                                                                           \
    begins_with_push, begins_with_narrow_move, begins_with_store, begins_with_breakpoint

#else

#define LONG "add x0, x0, #1\nnop\nnop\nnop\nnop"
#define MOVE "mov x9, x0"

FUNCTION(begins_with_page, "adrp x1, begins_with_page", LONG);
FUNCTION(begins_with_sum, "add x17, x0, #1", LONG);
FUNCTION(begins_with_field, "ubfx x3, x0, #32, #4", LONG);
FUNCTION(begins_with_comparison, "cmp x1, #1, lsl #12", LONG);
FUNCTION(begins_with_mark, "hint #34", LONG);
FUNCTION(begins_with_frame, "stp x29, x30, [sp, #-16]!",
         "ldp x29, x30, [sp], #16\n" LONG);
FUNCTION(begins_with_stack, "sub sp, sp, #16", "add sp, sp, #16\n" LONG);
FUNCTION(begins_with_signature, "hint #25", "hint #29\n" LONG); /* paciasp, autiasp */
FUNCTION(begins_with_load, "ldr x1, [sp]", LONG);
FUNCTION(begins_with_branch, "cbz x0, .+4", LONG);
FUNCTION(begins_with_callers, "mov x19, x0", LONG);
FUNCTION(begins_with_argument, "mov x0, x9", LONG);
FUNCTION(is_short, MOVE, "add x0, x0, #1");

#define KNOWN                                                                            \
    begins_with_page, begins_with_sum, begins_with_field, begins_with_comparison,        \
        begins_with_mark
#define OTHERS                                                                           \
    begins_with_frame, begins_with_stack, begins_with_signature, begins_with_load,       \
        begins_with_branch

#endif

FUNCTION(begins_with_move, MOVE, LONG);
FUNCTION(seen_by_threads, MOVE, LONG);
FUNCTION(not_to_be_changed, MOVE, LONG);

static long doubled(long argument)
{
    return argument * 2;
}

static void is_replaced(long (*function)(long))
{
    uint8_t before[8];
    memcpy(before, (void *)function, sizeof(before));
    assert_int_equal(function(20), 21);
    assert_int_equal(entry_replace((void *)function, 1, (void *)doubled), 0);
    assert_int_equal(function(20), 40);
    /* A probe in the kernel has its own idea of the first instruction. */
    size_t kept = 0;
    while (kept < sizeof(before) && ((uint8_t *)function)[kept] == before[kept])
        kept++;
    assert_in_range(kept, 2, 7);
}

static void is_left(long (*function)(long), int error)
{
    uint8_t before[32];
    memcpy(before, (void *)function, sizeof(before));
    assert_int_equal(entry_check((void *)function, 1), error);
    assert_int_equal(entry_replace((void *)function, 1, (void *)doubled), error);
    assert_memory_equal(before, (void *)function, sizeof(before));
}

static void known_kinds(void **state)
{
    (void)state;
    long (*const functions[])(long) = {begins_with_move, KNOWN};
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        is_replaced(functions[i]);
}

static void others_are_left(void **state)
{
    (void)state;
    long (*const functions[])(long) = {begins_with_callers, begins_with_argument,
                                       is_short, OTHERS};
    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++)
        is_left(functions[i], -EOPNOTSUPP);
}

/* What is the third argument of one is free for use in another. */
static void arguments_are_left_alone(void **state)
{
    (void)state;
    assert_int_equal(entry_check((void *)begins_with_argument, 0), 0);
    assert_int_equal(entry_check((void *)not_to_be_changed, 3), 0);
}

static void *wait_for(void *mutex)
{
    pthread_mutex_lock(mutex);
    return NULL;
}

static void never_beside_another_thread(void **state)
{
    (void)state;
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_t thread;
    pthread_mutex_lock(&mutex);
    assert_int_equal(pthread_create(&thread, NULL, wait_for, &mutex), 0);
    is_left(seen_by_threads, -EBUSY);
    assert_int_equal(seen_by_threads(20), 21);
    pthread_mutex_unlock(&mutex);
    pthread_join(thread, NULL);
}

/* As under systemd's MemoryDenyWriteExecute. */
static void not_where_it_is_forbidden(void **state)
{
    (void)state;
#ifdef __SANITIZE_THREAD__ /* it has a thread of its own, in each process: -EBUSY */
    skip();
#endif
    pid_t child = fork();
    if (child == 0) {
        if (prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0)
            _exit(1);
        int error = entry_replace((void *)not_to_be_changed, 1, (void *)doubled);
        _exit(error == -EACCES && not_to_be_changed(20) == 21 ? 0 : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_kinds),
        cmocka_unit_test(others_are_left),
        cmocka_unit_test(arguments_are_left_alone),
        cmocka_unit_test(never_beside_another_thread),
        cmocka_unit_test(not_where_it_is_forbidden),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
