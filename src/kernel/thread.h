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

/* Starts `body` with all signals blocked but those that end the server
 * (kernel/fatal_signals.h), on a stack of its own made with memory_map_inherited(): glibc
 * puts the thread's TLS on it too. It is larger than asked for, by what the server's crash
 * report needs. `name`: at most 15 characters. 0 or -errno. */
int thread_start(struct thread *thread, const char *name, size_t stack_bytes,
                 void *(*body)(void *), void *argument);
/* Waits for the end of `body` and frees the stack. */
void thread_join(struct thread *thread);
/* The same, for at most so many microseconds. False: it has not ended. */
bool thread_join_within(struct thread *thread, uint64_t usec);
/* The same for a thread that sleeps on `word` without a timeout and looks whether it shall
 * end before it sleeps: it is woken until it has ended. One wake might come while it is
 * on its way to sleep (begun just now; or stopped with the process, and continued). */
void thread_join_sleeper(struct thread *thread, _Atomic uint32_t *word);

/* Whether the caller was started by thread_start(). Async-signal-safe. */
bool thread_is_ours(void);
pid_t thread_own_id(void);
/* Ends the calling thread's restartable sequences (rseq), for good. The kernel looks at
 * them whenever it takes the thread its CPU: who writes to all memory, thread-local storage
 * included, would be ended for it. Async-signal-safe. */
void thread_end_rseq(void);

/* Which CPUs a thread may run on. `id`: of a thread of this process, 0 for the
 * calling one. */
struct thread_cpus {
    unsigned long mask[16]; /* 1024 CPUs */
};
void thread_get_cpus(pid_t id, struct thread_cpus *cpus);
void thread_set_cpus(pid_t id, const struct thread_cpus *cpus);
unsigned thread_count_cpus(const struct thread_cpus *cpus);
uint32_t thread_own_cpu(void);
void thread_only_cpu(struct thread_cpus *cpus, uint32_t cpu);
void thread_leave_out_cpu(struct thread_cpus *cpus, uint32_t cpu);
/* Moves the thread to `cpu` alone, or the calling one to all of `allowed` but `cpu`
 * (when that leaves any). */
void thread_stay_on(pid_t id, uint32_t cpu);
void thread_stay_off(const struct thread_cpus *allowed, uint32_t cpu);

/* Makes the calling thread run before others, as far as it is permitted (real
 * time, else a better nice value, else nothing), or puts it back. */
void thread_set_urgent(bool urgent);
/* Makes the calling thread run only when nobody else wants its CPU. False if it is
 * not so. */
bool thread_set_idle(void);
/* Ends that for a thread of this process, if it is permitted: somebody waits for it. */
void thread_end_idle(pid_t id);
/* Without permission all that places or prioritises does nothing: a sandbox may end
 * the process for it (kernel/sandbox.h). */
void thread_allow_placing(bool allowed);
bool thread_may_place(void);

/* CPU time that a thread of this process (0: the calling one) has used, microseconds; 0
 * when there is no such thread. */
uint64_t thread_cpu_usec(pid_t id);

/* How long a thread of this process has been ready to run and had no CPU, nanoseconds: to
 * be opened once (-errno: the kernel does not count it) and closed by close(). */
int thread_open_delay(pid_t id);
uint64_t thread_delay_nsec(int file);

/* Sleeps while `*word == expected`, at most `timeout_msec` (< 0: for ever).
 * 0, -EAGAIN (the word differs), -ETIMEDOUT or -EINTR. */
int futex_wait(_Atomic uint32_t *word, uint32_t expected, int timeout_msec);
void futex_wake_all(_Atomic uint32_t *word);

/* A lock for what takes microseconds; that of host/deferred_free.h takes longer. Zeroed
 * memory is a free one; it must lie where nothing is ever protected.
 *
 * Ranks: who holds one of these may take what stands below it, nothing else. All locks,
 * and what is done without: docs/THREADS.md.
 *
 *   1 heap_lock(), memory/heap.h
 *   2 the allocator's own locks: it calls the guard and the hooks with them held
 *   3 a short_lock; never two, so they need no order among themselves
 *   4 a request to the fault server, which itself takes no lock
 *
 * So the holder of a short_lock does not allocate. Should he fault, on a stack that is
 * taken for heap, he is served: a freeze that waits for one does not wait for a page
 * that stays protected. */
struct short_lock {
    _Atomic uint32_t held;
};
void short_lock_take(struct short_lock *lock);
bool short_lock_try(struct short_lock *lock);
/* 0, or -EBUSY after so long. */
int short_lock_take_within(struct short_lock *lock, uint64_t usec);
/* So long the main thread waits for who has a lock, or not at all if it has just waited
 * in vain. */
#define LOCK_IN_TIME_USEC 4000000
void short_lock_release(struct short_lock *lock);

/* The server crashes, perhaps in a holder: from now on (or not any more) who finds a short
 * lock held goes on without it after some milliseconds. Async-signal-safe. */
void short_locks_give_way(bool give_way);

/* Of the monotonic clock. */
uint64_t clock_usec(void);
uint64_t clock_nsec(void);
/* Milliseconds since 1970. */
int64_t clock_wall_msec(void);
void sleep_usec(uint64_t usec);

#endif
