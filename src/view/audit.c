#include "view/audit.h"

#include <errno.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/pagemap.h"
#include "kernel/thread.h"
#include "memory/pages.h"

/* The memory map is locked for reading, and nobody can map or unmap, for as long as one of
 * them takes: some 100 us in 4 KB pages. */
#define SLICE_BYTES    (UINT64_C(16) << 20)
#define RANGES_AT_ONCE 128

void audit_begin(struct audit *audit, struct view *view, int pagemap,
                 const struct region_set *content)
{
    DEMAND_MAIN_THREAD();
    DEMAND(!atomic_load_explicit(&audit->begun, memory_order_relaxed));
    audit->view = view;
    audit->pagemap = pagemap;
    audit->content = content;
    atomic_store_explicit(&audit->lost, 0, memory_order_relaxed);
    atomic_store_explicit(&audit->begun, true, memory_order_release);
}

void audit_end(struct audit *audit)
{
    DEMAND_THREAD(THREAD_SAVER);
    atomic_store_explicit(&audit->begun, false, memory_order_release);
}

static bool is_preserved(const struct audit *audit, uint64_t address)
{
    uint32_t page;
    return view_page_of(audit->view, address, &page) &&
           preserved_has(audit->view->preserved, page);
}

static int view_error(const struct audit *audit)
{
    return atomic_load_explicit(&audit->view->error, memory_order_acquire);
}

static void count_lost(struct audit *audit, uint64_t pages)
{
    atomic_fetch_add_explicit(&audit->lost, pages, memory_order_relaxed);
}

/* The pages of one frozen region are numbered one after the other. */
static uint64_t count_unpreserved(const struct audit *audit, uint64_t start, uint64_t end)
{
    const struct preserved *preserved = audit->view->preserved;
    uint64_t count = 0;
    uint32_t page;
    if (!view_page_of(audit->view, start, &page))
        return (end - start) / PAGE_BYTES;
    for (uint64_t at = start; at < end; at += PAGE_BYTES)
        count += !preserved_has(preserved, page++);
    return count;
}

static int audit_slice(struct audit *audit, uint64_t start, uint64_t end)
{
    struct pagemap_range ranges[RANGES_AT_ONCE];
    while (start < end) {
        uint64_t scanned = end, lost = 0;
        int found = pagemap_find_unprotected(audit->pagemap, start, end, ranges,
                                             RANGES_AT_ONCE, &scanned);
        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            lost += count_unpreserved(audit, ranges[i].start, ranges[i].end);
        /* A page that loses its mark because the snapshot has ended is none. */
        int ended = view_error(audit);
        if (ended)
            return ended;
        count_lost(audit, lost);
        start = scanned;
    }
    return 0;
}

static int audit_region(struct audit *audit, const struct region *region)
{
    int error = 0;
    for (uint64_t at = region->start, end; at < region->end && !error; at = end) {
        end = round_down(at, SLICE_BYTES) + SLICE_BYTES;
        if (end > region->end)
            end = region->end;
        error = audit_slice(audit, at, end);
    }
    return error;
}

int audit_all(struct audit *audit)
{
    DEMAND_THREAD(THREAD_SAVER);
    uint64_t began = clock_usec();
    int error = 0;
    if (fault_point(FAULT_NO_AUDIT))
        return 0;
    for (size_t i = 0; i < audit->content->count && !error; i++)
        error = audit_region(audit, &audit->content->regions[i]);
    atomic_store_explicit(&audit->usec, clock_usec() - began, memory_order_relaxed);
    if (error)
        return error;
    return atomic_load_explicit(&audit->lost, memory_order_relaxed) ? AUDIT_LOST : 0;
}

/* ---- pages that are not preserved for a fault ------------------------------------- */

bool audit_covers(const struct audit *audit, uint64_t address)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    return atomic_load_explicit(&audit->begun, memory_order_acquire) &&
           !fault_point(FAULT_NO_AUDIT) && regions_find(audit->content, address);
}

uint32_t audit_find_new(const struct audit *audit, uint64_t start, uint32_t count)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    uint32_t pages = 0;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t at = start + i * PAGE_BYTES;
        if (audit_covers(audit, at) && !is_preserved(audit, at))
            pages |= UINT32_C(1) << i;
    }
    return pages;
}

static uint32_t count_among(uint32_t pages, uint64_t start,
                            const struct pagemap_range *range)
{
    uint32_t count = 0;
    for (uint64_t at = range->start; at < range->end; at += PAGE_BYTES)
        count += pages >> ((at - start) / PAGE_BYTES) & 1;
    return count;
}

int audit_check(struct audit *audit, uint64_t start, uint32_t pages)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    struct pagemap_range ranges[AUDIT_PAGES_MAX];
    if (!pages)
        return 0;
    unsigned last = 31 - (unsigned)__builtin_clz(pages);
    uint64_t end = start + (last + 1) * PAGE_BYTES;
    uint32_t lost = 0;
    for (uint64_t at = start, scanned; at < end; at = scanned) {
        scanned = end;
        int found = pagemap_find_unprotected(audit->pagemap, at, end, ranges,
                                             AUDIT_PAGES_MAX, &scanned);
        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            lost += count_among(pages, start, &ranges[i]);
    }
    count_lost(audit, lost);
    return lost ? AUDIT_LOST : 0;
}
