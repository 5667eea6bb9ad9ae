#include "kernel/cpu_quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#include "kernel/control_group.h"

/* Numbers at the start of a file; returns how many there were. "max" is none. */
static int read_numbers(const char *directory, const char *file, long long *first,
                        long long *second)
{
    char text[64];
    if (!control_group_read(directory, file, text, sizeof(text)))
        return 0;
    int found = sscanf(text, "%lld %lld", first, second);
    return found < 0 ? 0 : found;
}

static unsigned percent(long long quota, long long period)
{
    if (quota <= 0 || period <= 0 || quota > LLONG_MAX / 100)
        return 0;
    long long result = quota * 100 / period;
    return result < 1 ? 1 : result > UINT_MAX ? UINT_MAX : (unsigned)result;
}

/* Of one group; 0: none. */
static unsigned limit_of(const char *directory, bool unified)
{
    long long quota, period, ignored;
    if (unified)
        return read_numbers(directory, "cpu.max", &quota, &period) == 2
                   ? percent(quota, period)
                   : 0;
    if (read_numbers(directory, "cpu.cfs_quota_us", &quota, &ignored) < 1 ||
        read_numbers(directory, "cpu.cfs_period_us", &period, &ignored) < 1)
        return 0;
    return percent(quota, period);
}

static void take_least(const char *directory, bool unified, void *context)
{
    unsigned *least = context;
    unsigned limit = limit_of(directory, unified);
    if (limit && (!*least || limit < *least))
        *least = limit;
}

unsigned cpu_quota_percent(const char *root)
{
    unsigned least = 0;
    control_groups_visit(root, "cpu", take_least, &least);
    return least;
}
