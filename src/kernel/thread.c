#include "kernel/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fatal_signals.h"
#include "kernel/memory.h"
#include "kernel/own_threads.h"

/* A sanitizer keeps much of its own where the thread-local storage is: on the stack. */
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SANITIZER_BYTES ((size_t)4 << 20)
#else
#define SANITIZER_BYTES ((size_t)0)
#endif

/* The server's crash report runs on the stack of who has crashed; its test of the memory
 * keeps 1 MB there. Address space only. */
#define REPORT_BYTES ((size_t)2 << 20)
/* Below the thread's own structure, which its id points to. */
#define KEPT_BYTES ((uintptr_t)32 << 10)
#define PAGE_BYTES ((uintptr_t)4096)

bool thread_is_ours(void)
{
    return own_thread_name() != NULL;
}

/* The new thread inherits the mask: the server's handlers must run on the server's own
 * threads, but for those of what it does wrong itself: blocked, the kernel would end the
 * process without a word. */
static int create_thread(struct thread *thread, void *(*body)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t blocked, before;
    sigfillset(&blocked);
    fatal_signals_take_out(&blocked);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, thread->stack, thread->stack_bytes);
    pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int error = pthread_create(&thread->id, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return -error;
}

/* A forked child has no use for the stack of another thread: copying the page tables of all
 * of ours took a third of the fork of a child for values. Only what glibc keeps of each
 * thread at the stack's end is looked at there, when the child's list of threads is made. */
static void leave_out_of_forks(const struct thread *thread)
{
    uintptr_t start = (uintptr_t)thread->stack;
    uintptr_t kept = ((uintptr_t)thread->id - KEPT_BYTES) & ~(PAGE_BYTES - 1);
    if (kept > start && kept < start + thread->stack_bytes)
        advice_give(thread->stack, kept - start, MADV_DONTFORK);
}

static void forget_ended(struct thread *thread)
{
    own_thread_forget((uintptr_t)thread->stack);
    memory_unmap(thread->stack, thread->stack_bytes);
    thread->stack = NULL;
    thread->running = false;
}

int thread_start(struct thread *thread, const char *name, size_t stack_bytes,
                 void *(*body)(void *), void *argument)
{
    memset(thread, 0, sizeof(*thread));
    stack_bytes += SANITIZER_BYTES + REPORT_BYTES;
    thread->stack = memory_map_inherited(stack_bytes);
    if (!thread->stack)
        return -ENOMEM;
    thread->stack_bytes = stack_bytes;
    own_thread_note((uintptr_t)thread->stack, (uintptr_t)thread->stack + stack_bytes,
                    name);
    int error = create_thread(thread, body, argument);
    if (error) {
        forget_ended(thread);
        return error;
    }
    leave_out_of_forks(thread);
    pthread_setname_np(thread->id, name);
    thread->running = true;
    return 0;
}

void thread_join(struct thread *thread)
{
    if (!thread->running)
        return;
    pthread_join(thread->id, NULL);
    forget_ended(thread);
}

bool thread_join_within(struct thread *thread, uint64_t usec)
{
    uint64_t until = clock_usec() + usec;
    while (thread->running && pthread_tryjoin_np(thread->id, NULL) == EBUSY) {
        if (clock_usec() >= until)
            return false;
        sleep_usec(100);
    }
    if (thread->running)
        forget_ended(thread);
    return true;
}

void thread_join_sleeper(struct thread *thread, _Atomic uint32_t *word)
{
    if (!thread->running)
        return;
    do {
        futex_wake_all(word);
        sleep_usec(100);
    } while (pthread_tryjoin_np(thread->id, NULL) == EBUSY);
    forget_ended(thread);
}

pid_t thread_own_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

#define RSEQ_BYTES 32u /* as glibc registers it */

void thread_end_rseq(void)
{
    if (__rseq_size)
        syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, RSEQ_BYTES,
                RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
}

/* ---- CPUs ------------------------------------------------------------------------ */

static _Atomic bool placing_is_off;

void thread_allow_placing(bool allowed)
{
    atomic_store_explicit(&placing_is_off, !allowed, memory_order_relaxed);
}

bool thread_may_place(void)
{
    return !atomic_load_explicit(&placing_is_off, memory_order_relaxed);
}

#define BITS_PER_WORD (8 * sizeof(unsigned long))
uint32_t thread_own_cpu(void)
{
    return (uint32_t)sched_getcpu();
}

void thread_get_cpus(pid_t id, struct thread_cpus *cpus)
{
    memset(cpus, 0, sizeof(*cpus));
    syscall(SYS_sched_getaffinity, id, sizeof(cpus->mask), cpus->mask);
}

void thread_set_cpus(pid_t id, const struct thread_cpus *cpus)
{
    if (thread_may_place())
        syscall(SYS_sched_setaffinity, id, sizeof(cpus->mask), cpus->mask);
}

void thread_only_cpu(struct thread_cpus *cpus, uint32_t cpu)
{
    memset(cpus, 0, sizeof(*cpus));
    if (cpu < 8 * sizeof(cpus->mask))
        cpus->mask[cpu / BITS_PER_WORD] = 1UL << (cpu % BITS_PER_WORD);
}

void thread_stay_on(pid_t id, uint32_t cpu)
{
    struct thread_cpus only;
    thread_only_cpu(&only, cpu);
    if (thread_count_cpus(&only))
        thread_set_cpus(id, &only);
}

void thread_leave_out_cpu(struct thread_cpus *cpus, uint32_t cpu)
{
    if (cpu < 8 * sizeof(cpus->mask))
        cpus->mask[cpu / BITS_PER_WORD] &= ~(1UL << (cpu % BITS_PER_WORD));
}

unsigned thread_count_cpus(const struct thread_cpus *cpus)
{
    unsigned count = 0;
    for (size_t i = 0; i < sizeof(cpus->mask) / sizeof(cpus->mask[0]); i++)
        count += (unsigned)__builtin_popcountl(cpus->mask[i]);
    return count;
}

void thread_stay_off(const struct thread_cpus *allowed, uint32_t cpu)
{
    struct thread_cpus rest = *allowed;
    thread_leave_out_cpu(&rest, cpu);
    if (thread_count_cpus(&rest))
        thread_set_cpus(0, &rest);
}

void thread_set_urgent(bool urgent)
{
    if (!thread_may_place())
        return;
    struct sched_param lowest = {.sched_priority = urgent ? 1 : 0};
    /* By thread, not by process as glibc's setpriority() reads. */
    int nice_by = urgent ? -10 : 10;
    if (syscall(SYS_sched_setscheduler, 0, urgent ? SCHED_FIFO : SCHED_OTHER, &lowest) ==
        0)
        return;
    int now = getpriority(PRIO_PROCESS, (id_t)thread_own_id());
    setpriority(PRIO_PROCESS, (id_t)thread_own_id(), now + nice_by);
}

bool thread_set_idle(void)
{
    struct sched_param lowest = {.sched_priority = 0};
    return thread_may_place() &&
           syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &lowest) == 0;
}

void thread_end_idle(pid_t id)
{
    struct sched_param lowest = {.sched_priority = 0};
    if (thread_may_place())
        syscall(SYS_sched_setscheduler, id, SCHED_OTHER, &lowest);
}

/* 0 when there is no such clock. */
static uint64_t read_clock(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        return 0;
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

uint64_t thread_cpu_usec(pid_t id)
{
    /* How the kernel numbers the clock of a thread: no function of the C library
     * makes it from a thread's id. */
    return read_clock((clockid_t)((~(unsigned)id << 3) | 6u)) / 1000;
}

int thread_open_delay(pid_t id)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", (int)id);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    return file < 0 ? -errno : file;
}

uint64_t thread_delay_nsec(int file)
{
    char text[96];
    ssize_t length = file < 0 ? -1 : pread(file, text, sizeof(text) - 1, 0);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    /* Nanoseconds on a CPU, nanoseconds waiting for one, how often. */
    const char *second = strchr(text, ' ');
    return second ? strtoull(second, NULL, 10) : 0;
}

/* ---- waiting --------------------------------------------------------------------- */

int futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_msec)
{
    struct timespec timeout = {
        .tv_sec = timeout_msec / 1000,
        .tv_nsec = (timeout_msec % 1000) * 1000000L,
    };
    long result = syscall(SYS_futex, word, FUTEX_WAIT, expected,
                          timeout_msec < 0 ? NULL : &timeout, NULL, 0);
    return result == 0 ? 0 : -errno;
}

void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

/* So often a lock is looked at that gives way. */
#define LOOKS_AT_BROKEN 100
static _Atomic bool locks_give_way;

void short_locks_give_way(bool give_way)
{
    atomic_store_explicit(&locks_give_way, give_way, memory_order_relaxed);
    CONTRACT_SUSPEND(give_way);
}

bool short_lock_try(struct short_lock *lock)
{
    LOCK_WANTED(RANK_SHORT);
    if (atomic_exchange_explicit(&lock->held, 1, memory_order_acquire))
        return false;
    LOCK_TAKEN(lock, RANK_SHORT);
    return true;
}

/* Sleeping lets a holder run that shares this CPU. */
void short_lock_take(struct short_lock *lock)
{
    for (unsigned looks = 0; !short_lock_try(lock); looks++) {
        if (looks >= LOOKS_AT_BROKEN &&
            atomic_load_explicit(&locks_give_way, memory_order_relaxed))
            return;
        sleep_usec(1);
    }
}

int short_lock_take_within(struct short_lock *lock, uint64_t usec)
{
    uint64_t until = clock_usec() + usec;
    while (!short_lock_try(lock)) {
        if (clock_usec() >= until)
            return -EBUSY;
        sleep_usec(1);
    }
    return 0;
}

void short_lock_release(struct short_lock *lock)
{
    LOCK_RELEASED(lock);
    atomic_store_explicit(&lock->held, 0, memory_order_release);
}

uint64_t clock_usec(void)
{
    return clock_nsec() / 1000;
}

uint64_t clock_nsec(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t clock_wall_msec(void)
{
    return (int64_t)(read_clock(CLOCK_REALTIME) / 1000000);
}

void sleep_usec(uint64_t usec)
{
    struct timespec duration = {
        .tv_sec = (time_t)(usec / 1000000),
        .tv_nsec = (long)(usec % 1000000) * 1000,
    };
    while (nanosleep(&duration, &duration) != 0 && errno == EINTR)
        ;
}
