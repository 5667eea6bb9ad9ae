/* Little address space left, whatever the process has taken: a sanitizer's takes terabytes. */
#ifndef ADDRESS_SPACE_H
#define ADDRESS_SPACE_H

#include <stdint.h>
#include <stdio.h>
#include <sys/resource.h>

/* No more than this beside what the process has. What was the limit before: to be set again. */
static inline struct rlimit leave_address_space(uint64_t bytes)
{
    struct rlimit before;
    unsigned long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu", &pages), 1);
    fclose(file);
    assert_int_equal(getrlimit(RLIMIT_AS, &before), 0);
    struct rlimit within = {pages * 4096 + bytes, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_AS, &within), 0);
    return before;
}

#endif
