/* The copy that may fault, and the handler in front of others'. */
#include "kernel/fatal_signals.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/guarded_copy.h"
#include "kernel/thread.h"

#define PAGE 4096
#define MOST 300

static int crashes, overs;

static void note_crash(void)
{
    crashes++;
}

static void note_over(void)
{
    overs++;
}

/* Not before a test: cmocka's own handlers come then. In front of nobody. */
static void stand_in(void)
{
    static const int all[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    crashes = overs = 0;
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        signal(all[i], SIG_DFL);
    assert_int_equal(fatal_signals_install(note_crash, note_over), 0);
}

/* ---- the copy -------------------------------------------------------------------- */

static void copies_all_lengths(void **state)
{
    (void)state;
    unsigned char from[MOST + 64], to[MOST + 64];
    for (size_t i = 0; i < sizeof(from); i++)
        from[i] = (unsigned char)(i * 7 + 1);
    for (size_t length = 0; length <= MOST; length++)
        for (size_t shift = 0; shift < 17; shift += 3) {
            memset(to, 0xee, sizeof(to));
            assert_int_equal(guarded_copy(to + 16, from + shift, length), 0);
            assert_memory_equal(to + 16, from + shift, length);
            for (size_t i = 0; i < sizeof(to); i++)
                if (i < 16 || i >= 16 + length)
                    assert_int_equal(to[i], 0xee);
        }
}

/* Whatever instruction it is that reads the first byte that is not there. */
static void ends_at_what_is_not_there(void **state)
{
    (void)state;
    stand_in();
    char to[MOST];
    char *pages =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_int_equal(mprotect(pages + PAGE, PAGE, PROT_NONE), 0);
    for (size_t length = 1; length <= MOST; length++)
        for (size_t there = 0; there < length; there++)
            assert_int_equal(guarded_copy(to, pages + PAGE - there, length), -EFAULT);
    assert_int_equal(guarded_copy(to, pages + PAGE - MOST, MOST), 0);
    assert_int_equal(guarded_copy(to, (void *)(uintptr_t)0x123456789abcdef0, 8), -EFAULT);
    assert_int_equal(crashes, 0);
    munmap(pages, 2 * PAGE);
    fatal_signals_remove();
}

static void ends_at_a_lost_page(void **state)
{
    (void)state;
    stand_in();
    char to[PAGE];
    int file = memfd_create("lost", 0);
    void *page = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, file, 0);
    assert_int_equal(guarded_copy(to, page, 16), -EFAULT);
    assert_int_equal(ftruncate(file, PAGE), 0);
    assert_int_equal(guarded_copy(to, page, PAGE), 0);
    munmap(page, PAGE);
    close(file);
    fatal_signals_remove();
}

static void *copy_from_nowhere(void *argument)
{
    char to[32];
    *(int *)argument = guarded_copy(to, (void *)64, sizeof(to));
    return NULL;
}

/* There they are not blocked. */
static void ends_in_a_thread_of_ours(void **state)
{
    (void)state;
    stand_in();
    struct thread thread;
    int result = 0;
    assert_int_equal(thread_start(&thread, "copier", 65536, copy_from_nowhere, &result),
                     0);
    thread_join(&thread);
    assert_int_equal(result, -EFAULT);
    fatal_signals_remove();
}

static void *end_and_begin_rseq(void *argument)
{
    int *again = argument;
    thread_end_rseq();
    *again = (int)syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset,
                          32u, 0, RSEQ_SIG);
    return NULL;
}

/* It can only be begun where it is not. */
static void ends_restartable_sequences(void **state)
{
    (void)state;
    struct thread thread;
    int again = -1;
    if (!__rseq_size)
        skip();
    assert_int_equal(thread_start(&thread, "rseq", 65536, end_and_begin_rseq, &again), 0);
    thread_join(&thread);
    assert_int_equal(again, 0);
}

/* ---- others' handlers ------------------------------------------------------------ */

#define DONE 42

static volatile uintptr_t nowhere = 64;
static sigjmp_buf back;
static int seen;

static void write_wildly(void)
{
    *(volatile char *)nowhere = 1;
}

static void go_back(int signal)
{
    seen += signal;
    siglongjmp(back, 1);
}

/* The status of a child that runs `body`, which does not come back if all is well. */
static int status_of(void (*body)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        body();
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void assert_killed_by(int signal, void (*body)(void))
{
    int status = status_of(body);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), signal);
}

static void assert_done(void (*body)(void))
{
    int status = status_of(body);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), DONE);
}

static void raise_abort(void)
{
    abort();
}

static void send_bus(void)
{
    kill(getpid(), SIGBUS);
    for (;;)
        pause();
}

/* Where nobody is behind, the kernel does what it does by itself. */
static void ends_as_without(void **state)
{
    (void)state;
    stand_in();
    assert_killed_by(SIGSEGV, write_wildly);
    assert_killed_by(SIGABRT, raise_abort);
    assert_killed_by(SIGBUS, send_bus);
    fatal_signals_remove();
}

static void crash_into_handler(void)
{
    struct sigaction theirs = {.sa_handler = go_back, .sa_flags = (int)SA_NODEFER};
    sigaction(SIGSEGV, &theirs, NULL);
    fatal_signals_look();
    if (!sigsetjmp(back, 1))
        write_wildly();
    if (seen == SIGSEGV && crashes == 1)
        _exit(DONE);
}

static void calls_who_came_before(void **state)
{
    (void)state;
    stand_in();
    assert_done(crash_into_handler);
    fatal_signals_remove();
}

static void count_once(int signal)
{
    (void)signal;
    seen++;
}

/* Called once, then the default, as the kernel would. */
static void crash_into_reset_handler(void)
{
    struct sigaction theirs = {.sa_handler = count_once,
                               .sa_flags = (int)(SA_RESETHAND | SA_NODEFER)};
    sigaction(SIGSEGV, &theirs, NULL);
    fatal_signals_look();
    write_wildly(); /* again and again */
}

static void resets_what_is_to_be_reset(void **state)
{
    (void)state;
    stand_in();
    assert_killed_by(SIGSEGV, crash_into_reset_handler);
    fatal_signals_remove();
}

static struct sigaction found;

static void call_on(int signal, siginfo_t *info, void *context)
{
    seen += 100;
    found.sa_sigaction(signal, info, context);
}

static void come_later(void)
{
    struct sigaction later = {.sa_sigaction = call_on, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &later, &found);
}

static void first_and_ours(void)
{
    struct sigaction first = {.sa_handler = go_back, .sa_flags = (int)SA_NODEFER};
    sigaction(SIGSEGV, &first, NULL);
    fatal_signals_look();
}

/* Somebody comes later, who calls what he has found: us. Each is called once, whether we
 * have stepped in front of him since, have gone, or have gone and come again. */
static void crash_through_layers(void)
{
    if (!sigsetjmp(back, 1))
        write_wildly();
    if (seen == 100 + SIGSEGV)
        _exit(DONE);
}

static void layers_as_they_came(void)
{
    first_and_ours();
    come_later();
    crash_through_layers();
}

static void layers_stepped_in_front(void)
{
    first_and_ours();
    come_later();
    fatal_signals_look();
    fatal_signals_look();
    crash_through_layers();
}

static void layers_gone(void)
{
    first_and_ours();
    come_later();
    fatal_signals_remove();
    crash_through_layers();
}

static void layers_gone_from_the_front(void)
{
    first_and_ours();
    come_later();
    fatal_signals_look();
    fatal_signals_remove();
    crash_through_layers();
}

static void layers_come_again(void)
{
    first_and_ours();
    come_later();
    for (int times = 0; times < 20; times++) {
        fatal_signals_look();
        fatal_signals_remove();
        fatal_signals_install(note_crash, note_over);
    }
    crash_through_layers();
}

static void knows_who_calls(void **state)
{
    (void)state;
    stand_in();
    assert_done(layers_as_they_came);
    assert_done(layers_stepped_in_front);
    assert_done(layers_gone);
    assert_done(layers_gone_from_the_front);
    assert_done(layers_come_again);
    fatal_signals_remove();
}

static void copy_behind_the_front(void)
{
    char to[8];
    first_and_ours();
    struct sigaction anew = {.sa_handler = go_back, .sa_flags = (int)SA_NODEFER};
    for (int times = 0; times < 20; times++) {
        sigaction(SIGSEGV, &anew, NULL);
        fatal_signals_look();
    }
    if (guarded_copy(to, (void *)nowhere, 8) == -EFAULT && seen == 0)
        _exit(DONE);
}

static void steps_in_front_again(void **state)
{
    (void)state;
    stand_in();
    assert_done(copy_behind_the_front);
    fatal_signals_remove();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_all_lengths),
        cmocka_unit_test(ends_at_what_is_not_there),
        cmocka_unit_test(ends_at_a_lost_page),
        cmocka_unit_test(ends_in_a_thread_of_ours),
        cmocka_unit_test(ends_restartable_sequences),
        cmocka_unit_test(ends_as_without),
        cmocka_unit_test(calls_who_came_before),
        cmocka_unit_test(resets_what_is_to_be_reset),
        cmocka_unit_test(knows_who_calls),
        cmocka_unit_test(steps_in_front_again),
    };
    return cmocka_run_group_tests_name("fatal_signals", tests, NULL, NULL);
}
