/* Threads whose stack and thread-local storage are never write-protected, and
 * the ways in which they wait for each other: futexes in shared memory and
 * eventfds, no lock of glibc's. */
#ifndef RDB_UFFD_KERNEL_THREAD_H
#define RDB_UFFD_KERNEL_THREAD_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct thread {
    pthread_t id;
    void *stack;
    size_t stack_bytes;
    bool running;
};

/* Starts `body` with all signals blocked, on a stack of its own made with
 * memory_map(): glibc puts the thread's TLS on it too. `name`: at most 15
 * characters. 0 or -errno. */
int thread_start(struct thread *thread, const char *name, size_t stack_bytes,
                 void *(*body)(void *), void *argument);
/* Waits for the end of `body` and frees the stack. */
void thread_join(struct thread *thread);

pid_t thread_own_id(void);

/* Where the kernel writes, at any time, the number of the CPU that the calling
 * thread runs on (its rseq area); NULL when this C library has none. Valid as
 * long as the thread; any thread may read it. */
const volatile uint32_t *thread_cpu_word(void);

/* Which CPUs a thread may run on, as it is on entry and to be put back. */
struct thread_cpus {
    unsigned long mask[16]; /* 1024 CPUs */
};
void thread_get_cpus(struct thread_cpus *cpus);
void thread_set_cpus(const struct thread_cpus *cpus);
/* Moves the calling thread to `cpu` alone, or to all of `allowed` but `cpu`
 * (when that leaves any). */
void thread_stay_on(uint32_t cpu);
void thread_stay_off(const struct thread_cpus *allowed, uint32_t cpu);

/* Sleeps while `*word == expected`, at most `timeout_msec` (< 0: for ever).
 * 0, -EAGAIN (the word differs), -ETIMEDOUT or -EINTR. */
int futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_msec);
void futex_wake_all(_Atomic uint32_t *word);

/* Microseconds of the monotonic clock. */
uint64_t clock_usec(void);
void sleep_usec(uint64_t usec);

#endif
