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

#if defined(__x86_64__)

/* Each returns its argument, plus 1, and is long enough. */
#define FUNCTION(name, first, rest)                                                      \
    long name(long argument);                                                            \
    __asm__(".pushsection .text\n.balign 16\n.globl " #name "\n.type " #name             \
            ", @function\n" #name ":\n" first "\n" rest "\nret\n.size " #name            \
            ", . - " #name "\n.popsection\n")
#define LONG "lea 1(%rdi), %rax\n.fill 16, 1, 0x90"

FUNCTION(begins_with_move, "mov %rdi, %rax", LONG);
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
FUNCTION(is_short, "mov %rdi, %rax", "lea 1(%rdi), %rax");
FUNCTION(seen_by_threads, "mov %rdi, %rax", LONG);
FUNCTION(not_to_be_changed, "mov %rdi, %rax", LONG);

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
    while (((uint8_t *)function)[kept] != 0xff)
        kept++;
    assert_in_range(kept, 2, 7);
    assert_memory_equal(before, (void *)function, kept);
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
    is_replaced(begins_with_move);
    is_replaced(begins_with_high_move);
    is_replaced(begins_with_load);
    is_replaced(begins_with_test);
    is_replaced(begins_with_mark);
}

static void others_are_left(void **state)
{
    (void)state;
    is_left(begins_with_push, -EOPNOTSUPP);
    is_left(begins_with_callers, -EOPNOTSUPP);
    is_left(begins_with_argument, -EOPNOTSUPP);
    is_left(begins_with_narrow_move, -EOPNOTSUPP);
    is_left(begins_with_store, -EOPNOTSUPP);
    is_left(begins_with_breakpoint, -EOPNOTSUPP);
    is_left(is_short, -EOPNOTSUPP);
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

#else

long here(long argument);
long here(long argument)
{
    return argument + 1;
}

/* No code of this architecture is known: all is left as it is, and saves do without. */
static void nothing_is_replaced(void **state)
{
    (void)state;
    uint8_t before[32];
    memcpy(before, (void *)here, sizeof(before));
    assert_int_equal(entry_check((void *)here, 1), -EOPNOTSUPP);
    assert_int_equal(entry_replace((void *)here, 1, (void *)here), -EOPNOTSUPP);
    assert_memory_equal(before, (void *)here, sizeof(before));
    assert_int_equal(here(20), 21);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_replaced),
    };
    return cmocka_run_group_tests_name("entry", tests, NULL, NULL);
}

#endif
