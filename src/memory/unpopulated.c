#include "memory/unpopulated.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/pagemap.h"
#include "memory/pages.h"

#define RANGES 64
/* What is looked through, and mapped, with the memory map's lock held for reading. */
#define SLICE_BYTES (UINT64_C(1) << 30)
#define MAP_BYTES   (UINT64_C(64) << 20)

/* One huge page, tried out. */
static bool try_out(uint64_t start)
{
    void *page = (void *)(uintptr_t)start;
    int pagemap = pagemap_open();
    if (pagemap < 0)
        return false;
    bool can = advice_give(page, HUGE_PAGE_BYTES, MADV_HUGEPAGE) == 0 &&
               advice_give(page, HUGE_PAGE_BYTES, MADV_POPULATE_READ) == 0 &&
               pagemap_is_huge(pagemap, start, start + HUGE_PAGE_BYTES) == 1 &&
               pagemap_is_zero_page(pagemap, start, start + HUGE_PAGE_BYTES) == 1;
    if (can) {
        *(volatile char *)page = 1;
        can = pagemap_is_huge(pagemap, start, start + HUGE_PAGE_BYTES) == 1;
    }
    close(pagemap);
    return can;
}

bool unpopulated_can_be_mapped(void)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    void *mapped = mmap(NULL, 2 * HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
        return false;
    bool can = try_out(round_up((uint64_t)(uintptr_t)mapped, HUGE_PAGE_BYTES));
    munmap(mapped, 2 * HUGE_PAGE_BYTES);
    return can;
}

static void map_range(uint64_t start, uint64_t end)
{
    start = round_up(start, HUGE_PAGE_BYTES);
    end = round_down(end, HUGE_PAGE_BYTES);
    for (uint64_t at = start, next; at < end; at = next) {
        next = at + MAP_BYTES < end ? at + MAP_BYTES : end;
        advice_give((void *)(uintptr_t)at, next - at, MADV_POPULATE_READ);
    }
}

static int map_slice(int pagemap, uint64_t start, uint64_t end)
{
    struct pagemap_range ranges[RANGES];
    while (start < end) {
        uint64_t scanned = end;
        int found = pagemap_scan_untouched(pagemap, start, end, ranges, RANGES, &scanned);
        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            map_range(ranges[i].start, ranges[i].end);
        start = scanned > start ? scanned : end;
    }
    return 0;
}

void unpopulated_map(const struct region *region, bool (*go_on)(void *context),
                     void *context)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    int pagemap = pagemap_open();
    if (pagemap < 0)
        return;
    int error = 0;
    for (uint64_t at = region->start; at < region->end && !error && go_on(context);
         at += SLICE_BYTES)
        error = map_slice(
            pagemap, at, at + SLICE_BYTES < region->end ? at + SLICE_BYTES : region->end);
    close(pagemap);
}
