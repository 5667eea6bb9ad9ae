/* A thread that shares everything with the one that starts it, thread-local storage too:
 * its body makes bare system calls and nothing else. For a process that has no room for
 * another. */
#ifndef RDB_UFFD_KERNEL_BARE_THREAD_H
#define RDB_UFFD_KERNEL_BARE_THREAD_H

#include <stddef.h>

/* 0 or -errno. The body must not return. */
int bare_thread_start(void *stack, size_t stack_bytes, int (*body)(void *),
                      void *argument);

/* As the kernel answers: -errno on failure, and errno stays as it is. */
static inline long bare_call(long number, long first, long second, long third)
{
#if defined(__x86_64__)
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "0"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#else
#error "no bare system calls for this machine"
#endif
}

#endif
