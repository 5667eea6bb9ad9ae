#include "huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include "dirty_rate.h"
#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/mark_probe.h"
#include "kernel/pagemap.h"
#include "memory/decommitted.h"
#include "memory/density.h"
#include "snapshot/memory_budget.h"

/* One huge page at a time and then a rest: a collapse holds the memory map's
 * lock for some 100 us, and the server's page faults wait for it. */
#define MEND_REST_USEC 400
/* After a look at the heap's density, so many times as long without one: 3 % of the upkeep
 * thread's time. */
#define DENSITY_REST 30
#define WINDOWS      24
/* Fewer tell nothing. */
#define WINDOWS_LEAST 8
/* Of 1000 pages so many hold something: from here on ahead, and below that no more. Two
 * bounds, since it is some windows that are looked at, others each time. */
#define AHEAD_FROM    950
#define AHEAD_NO_MORE 930
#define REGIONS_MAX   4096
/* To have a huge page the kernel may have to move others' pages. */
#define SPLIT_TRY_USEC 1000000

/* ---- put together ---------------------------------------------------------------- */

/* The kernel fills no holes where a userfaultfd watches: it would answer EBUSY, having
 * looked at all of it. So huge pages cost no more memory than what there is. What a forked
 * child shares would be copied for it: 2 MB for each page that was written to. */
static bool can_be_mended(struct snapshot *snapshot, int pagemap, uint64_t at)
{
    /* A collapse would fill what is given back. And it takes the huge page before it gives
     * back the small ones. */
    if (decommitted_overlaps(at, at + HUGE_PAGE_BYTES) ||
        memory_budget_spare(snapshot) < 2 * HUGE_PAGE_BYTES)
        return false;
    return pagemap_count_own(pagemap, at, at + HUGE_PAGE_BYTES) ==
           HUGE_PAGE_BYTES / PAGE_BYTES;
}

/* Collapses what is split in one region; stops when a snapshot begins, which
 * waits for heap_lock(). Returns false then. */
static bool mend_region(struct snapshot *snapshot, int pagemap,
                        const struct region *region)
{
    uint64_t at = round_up(region->start, HUGE_PAGE_BYTES);
    for (; at + HUGE_PAGE_BYTES <= region->end; at += HUGE_PAGE_BYTES) {
        if (!snapshot_is_idle(snapshot) || dirty_rate_is_wanted())
            return false;
        if (!can_be_mended(snapshot, pagemap, at))
            continue;
        uint64_t began = clock_usec();
        void *start = (void *)(uintptr_t)at;
        if (advice_give(start, HUGE_PAGE_BYTES, MADV_COLLAPSE) != 0)
            continue;
        /* A range that is huge already answers at once. */
        if (clock_usec() - began > 30) {
            atomic_fetch_add_explicit(&snapshot->huge_pages_mended, 1,
                                      memory_order_relaxed);
            sleep_usec(MEND_REST_USEC);
        }
    }
    return true;
}

/* Regions by index, not under the lock for the whole walk: a freeze must not wait for
 * hundreds of collapses. False: there are no more. */
static bool get_region(struct snapshot *snapshot, size_t i, struct region *region)
{
    heap_lock(&snapshot->heap);
    bool there = i < snapshot->heap.registered.count;
    if (there)
        *region = snapshot->heap.registered.regions[i];
    heap_unlock(&snapshot->heap);
    return there;
}

static void mend(struct snapshot *snapshot)
{
    struct region region;
    bool done = true;
    int pagemap = pagemap_open();
    if (pagemap < 0)
        return;
    for (size_t i = 0; done && get_region(snapshot, i, &region); i++)
        done = mend_region(snapshot, pagemap, &region);
    close(pagemap);
    if (done)
        atomic_store_explicit(&snapshot->mend_wanted, false, memory_order_relaxed);
}

/* ---- split ----------------------------------------------------------------------- */

/* At load there may have been no huge page to try it on. */
static void try_splitting_again(struct snapshot *snapshot)
{
    static uint64_t due_usec;
    _Atomic int *keeps_marks = &snapshot->fault_server.splitter.keeps_marks;
    if (!view_is_slow(&snapshot->view) || clock_usec() < due_usec ||
        atomic_load_explicit(keeps_marks, memory_order_relaxed) >= 0)
        return;
    atomic_store_explicit(keeps_marks, mark_probe_split(&snapshot->ability),
                          memory_order_relaxed);
    due_usec = clock_usec() + SPLIT_TRY_USEC;
}

/* ---- ahead ----------------------------------------------------------------------- */

static bool are_asked_for_ahead(const struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->huge_pages_ahead, memory_order_relaxed);
}

static void ask_for_all(struct snapshot *snapshot, bool wanted)
{
    for (size_t i = 0; i < snapshot->heap.registered.count; i++) {
        const struct region *region = &snapshot->heap.registered.regions[i];
        heap_ask_for_huge_pages((void *)(uintptr_t)region->start,
                                region->end - region->start, wanted);
    }
}

void huge_pages_ask(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    DEMAND_HELD(&snapshot->heap.locked);
    if (are_asked_for_ahead(snapshot))
        ask_for_all(snapshot, true);
}

/* What is in huge pages stays so. Once they were asked for and are not wanted any more, no
 * others come, put together neither: the kernel cannot be told only to forget. */
static void switch_to(struct snapshot *snapshot, bool ahead)
{
    atomic_store_explicit(&snapshot->huge_pages_ahead, ahead, memory_order_relaxed);
    heap_lock(&snapshot->heap);
    ask_for_all(snapshot, ahead);
    heap_unlock(&snapshot->heap);
}

static bool measure_density(struct snapshot *snapshot, struct density *density)
{
    static struct region storage[REGIONS_MAX];
    struct region_set set;
    regions_init(&set, storage, REGIONS_MAX);
    struct region region;
    for (size_t i = 0; get_region(snapshot, i, &region); i++)
        if (regions_add(&set, region.start, region.end) != 0)
            break;
    return density_measure(&set, WINDOWS, density) == 0 &&
           density->windows >= WINDOWS_LEAST;
}

static void look_at_density(struct snapshot *snapshot)
{
    static uint64_t due_usec;
    struct density density;
    uint64_t began = clock_usec();
    if (began < due_usec)
        return;
    if (measure_density(snapshot, &density)) {
        bool ahead = are_asked_for_ahead(snapshot);
        uint64_t used = density.used * 1000 / density.pages;
        if (!ahead && used >= AHEAD_FROM)
            switch_to(snapshot, true);
        else if (ahead && used < AHEAD_NO_MORE)
            switch_to(snapshot, false);
        /* What has been filled since is in small pages. */
        if (density.small)
            atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    }
    due_usec = began + (clock_usec() - began) * DENSITY_REST;
}

static void stay_ahead(struct snapshot *snapshot)
{
    if (!are_asked_for_ahead(snapshot))
        switch_to(snapshot, true);
}

void huge_pages_tend(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    if (!snapshot->settings.huge_pages) {
        atomic_store_explicit(&snapshot->huge_pages_ahead, false, memory_order_relaxed);
        return;
    }
    if (snapshot->settings.huge_pages == HUGE_PAGES_EVERYWHERE)
        stay_ahead(snapshot);
    else
        look_at_density(snapshot);
    try_splitting_again(snapshot);
    if (atomic_load_explicit(&snapshot->mend_wanted, memory_order_relaxed))
        mend(snapshot);
}
