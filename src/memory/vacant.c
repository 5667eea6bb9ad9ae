#include "memory/vacant.h"

#include <errno.h>
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
    struct short_lock lock;
    bool frozen;
    struct region_set set;
    struct region storage[RANGES_MAX];
};

static struct vacant *vacant;

static void forget_all(void)
{
    short_lock_take(&vacant->lock);
    regions_init(&vacant->set, vacant->storage, RANGES_MAX);
    vacant->frozen = false;
    short_lock_release(&vacant->lock);
}

int vacant_create(void)
{
    if (!vacant)
        vacant = memory_map(sizeof(*vacant));
    if (!vacant)
        return -ENOMEM;
    forget_all();
    return 0;
}

/* The memory stays: a thread of the allocator may be in a hook. */
void vacant_destroy(void)
{
    if (vacant)
        forget_all();
}

static bool give_up_some(uint64_t start, uint64_t end)
{
    short_lock_take(&vacant->lock);
    bool given_up = !vacant->frozen && advice_give((void *)(uintptr_t)start, end - start,
                                                   MADV_DONTNEED) == 0;
    if (given_up)
        regions_add(&vacant->set, start, end);
    short_lock_release(&vacant->lock);
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
    short_lock_take(&vacant->lock);
    /* No room for two halves: forget both, they will be protected. */
    if (regions_remove(&vacant->set, start, end) != 0) {
        const struct region *around = regions_find(&vacant->set, start);
        if (around)
            regions_remove(&vacant->set, around->start, around->end);
    }
    short_lock_release(&vacant->lock);
}

void vacant_forked(void)
{
    vacant = NULL;
}

bool vacant_overlaps(uint64_t start, uint64_t end)
{
    if (!vacant)
        return false;
    short_lock_take(&vacant->lock);
    const struct region *region = regions_at_or_after(&vacant->set, start);
    bool overlaps = region && region->start < end;
    short_lock_release(&vacant->lock);
    return overlaps;
}

uint64_t vacant_bytes(void)
{
    if (!vacant)
        return 0;
    short_lock_take(&vacant->lock);
    uint64_t bytes = regions_bytes(&vacant->set);
    short_lock_release(&vacant->lock);
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
    short_lock_take(&vacant->lock);
    vacant->frozen = true;
    int error = leave_out(set);
    short_lock_release(&vacant->lock);
    return error;
}

void vacant_thaw(void)
{
    if (!vacant)
        return;
    short_lock_take(&vacant->lock);
    vacant->frozen = false;
    short_lock_release(&vacant->lock);
}
