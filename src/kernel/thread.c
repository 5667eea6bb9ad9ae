#include "kernel/thread.h"

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
