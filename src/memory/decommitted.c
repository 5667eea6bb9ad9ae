#include "memory/decommitted.h"

#include <errno.h>
#include <sys/mman.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/pages.h"

#define RANGES_MAX 16384
/* A region more costs the freeze about a microsecond, a page less 0.1 to 0.2. */
#define WORTH_BYTES (UINT64_C(128) << 10)
#define WORTH_MAX   64
/* Two mappings more for each that a crash report is not to see, of 65,530. */
#define HIDDEN_BYTES (UINT64_C(16) << 10)

/* All of it, the lock too, in memory that is never protected (kernel/memory.h). */
struct decommitted {
    struct short_lock lock;
    bool frozen;
    struct region_set set;
    struct region storage[RANGES_MAX];
};

static struct decommitted *decommitted;

static void forget_all(void)
{
    short_lock_take(&decommitted->lock);
    regions_init(&decommitted->set, decommitted->storage, RANGES_MAX);
    decommitted->frozen = false;
    short_lock_release(&decommitted->lock);
}

int decommitted_create(void)
{
    if (!decommitted)
        decommitted = memory_map(sizeof(*decommitted));
    if (!decommitted)
        return -ENOMEM;
    forget_all();
    return 0;
}

/* The memory stays: a thread of the allocator may be in a hook. */
void decommitted_destroy(void)
{
    if (decommitted)
        forget_all();
}

static bool give_up_some(uint64_t start, uint64_t end)
{
    short_lock_take(&decommitted->lock);
    bool given_up = !decommitted->frozen && advice_give((void *)(uintptr_t)start,
                                                        end - start, MADV_DONTNEED) == 0;
    if (given_up)
        regions_add(&decommitted->set, start, end);
    short_lock_release(&decommitted->lock);
    return given_up;
}

bool decommitted_give_up(uint64_t start, uint64_t end)
{
    /* By pieces: a freeze waits for the lock. */
    for (uint64_t at = start, next; decommitted && at < end; at = next) {
        next = at + HUGE_PAGE_BYTES < end ? at + HUGE_PAGE_BYTES : end;
        if (!give_up_some(at, next)) {
            decommitted_take_back(start, at);
            return false;
        }
    }
    return decommitted != NULL;
}

void decommitted_take_back(uint64_t start, uint64_t end)
{
    if (!decommitted || fault_point(FAULT_STALE_DECOMMITTED))
        return;
    short_lock_take(&decommitted->lock);
    /* No room for two halves: forget both, they will be protected. */
    if (regions_remove(&decommitted->set, start, end) != 0) {
        const struct region *around = regions_find(&decommitted->set, start);
        if (around)
            regions_remove(&decommitted->set, around->start, around->end);
    }
    short_lock_release(&decommitted->lock);
}

void decommitted_abandon(void)
{
    if (!decommitted || !short_lock_try(&decommitted->lock))
        return;
    for (size_t i = 0; i < decommitted->set.count; i++) {
        const struct region *region = &decommitted->set.regions[i];
        uint64_t bytes = region->end - region->start;
        if (bytes >= HIDDEN_BYTES)
            memory_replace((void *)(uintptr_t)region->start, bytes);
    }
    short_lock_release(&decommitted->lock);
}

void decommitted_forked(void)
{
    decommitted = NULL;
}

bool decommitted_overlaps(uint64_t start, uint64_t end)
{
    if (!decommitted)
        return false;
    short_lock_take(&decommitted->lock);
    const struct region *region = regions_at_or_after(&decommitted->set, start);
    bool overlaps = region && region->start < end;
    short_lock_release(&decommitted->lock);
    return overlaps;
}

static int leave_out(struct region_set *set)
{
    int error = 0;
    size_t left_out = 0;
    for (size_t i = 0; i < decommitted->set.count && left_out < WORTH_MAX && !error;
         i++) {
        const struct region *region = &decommitted->set.regions[i];
        if (region->end - region->start < WORTH_BYTES)
            continue;
        error = regions_remove(set, region->start, region->end);
        left_out++;
    }
    return error;
}

int decommitted_freeze(struct region_set *set)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    if (!decommitted)
        return 0;
    short_lock_take(&decommitted->lock);
    decommitted->frozen = true;
    int error = leave_out(set);
    short_lock_release(&decommitted->lock);
    return error;
}

void decommitted_thaw(void)
{
    if (!decommitted)
        return;
    short_lock_take(&decommitted->lock);
    decommitted->frozen = false;
    short_lock_release(&decommitted->lock);
}
