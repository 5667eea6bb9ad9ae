#include "memory/metadata.h"

#include <stdatomic.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "memory/pages.h"

/* Of 2 MB. What is beyond that many is frozen as before. */
#define BLOCKS_MAX 64

/* Written by the fault server while frozen, read by who refreshes the heap. The module's own
 * data is never protected. */
static struct {
    _Atomic bool looking;
    _Atomic uint32_t changes;
    _Atomic uint32_t count; /* exchanged with release once blocks[] has one more */
    _Atomic uint64_t blocks[BLOCKS_MAX];
} metadata;

void metadata_begin_look(void)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&metadata.looking, true, memory_order_release);
}

void metadata_end_look(void)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&metadata.looking, false, memory_order_release);
}

bool metadata_is_looked_at(void)
{
    return atomic_load_explicit(&metadata.looking, memory_order_acquire) ||
           fault_point(FAULT_WRONG_METADATA);
}

void metadata_note(uint64_t address)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    uint64_t block = round_down(address, HUGE_PAGE_BYTES);
    uint32_t count = atomic_load_explicit(&metadata.count, memory_order_relaxed);
    for (uint32_t i = 0; i < count; i++)
        if (atomic_load_explicit(&metadata.blocks[i], memory_order_relaxed) == block)
            return;
    if (count == BLOCKS_MAX)
        return;
    atomic_store_explicit(&metadata.blocks[count], block, memory_order_relaxed);
    /* Unless all have been forgotten meanwhile. */
    if (!atomic_compare_exchange_strong_explicit(&metadata.count, &count, count + 1,
                                                 memory_order_release,
                                                 memory_order_relaxed))
        return;
    atomic_fetch_add_explicit(&metadata.changes, 1, memory_order_release);
}

/* Small mappings, of a library's variables for one, are none of its blocks. */
static bool is_block_of(const struct region_set *set, uint64_t block)
{
    const struct region *region = regions_find(set, block);
    return region && region->end - block >= HUGE_PAGE_BYTES;
}

int metadata_leave_out(struct region_set *set)
{
    uint32_t count = atomic_load_explicit(&metadata.count, memory_order_acquire);
    int error = 0;
    for (uint32_t i = 0; i < count && !error; i++) {
        uint64_t block = atomic_load_explicit(&metadata.blocks[i], memory_order_relaxed);
        if (is_block_of(set, block))
            error = regions_remove(set, block, block + HUGE_PAGE_BYTES);
    }
    return error;
}

uint32_t metadata_changes(void)
{
    return atomic_load_explicit(&metadata.changes, memory_order_acquire);
}

void metadata_note_mapped(uint64_t start, uint64_t end)
{
    uint32_t count = atomic_load_explicit(&metadata.count, memory_order_acquire);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t block = atomic_load_explicit(&metadata.blocks[i], memory_order_relaxed);
        if (block < end && block + HUGE_PAGE_BYTES > start) {
            metadata_forget();
            return;
        }
    }
}

void metadata_forget(void)
{
    atomic_store_explicit(&metadata.count, 0, memory_order_release);
    atomic_fetch_add_explicit(&metadata.changes, 1, memory_order_release);
}
