/* The clock, and the one way out when something is wrong: a benchmark that goes on after an error measures nonsense. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdint.h>
#include <time.h>

enum { MAX_SAVES = 32 };

#define NSEC_PER_SEC  1000000000ull
#define NSEC_PER_MSEC 1000000ull
#define NSEC_PER_USEC 1000ull

static inline uint64_t clock_nsec(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NSEC_PER_SEC + (uint64_t)now.tv_nsec;
}

/* Prints the message to standard error and exits with 1. */
void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

#endif
