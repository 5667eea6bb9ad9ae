#include "kernel/fault_points.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

_Atomic uint64_t fault_points_on;

#define FAULT_NAME(name, text) text,
static const char *const names[] = {FAULT_POINTS(FAULT_NAME)};
#undef FAULT_NAME

bool fault_point_set(const char *name, bool on)
{
    for (unsigned i = 0; i < FAULT_POINT_COUNT; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        if (on)
            atomic_fetch_or_explicit(&fault_points_on, UINT64_C(1) << i,
                                     memory_order_relaxed);
        else
            atomic_fetch_and_explicit(&fault_points_on, ~(UINT64_C(1) << i),
                                      memory_order_relaxed);
        return true;
    }
    return false;
}

void fault_point_hang(enum fault_point_id point)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    while (fault_point(point))
        nanosleep(&nap, NULL);
}

bool fault_points_init(void)
{
    atomic_store_explicit(&fault_points_on, 0, memory_order_relaxed);
    const char *list = getenv("RDB_UFFD_FAULT");
    if (!list)
        return false;
    char copy[256];
    strncpy(copy, list, sizeof(copy) - 1);
    copy[sizeof(copy) - 1] = '\0';
    char *rest = copy;
    for (char *name; (name = strsep(&rest, ","));)
        fault_point_set(name, true);
    return true;
}
