#include "kernel/cpu_quota.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINE_BYTES 512

/* Numbers in the first line of a file; returns how many there were. "max" is none. */
static int read_numbers(const char *path, long long *first, long long *second)
{
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    int found = fscanf(file, "%lld %lld", first, second);
    fclose(file);
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
    char path[PATH_MAX];
    long long quota, period, ignored;
    if (unified) {
        snprintf(path, sizeof(path), "%s/cpu.max", directory);
        return read_numbers(path, &quota, &period) == 2 ? percent(quota, period) : 0;
    }
    snprintf(path, sizeof(path), "%s/cpu.cfs_quota_us", directory);
    if (read_numbers(path, &quota, &ignored) < 1)
        return 0;
    snprintf(path, sizeof(path), "%s/cpu.cfs_period_us", directory);
    return read_numbers(path, &period, &ignored) < 1 ? 0 : percent(quota, period);
}

/* The group itself and those above it. In a container the upper ones, or all but the
 * topmost, may not be there to be seen. */
static unsigned limit_upwards(const char *root, char *group, bool unified)
{
    unsigned least = 0;
    for (;;) {
        char directory[PATH_MAX - 64];
        snprintf(directory, sizeof(directory), "%s/sys/fs/cgroup%s%s", root,
                 unified ? "" : "/cpu", group);
        unsigned limit = limit_of(directory, unified);
        if (limit && (!least || limit < least))
            least = limit;
        char *last = strrchr(group, '/');
        if (!last)
            return least;
        *last = '\0';
    }
}

/* "4:cpu,cpuacct:/group", or "0::/group" in the unified hierarchy. */
static unsigned limit_by_line(const char *root, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return 0;
    *group++ = '\0';
    group[strcspn(group, "\n")] = '\0';
    if (!controllers[1])
        return limit_upwards(root, group, true);
    for (char *name = strtok(controllers + 1, ","); name; name = strtok(NULL, ","))
        if (strcmp(name, "cpu") == 0)
            return limit_upwards(root, group, false);
    return 0;
}

unsigned cpu_quota_percent(const char *root)
{
    char path[PATH_MAX], line[LINE_BYTES];
    unsigned least = 0;
    snprintf(path, sizeof(path), "%s/proc/self/cgroup", root);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    while (fgets(line, sizeof(line), file)) {
        unsigned limit = limit_by_line(root, line);
        if (limit && (!least || limit < least))
            least = limit;
    }
    fclose(file);
    return least;
}
