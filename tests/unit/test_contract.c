/* A call that breaks what its header demands ends the process, with a line that says so.
 * Each in a child of its own; nothing of this holds in a build without checks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/heap.h"
#include "memory/packer.h"
#include "memory/preserved.h"

static struct heap heap = {.changes = 1, .changes_seen = 0};
static struct short_lock first, second;
static struct packer packer;
static struct preserved preserved;

/* What a child does, and what it says on its standard error. Returns how it ended, as
 * waitpid() has it. */
static int run_in_child(void (*call)(void), char *said, size_t size)
{
    int ends[2], status;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        signal(SIGABRT, SIG_DFL);
        dup2(ends[1], STDERR_FILENO);
        call();
        _exit(0);
    }
    close(ends[1]);
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], said + length, size - 1 - length)) > 0;)
        length += (size_t)got;
    said[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void is_refused(void (*call)(void), const char *file, const char *demand)
{
    char said[1024];
    int status = run_in_child(call, said, sizeof(said));
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGABRT)
        fail_msg("ended with status %x, having said: %s", (unsigned)status, said);
    assert_ptr_equal(strstr(said, "uffd: src/"), said);
    assert_non_null(strstr(said, file));
    assert_non_null(strstr(said, demand));
    assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void is_allowed(void (*call)(void))
{
    char said[1024];
    assert_int_equal(run_in_child(call, said, sizeof(said)), 0);
    assert_string_equal(said, "");
}

/* Runs `call` on a thread of this name. */
static void *call_it(void *argument)
{
    ((void (*)(void))(uintptr_t)argument)();
    return NULL;
}

static void on_thread_of_ours(const char *name, void (*call)(void))
{
    struct thread thread;
    if (thread_start(&thread, name, 65536, call_it, (void *)(uintptr_t)call) == 0)
        thread_join(&thread);
}

/* ---- threads --------------------------------------------------------------------- */

static void probe_elsewhere(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, call_it, (void *)(uintptr_t)memory_probe);
    pthread_join(thread, NULL);
}

static void main_thread_only(void **state)
{
    (void)state;
    is_allowed(memory_probe);
    is_refused(
        probe_elsewhere, "kernel/memory.c:",
        "memory_probe() demands contract_on_main_thread(), called on another thread");
}

static void take_a_job(void)
{
    packer_take(&packer);
}

static void take_a_job_there(void)
{
    on_thread_of_ours(THREAD_FAULT_SERVER, take_a_job);
}

static void take_a_job_beside(void)
{
    on_thread_of_ours(THREAD_FAULT_SERVER, take_a_job);
    own_thread_note(1, 2, THREAD_FAULT_SERVER);
    take_a_job();
}

static void set_ceiling(void)
{
    preserved_set_ceiling(&preserved, 1);
}

static void set_ceiling_beside(void)
{
    own_thread_note(1, 2, THREAD_UPKEEP);
    on_thread_of_ours(THREAD_SAVER, set_ceiling);
}

static void one_thread_only(void **state)
{
    (void)state;
    is_allowed(take_a_job_there);
    is_allowed(take_a_job); /* who plays the fault server where there is none */
    is_refused(take_a_job_beside, "memory/packer.c:",
               "packer_take() demands contract_on_thread(\"uffd-faults\"), called on the "
               "main thread");
    is_refused(set_ceiling_beside, "memory/preserved.c:", "called on uffd-saver");
}

/* ---- locks ----------------------------------------------------------------------- */

static void look_without_lock(void)
{
    heap_is_stale(&heap);
}

static void *lock_it(void *argument)
{
    heap_lock(argument);
    return NULL;
}

static void look_under_anothers_lock(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, lock_it, &heap);
    pthread_join(thread, NULL);
    heap_is_stale(&heap);
}

static void look_under_lock(void)
{
    heap_lock(&heap);
    heap_is_stale(&heap);
    heap_unlock(&heap);
    if (heap_try_lock(&heap))
        heap_unlock(&heap);
}

static void held_by_the_caller(void **state)
{
    (void)state;
    const char *demand = "heap_is_stale() demands contract_holds(&heap->locked)";
    is_allowed(look_under_lock);
    is_refused(look_without_lock, "memory/heap.c:", demand);
    is_refused(look_under_anothers_lock, "memory/heap.c:", demand);
}

static void in_order_of_ranks(void)
{
    heap_lock(&heap);
    short_lock_take(&first);
    short_lock_release(&first);
    short_lock_take(&second);
    short_lock_release(&second);
    heap_unlock(&heap);
}

static void two_short_ones(void)
{
    short_lock_take(&first);
    short_lock_take(&second);
}

static void heap_under_short_one(void)
{
    short_lock_take(&first);
    heap_lock(&heap);
}

static void lock_of_fault_server(void)
{
    on_thread_of_ours(THREAD_FAULT_SERVER, in_order_of_ranks);
}

static void two_in_a_crash(void)
{
    short_locks_give_way(true);
    two_short_ones();
}

static void in_their_order(void **state)
{
    (void)state;
    is_allowed(in_order_of_ranks);
    is_allowed(two_in_a_crash);
    is_refused(two_short_ones, "kernel/thread.c:", "contract_may_take(RANK_SHORT)");
    is_refused(heap_under_short_one, "memory/heap.c:", "contract_may_take(RANK_HEAP)");
    is_refused(lock_of_fault_server, "memory/heap.c:", "called on uffd-faults");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(main_thread_only),
        cmocka_unit_test(one_thread_only),
        cmocka_unit_test(held_by_the_caller),
        cmocka_unit_test(in_their_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
