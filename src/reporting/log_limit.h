/* Warnings that may come again and again: so many a minute, the rest is counted. */
#ifndef RDB_UFFD_LOG_LIMIT_H
#define RDB_UFFD_LOG_LIMIT_H

#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_LINES UINT64_C(10)
#define LOG_LIMIT_USEC  UINT64_C(60000000)

/* All zero at first. */
struct log_limit {
    uint64_t began_usec;
    uint64_t lines;    /* asked for since then */
    uint64_t left_out; /* in the time before, not yet told */
};

/* Whether a line may be written at `now_usec` (monotonic). */
bool log_limit_pass(struct log_limit *limit, uint64_t now_usec);
/* How many were left out in a time that is over, once; 0 mostly. */
uint64_t log_limit_left_out(struct log_limit *limit, uint64_t now_usec);

#endif
