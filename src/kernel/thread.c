#include "kernel/thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernel/memory.h"

int thread_start(struct thread *thread, const char *name, size_t stack_bytes,
                 void *(*body)(void *), void *argument)
{
    memset(thread, 0, sizeof(*thread));
    thread->stack = memory_map(stack_bytes);
    if (!thread->stack)
        return -ENOMEM;
    thread->stack_bytes = stack_bytes;

    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstack(&attributes, thread->stack, stack_bytes);
    /* The new thread inherits the mask: the server's handlers must run on the
     * server's own threads. */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread->id, &attributes, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error) {
        memory_unmap(thread->stack, stack_bytes);
        thread->stack = NULL;
        return -error;
    }
    pthread_setname_np(thread->id, name);
    thread->running = true;
    return 0;
}

void thread_join(struct thread *thread)
{
    if (!thread->running)
        return;
    pthread_join(thread->id, NULL);
    memory_unmap(thread->stack, thread->stack_bytes);
    thread->stack = NULL;
    thread->running = false;
}

pid_t thread_own_id(void)
{
    return (pid_t)syscall(SYS_gettid);
}

/* ---- CPUs ------------------------------------------------------------------------ */

#define BITS_PER_WORD (8 * sizeof(unsigned long))
/* struct rseq: cpu_id_start, cpu_id, … */
#define RSEQ_CPU_ID 4

const volatile uint32_t *thread_cpu_word(void)
{
    /* By name: a C library before 2.35 does not have them. */
    const ptrdiff_t *offset = dlsym(RTLD_DEFAULT, "__rseq_offset");
    const unsigned *bytes = dlsym(RTLD_DEFAULT, "__rseq_size");
    if (!offset || !bytes || !*bytes)
        return NULL;
    const char *area = (const char *)__builtin_thread_pointer() + *offset;
    return (const volatile uint32_t *)(area + RSEQ_CPU_ID);
}

void thread_get_cpus(struct thread_cpus *cpus)
{
    memset(cpus, 0, sizeof(*cpus));
    syscall(SYS_sched_getaffinity, 0, sizeof(cpus->mask), cpus->mask);
}

void thread_set_cpus(const struct thread_cpus *cpus)
{
    syscall(SYS_sched_setaffinity, 0, sizeof(cpus->mask), cpus->mask);
}

void thread_stay_on(uint32_t cpu)
{
    struct thread_cpus only = {{0}};
    if (cpu >= 8 * sizeof(only.mask))
        return;
    only.mask[cpu / BITS_PER_WORD] = 1UL << (cpu % BITS_PER_WORD);
    thread_set_cpus(&only);
}

void thread_stay_off(const struct thread_cpus *allowed, uint32_t cpu)
{
    struct thread_cpus rest = *allowed;
    unsigned long any = 0;
    if (cpu >= 8 * sizeof(rest.mask))
        return;
    rest.mask[cpu / BITS_PER_WORD] &= ~(1UL << (cpu % BITS_PER_WORD));
    for (size_t i = 0; i < sizeof(rest.mask) / sizeof(rest.mask[0]); i++)
        any |= rest.mask[i];
    if (any)
        thread_set_cpus(&rest);
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

uint64_t clock_usec(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
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
