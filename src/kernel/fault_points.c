#include "kernel/fault_points.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

_Atomic uint64_t fault_points_on[FAULT_POINT_COUNT / 64 + 1];

#define FAULT_NAME(name, text) text,
static const char *const names[] = {FAULT_POINTS(FAULT_NAME)};
#undef FAULT_NAME

bool fault_point_set(const char *name, bool on)
{
    for (unsigned i = 0; i < FAULT_POINT_COUNT; i++) {
        if (strcmp(names[i], name) != 0)
            continue;
        if (on)
            atomic_fetch_or_explicit(&fault_points_on[i / 64], UINT64_C(1) << i % 64,
                                     memory_order_relaxed);
        else
            atomic_fetch_and_explicit(&fault_points_on[i / 64], ~(UINT64_C(1) << i % 64),
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

/* On page 0. The compiler must not know it. */
static volatile uintptr_t nowhere = 4080;

const void *fault_point_nowhere(void)
{
    return (const void *)nowhere;
}

/* Of a file that is shorter. */
const void *fault_point_lost_page(void)
{
    static _Atomic(const char *) lost;
    const char *page = atomic_load_explicit(&lost, memory_order_acquire);
    if (page)
        return page;
    int file = memfd_create("uffd-lost", MFD_CLOEXEC);
    page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    atomic_store_explicit(&lost, page, memory_order_release);
    return page;
}

void fault_point_crash(enum fault_point_id point)
{
    if (fault_point(point))
        *(volatile char *)nowhere = 1;
}

int fault_points_init(void)
{
    for (size_t i = 0; i < sizeof(fault_points_on) / sizeof(*fault_points_on); i++)
        atomic_store_explicit(&fault_points_on[i], 0, memory_order_relaxed);
    const char *list = getenv("RDB_UFFD_FAULT");
    if (!list)
        return 0;
    char copy[256];
    strncpy(copy, list, sizeof(copy) - 1);
    copy[sizeof(copy) - 1] = '\0';
    char *rest = copy;
    for (char *name; (name = strsep(&rest, ","));)
        if (*name && !fault_point_set(name, true))
            return -EINVAL;
    return 1;
}
