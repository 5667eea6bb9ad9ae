#include "memory/ready.h"

#include <sys/mman.h>

#include "kernel/advice.h"
#include "kernel/memory.h"
#include "memory/pages.h"

/* Private memory like the allocator's own: it will be the allocator's. */
static uint64_t map_aligned(size_t bytes)
{
    void *mapped = mmap(NULL, bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED)
        return 0;
    uint64_t from = (uint64_t)(uintptr_t)mapped;
    uint64_t start = round_up(from, HUGE_PAGE_BYTES);
    if (start > from)
        munmap(mapped, start - from);
    munmap((void *)(uintptr_t)(start + bytes), from + HUGE_PAGE_BYTES - start);
    return start;
}

static void give_back(uint64_t start, uint64_t end)
{
    if (end > start)
        munmap((void *)(uintptr_t)start, end - start);
}

/* Returns the bytes to make ready, 0: enough is. */
static size_t needed(struct ready_memory *ready, size_t bytes, size_t most)
{
    uint64_t asked = 2 * atomic_load_explicit(&ready->asked, memory_order_relaxed);
    size_t wanted = asked > bytes ? asked : bytes;
    wanted = round_up(wanted < most ? wanted : most, HUGE_PAGE_BYTES);
    short_lock_take(&ready->lock);
    uint64_t left = ready->end - ready->at;
    short_lock_release(&ready->lock);
    return left >= wanted / 2 ? 0 : wanted;
}

void ready_fill(struct ready_memory *ready, size_t bytes, size_t most, bool huge_pages)
{
    size_t wanted = needed(ready, bytes, most);
    if (!wanted)
        return;
    /* Under the lock, so that nobody finds it in the memory map and does not
     * know whose it is. */
    short_lock_take(&ready->lock);
    uint64_t start = map_aligned(wanted);
    ready->filling_at = start;
    ready->filling_end = start ? start + wanted : 0;
    short_lock_release(&ready->lock);
    if (!start)
        return;
    if (huge_pages)
        advice_give((void *)(uintptr_t)start, wanted, MADV_HUGEPAGE);
    /* By stores: a fault takes the lock of this one mapping, an advice would keep
     * the server's mmap() waiting. */
    memory_touch((void *)(uintptr_t)start, wanted);
    short_lock_take(&ready->lock);
    uint64_t old_at = ready->at, old_end = ready->end;
    ready->at = start;
    ready->end = start + wanted;
    ready->filling_at = ready->filling_end = 0;
    short_lock_release(&ready->lock);
    atomic_store_explicit(&ready->asked, 0, memory_order_relaxed);
    give_back(old_at, old_end);
}

void *ready_take(struct ready_memory *ready, size_t length)
{
    void *taken = NULL;
    atomic_fetch_add_explicit(&ready->asked, length, memory_order_relaxed);
    short_lock_take(&ready->lock);
    uint64_t aligned = round_up(ready->at, HUGE_PAGE_BYTES);
    /* The allocator may want its memory aligned, and would unmap what is not. */
    if (length <= ready->end - ready->at && aligned + length <= ready->end) {
        taken = (void *)(uintptr_t)aligned;
        give_back(ready->at, aligned);
        ready->at = aligned + length;
    }
    short_lock_release(&ready->lock);
    return taken;
}

int ready_leave_out(struct ready_memory *ready, struct region_set *set)
{
    short_lock_take(&ready->lock);
    uint64_t at = ready->at, end = ready->end;
    uint64_t filling_at = ready->filling_at, filling_end = ready->filling_end;
    short_lock_release(&ready->lock);
    int error = end > at ? regions_remove(set, at, end) : 0;
    if (!error && filling_end)
        error = regions_remove(set, filling_at, filling_end);
    return error;
}

uint64_t ready_bytes(struct ready_memory *ready)
{
    short_lock_take(&ready->lock);
    uint64_t bytes = ready->end - ready->at;
    short_lock_release(&ready->lock);
    return bytes;
}

void ready_release(struct ready_memory *ready)
{
    short_lock_take(&ready->lock);
    uint64_t at = ready->at, end = ready->end;
    ready->at = ready->end = 0;
    short_lock_release(&ready->lock);
    give_back(at, end);
}
