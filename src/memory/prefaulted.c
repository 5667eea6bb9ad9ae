#include "memory/prefaulted.h"

#include <sys/mman.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "memory/pages.h"

/* Private memory like the allocator's own: it will be the allocator's. Who reads the memory
 * map meanwhile does not see what is trimmed away as memory that can be written to: it
 * would be registered, and be gone when it is to be protected. */
static uint64_t map_aligned(size_t bytes)
{
    void *mapped = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return 0;
    uint64_t from = (uint64_t)(uintptr_t)mapped;
    uint64_t start = round_up(from, HUGE_PAGE_BYTES);
    if (start > from)
        munmap(mapped, start - from);
    munmap((void *)(uintptr_t)(start + bytes), from + HUGE_PAGE_BYTES - start);
    if (mprotect((void *)(uintptr_t)start, bytes, PROT_READ | PROT_WRITE) != 0) {
        munmap((void *)(uintptr_t)start, bytes);
        return 0;
    }
    return start;
}

static void unmap_range(uint64_t start, uint64_t end)
{
    if (end > start)
        munmap((void *)(uintptr_t)start, end - start);
}

/* Returns the bytes to prefault, 0: enough is. */
static size_t needed(struct prefaulted_memory *prefaulted, size_t bytes, size_t most)
{
    uint64_t asked = 2 * atomic_load_explicit(&prefaulted->asked, memory_order_relaxed);
    size_t wanted = asked > bytes ? asked : bytes;
    wanted = round_up(wanted < most ? wanted : most, HUGE_PAGE_BYTES);
    short_lock_take(&prefaulted->lock);
    uint64_t left = prefaulted->end - prefaulted->at;
    short_lock_release(&prefaulted->lock);
    return left >= wanted / 2 ? 0 : wanted;
}

/* What it was goes back to the kernel. Until that is done, whoever finds it in the memory
 * map must know whose it is: frozen, its pages would count as lost. */
static void replace(struct prefaulted_memory *prefaulted, uint64_t at, uint64_t end)
{
    short_lock_take(&prefaulted->lock);
    uint64_t old_at = prefaulted->at, old_end = prefaulted->end;
    prefaulted->at = at;
    prefaulted->end = end;
    prefaulted->filling_at = old_at;
    prefaulted->filling_end = old_end;
    short_lock_release(&prefaulted->lock);
    fault_point_hang(FAULT_HELD_PREFAULTED);
    unmap_range(old_at, old_end);
    short_lock_take(&prefaulted->lock);
    prefaulted->filling_at = prefaulted->filling_end = 0;
    short_lock_release(&prefaulted->lock);
}

void prefaulted_fill(struct prefaulted_memory *prefaulted, size_t bytes, size_t most,
                     bool huge_pages)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    size_t wanted = needed(prefaulted, bytes, most);
    if (!wanted)
        return;
    /* Under the lock, so that nobody finds it in the memory map and does not
     * know whose it is. */
    short_lock_take(&prefaulted->lock);
    uint64_t start = map_aligned(wanted);
    prefaulted->filling_at = start;
    prefaulted->filling_end = start ? start + wanted : 0;
    short_lock_release(&prefaulted->lock);
    if (!start)
        return;
    if (huge_pages)
        advice_give((void *)(uintptr_t)start, wanted, MADV_HUGEPAGE);
    /* By stores: a fault takes the lock of this one mapping, an advice would keep
     * the server's mmap() waiting. */
    memory_touch((void *)(uintptr_t)start, wanted);
    replace(prefaulted, start, start + wanted);
    atomic_store_explicit(&prefaulted->asked, 0, memory_order_relaxed);
}

void *prefaulted_take(struct prefaulted_memory *prefaulted, size_t length)
{
    void *taken = NULL;
    atomic_fetch_add_explicit(&prefaulted->asked, length, memory_order_relaxed);
    short_lock_take(&prefaulted->lock);
    uint64_t aligned = round_up(prefaulted->at, HUGE_PAGE_BYTES);
    /* The allocator may want its memory aligned, and would unmap what is not. */
    if (length <= prefaulted->end - prefaulted->at &&
        aligned + length <= prefaulted->end) {
        taken = (void *)(uintptr_t)aligned;
        unmap_range(prefaulted->at, aligned);
        prefaulted->at = aligned + length;
    }
    short_lock_release(&prefaulted->lock);
    return taken;
}

int prefaulted_leave_out(struct prefaulted_memory *prefaulted, struct region_set *set)
{
    short_lock_take(&prefaulted->lock);
    uint64_t at = prefaulted->at, end = prefaulted->end;
    uint64_t filling_at = prefaulted->filling_at, filling_end = prefaulted->filling_end;
    short_lock_release(&prefaulted->lock);
    int error = end > at ? regions_remove(set, at, end) : 0;
    if (!error && filling_end > filling_at)
        error = regions_remove(set, filling_at, filling_end);
    return error;
}

struct region prefaulted_region(struct prefaulted_memory *prefaulted)
{
    short_lock_take(&prefaulted->lock);
    struct region region = {prefaulted->at, prefaulted->end};
    short_lock_release(&prefaulted->lock);
    return region;
}

uint64_t prefaulted_bytes(struct prefaulted_memory *prefaulted)
{
    struct region region = prefaulted_region(prefaulted);
    return region.end - region.start;
}

void prefaulted_abandon(struct prefaulted_memory *prefaulted)
{
    if (!short_lock_try(&prefaulted->lock))
        return;
    unmap_range(prefaulted->at, prefaulted->end);
    prefaulted->at = prefaulted->end = 0;
    short_lock_release(&prefaulted->lock);
}

void prefaulted_release(struct prefaulted_memory *prefaulted)
{
    replace(prefaulted, 0, 0);
}
