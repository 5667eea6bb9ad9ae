#include "memory/vacant.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/pages.h"

#define RANGES_MAX 16384
/* A region more costs the freeze about a microsecond, a page less 0.1 to 0.2. */
#define WORTH_BYTES (UINT64_C(128) << 10)
#define WORTH_MAX   64

/* All of it, the lock too, in memory that is never protected (kernel/memory.h). */
struct vacant {
    _Atomic uint32_t lock;
    bool frozen;
    struct region_set set;
    struct region storage[RANGES_MAX];
};

static struct vacant *vacant;

static void lock(void)
{
    while (atomic_exchange_explicit(&vacant->lock, 1, memory_order_acquire))
        sleep_usec(1);
}

static void unlock(void)
{
    atomic_store_explicit(&vacant->lock, 0, memory_order_release);
}

int vacant_create(void)
{
    vacant = memory_map(sizeof(*vacant));
    if (!vacant)
        return -ENOMEM;
    regions_init(&vacant->set, vacant->storage, RANGES_MAX);
    return 0;
}

void vacant_destroy(void)
{
    if (vacant)
        memory_unmap(vacant, sizeof(*vacant));
    vacant = NULL;
}

static bool give_up_some(uint64_t start, uint64_t end)
{
    lock();
    bool given_up = !vacant->frozen && advice_give((void *)(uintptr_t)start, end - start,
                                                   MADV_DONTNEED) == 0;
    if (given_up)
        regions_add(&vacant->set, start, end);
    unlock();
    return given_up;
}

bool vacant_give_up(uint64_t start, uint64_t end)
{
    /* By pieces: a freeze waits for the lock. */
    for (uint64_t at = start, next; vacant && at < end; at = next) {
        next = at + HUGE_PAGE_BYTES < end ? at + HUGE_PAGE_BYTES : end;
        if (!give_up_some(at, next)) {
            vacant_take_back(start, at);
            return false;
        }
    }
    return vacant != NULL;
}

void vacant_take_back(uint64_t start, uint64_t end)
{
    if (!vacant || fault_point(FAULT_STALE_VACANT))
        return;
    lock();
    /* No room for two halves: forget both, they will be protected. */
    if (regions_remove(&vacant->set, start, end) != 0) {
        const struct region *around = regions_find(&vacant->set, start);
        if (around)
            regions_remove(&vacant->set, around->start, around->end);
    }
    unlock();
}

void vacant_forked(void)
{
    vacant = NULL;
}

bool vacant_overlaps(uint64_t start, uint64_t end)
{
    if (!vacant)
        return false;
    lock();
    const struct region *region = regions_at_or_after(&vacant->set, start);
    bool overlaps = region && region->start < end;
    unlock();
    return overlaps;
}

uint64_t vacant_bytes(void)
{
    if (!vacant)
        return 0;
    lock();
    uint64_t bytes = regions_bytes(&vacant->set);
    unlock();
    return bytes;
}

static int leave_out(struct region_set *set)
{
    int error = 0;
    size_t left_out = 0;
    for (size_t i = 0; i < vacant->set.count && left_out < WORTH_MAX && !error; i++) {
        const struct region *region = &vacant->set.regions[i];
        if (region->end - region->start < WORTH_BYTES)
            continue;
        error = regions_remove(set, region->start, region->end);
        left_out++;
    }
    return error;
}

int vacant_freeze(struct region_set *set)
{
    if (!vacant)
        return 0;
    lock();
    vacant->frozen = true;
    int error = leave_out(set);
    unlock();
    return error;
}

void vacant_thaw(void)
{
    if (!vacant)
        return;
    lock();
    vacant->frozen = false;
    unlock();
}
