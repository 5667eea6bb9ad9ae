#include "kernel/merging.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "kernel/fault_points.h"
#include "kernel/process.h"

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#define PR_GET_MEMORY_MERGE 68
#endif
#define PAGES_TO_LIFT_MAX 16384L /* 64 MB */

/* Linux 6.1 tells how many pages the kernel has looked at, 6.16 whether any mapping is
 * offered. */
static bool has_mergeable_mappings(void)
{
    static const char path[] = "/proc/self/ksm_stat";
    char rest[64];
    if (process_find_line(path, "ksm_mergeable:", rest, sizeof(rest)))
        return strstr(rest, "yes") != NULL;
    return process_find_line(path, "ksm_rmap_items ", rest, sizeof(rest)) &&
           atol(rest) > 0;
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
    char pages[32];
    return process_find_line("/proc/self/ksm_merging_pages", "", pages, sizeof(pages))
               ? atol(pages)
               : 0;
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
