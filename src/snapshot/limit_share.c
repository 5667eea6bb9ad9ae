#include "limit_share.h"

#include "kernel/contract.h"
#include "memory/allocator.h"
#include "snapshot/eviction.h"

/* What new values take beside the old ones and the limit does not count: with what
 * is prefaulted (upkeep/upkeep.c) it stays below 64 MB. */
#define FRESH_BYTES_FREE (UINT64_C(16) << 20)

/* Where a control group leaves less than the operator's limit, that; new values have been
 * charged to it already. */
static uint64_t limit_with_room(const struct snapshot *snapshot)
{
    uint64_t ceiling =
        atomic_load_explicit(&snapshot->preserved.ceiling, memory_order_relaxed);
    uint64_t fresh = allocator_fresh_bytes();
    if (ceiling >= snapshot->limit || ceiling + fresh >= snapshot->limit)
        return snapshot->limit;
    return ceiling + fresh;
}

static void note_what_counts(struct snapshot *snapshot, uint64_t new_values)
{
    uint64_t limit = preserved_limit(&snapshot->preserved);
    if (new_values > snapshot->new_values_peak)
        snapshot->new_values_peak = new_values;
    if (limit < snapshot->limit_least)
        snapshot->limit_least = limit;
}

bool limit_share(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    allocator_measure();
    uint64_t limit = limit_with_room(snapshot);
    uint64_t free = FRESH_BYTES_FREE;
    free += limit / 16 < FRESH_BYTES_FREE ? limit / 16 : FRESH_BYTES_FREE;
    uint64_t evicted =
        atomic_load_explicit(&snapshot->evicted_bytes, memory_order_relaxed);
    bool fresh = allocator_stay_below(free + limit / 2, evicted);
    uint64_t bytes = allocator_fresh_bytes();
    uint64_t keep = free + limit / 8;
    eviction_want(snapshot, bytes > keep ? bytes - keep : 0,
                  bytes > evicted + keep + limit / 8);
    bytes = bytes > evicted ? bytes - evicted : 0;
    uint64_t new_values = bytes > free ? bytes - free : 0;
    uint64_t taken = new_values + value_child_bytes(&snapshot->values);
    uint64_t left = limit > taken + RDB_UFFD_LEAST_BUFFER_LIMIT
                        ? limit - taken
                        : RDB_UFFD_LEAST_BUFFER_LIMIT;
    if (left != atomic_load_explicit(&snapshot->preserved.limit, memory_order_relaxed))
        preserved_set_limit(&snapshot->preserved, left < limit ? left : limit);
    note_what_counts(snapshot, new_values);
    return fresh;
}

bool limit_share_measuring(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    allocator_measure();
    return allocator_stay_below(FRESH_BYTES_FREE + snapshot_limit(snapshot) / 2, 0);
}
