#include "kernel/inherited_affinity.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* proc(5): starttime is field 22; the second, in brackets, may hold blanks. */
#define FIELDS_BEHIND_NAME 20
#define PASSES_MAX         3

uint64_t inherited_affinity_now(void)
{
    struct timespec now;
    uint64_t ticks = (uint64_t)sysconf(_SC_CLK_TCK);
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * ticks +
           (uint64_t)now.tv_nsec * ticks / UINT64_C(1000000000);
}

/* 0: it is gone, or does not say. */
static uint64_t began_at(const char *thread)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/self/task/%.20s/stat", thread);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t got = file < 0 ? -1 : read(file, text, sizeof(text) - 1);
    if (file >= 0)
        close(file);
    if (got <= 0)
        return 0;
    text[got] = '\0';
    const char *at = strrchr(text, ')');
    for (int fields = FIELDS_BEHIND_NAME; at && fields > 0; fields--)
        at = (at = strchr(at, ' ')) ? at + 1 : NULL;
    return at ? strtoull(at, NULL, 10) : 0;
}

static bool is_kept_to(pid_t id, uint32_t cpu)
{
    struct thread_cpus own;
    thread_get_cpus(id, &own);
    if (thread_count_cpus(&own) != 1)
        return false;
    thread_leave_out_cpu(&own, cpu);
    return thread_count_cpus(&own) == 0;
}

static unsigned release_some(DIR *threads, uint64_t since, uint32_t cpu,
                             const struct thread_cpus *cpus)
{
    struct dirent *entry;
    unsigned released = 0;
    while ((entry = readdir(threads))) {
        pid_t id = (pid_t)strtol(entry->d_name, NULL, 10);
        if (id <= 0 || !is_kept_to(id, cpu) || began_at(entry->d_name) < since)
            continue;
        thread_set_cpus(id, cpus);
        released++;
    }
    return released;
}

void inherited_affinity_undo(uint64_t since, uint32_t cpu, const struct thread_cpus *cpus)
{
    if (!thread_may_place() || thread_count_cpus(cpus) < 2)
        return;
    DIR *threads = opendir("/proc/self/task");
    /* Once more when there was one: it may have begun others. */
    for (int i = 0; threads && i < PASSES_MAX; i++) {
        if (release_some(threads, since, cpu, cpus) == 0)
            break;
        rewinddir(threads);
    }
    if (threads)
        closedir(threads);
}
