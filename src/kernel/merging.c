#include "kernel/merging.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>

#include "kernel/fault_points.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#define PAGES_TO_LIFT_MAX 16384L /* 64 MB */

static void close_file(FILE *file)
{
    if (file)
        fclose(file);
}

/* Linux 6.1 tells how many pages the kernel has looked at, 6.16 whether any mapping is
 * offered. */
static bool has_mergeable_mappings(void)
{
    FILE *file = fopen("/proc/self/ksm_stat", "re");
    char line[128];
    bool offered = false;
    while (file && fgets(line, sizeof(line), file)) {
        long looked_at;
        if (sscanf(line, "ksm_rmap_items %ld", &looked_at) == 1)
            offered = looked_at > 0;
        else if (strncmp(line, "ksm_mergeable:", 14) == 0)
            offered = strstr(line, "yes") != NULL;
    }
    close_file(file);
    return offered;
}

enum merging merging_find(void)
{
    if (fault_point(FAULT_TRUST_MERGING))
        return MERGING_NONE;
    if (prctl(PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1)
        return MERGING_PROCESS;
    return has_mergeable_mappings() ? MERGING_MAPPINGS : MERGING_NONE;
}

static long merged_pages(void)
{
    FILE *file = fopen("/proc/self/ksm_merging_pages", "re");
    long pages = 0;
    if (file && fscanf(file, "%ld", &pages) != 1)
        pages = 0;
    close_file(file);
    return pages;
}

int merging_lift(void)
{
    if (merged_pages() > PAGES_TO_LIFT_MAX)
        return -EBUSY;
    return prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) == 0 ? 0 : -errno;
}

void merging_restore(void)
{
    prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
}
