#include "upkeep.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dirty_rate.h"
#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "kernel/pagemap.h"
#include "memory/allocator.h"
#include "memory/arena_pool.h"
#include "memory/decommitted.h"
#include "memory/unpopulated.h"
#include "snapshot/crash.h"
#include "snapshot/eviction.h"
#include "snapshot/memory_budget.h"
#include "snapshot/rescue.h"

#define STACK_BYTES (256 * 1024)
#define IDLE_MSEC   1000
#define TOUCH_MSEC  40
#define REPORT_USEC 10000
/* One huge page at a time and then a rest: a collapse holds the memory map's
 * lock for some 100 us, and the server's page faults wait for it. */
#define MEND_REST_USEC 400
/* Of the pages of a huge page, so many must be there: what is not would be filled with
 * zeros, for good. */
#define MEND_PAGES_LEAST (HUGE_PAGE_BYTES / PAGE_BYTES * 15 / 16)
#define TOUCH_REST_USEC  100
#define TOUCHES_AT_ONCE  8
/* After a look for unpopulated memory, so many times as long without one. */
#define UNPOPULATED_REST 100
/* Memory that is prefaulted: a share of the heap, within bounds; more if a
 * snapshot needed more. */
#define PREFAULTED_SHARE      32
#define PREFAULTED_BYTES_MIN  (UINT64_C(2) << 20)
#define PREFAULTED_BYTES_MAX  (UINT64_C(16) << 20)
#define PREFAULTED_BYTES_MOST (UINT64_C(16) << 20)
/* And no more than this part of the room in the control group. */
#define PREFAULTED_ROOM_SHARE 8

/* ---- huge pages ------------------------------------------------------------------ */

/* Whether a huge page there costs little more memory than what there is. */
static bool is_worth_mending(struct snapshot *snapshot, int pagemap, uint64_t at)
{
    /* A collapse would fill what is given back. And it takes the huge page before it gives
     * back the small ones. */
    if (decommitted_overlaps(at, at + HUGE_PAGE_BYTES) ||
        memory_budget_spare(snapshot) < 2 * HUGE_PAGE_BYTES)
        return false;
    int present = pagemap_count_present(pagemap, at, at + HUGE_PAGE_BYTES);
    return present >= (int)MEND_PAGES_LEAST || fault_point(FAULT_FILL_HOLES);
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
        if (!is_worth_mending(snapshot, pagemap, at))
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

static bool may_go_on(void *context)
{
    struct snapshot *snapshot = context;
    return snapshot_is_idle(snapshot) && !dirty_rate_is_wanted();
}

/* What jemalloc takes and gives back without telling is found by looking, which takes
 * longer for a larger heap: so much of the upkeep thread's time at most. */
static void map_unpopulated(struct snapshot *snapshot)
{
    static uint64_t due_usec;
    uint64_t began = clock_usec();
    struct region region;
    if (began < due_usec || !unpopulated_can_be_mapped())
        return;
    for (size_t i = 0; get_region(snapshot, i, &region) && may_go_on(snapshot); i++)
        unpopulated_map(&region, may_go_on, snapshot);
    due_usec = began + (clock_usec() - began) * UNPOPULATED_REST;
}

static void ask_for_huge_pages(struct snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->heap.registered.count; i++) {
        const struct region *region = &snapshot->heap.registered.regions[i];
        heap_ask_for_huge_pages((void *)(uintptr_t)region->start,
                                region->end - region->start);
    }
}

/* ---- chores ---------------------------------------------------------------------- */

static void refresh(struct snapshot *snapshot)
{
    heap_lock(&snapshot->heap);
    if (snapshot_is_idle(snapshot) && heap_is_stale(&snapshot->heap) &&
        heap_open(&snapshot->heap, &snapshot->ability) == 0) {
        uint64_t before = regions_bytes(&snapshot->heap.registered);
        heap_find_stacks(&snapshot->heap);
        if (heap_refresh(&snapshot->heap, false) == 0 && snapshot->settings.huge_pages)
            ask_for_huge_pages(snapshot);
        /* What has come in small pages can be put together. Not without a cause: it
         * would bring back what the allocator gives up. */
        if (regions_bytes(&snapshot->heap.registered) > before)
            atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    }
    heap_unlock(&snapshot->heap);
}

/* For the new values of the next snapshot's first seconds. */
static void fill_prefaulted(struct snapshot *snapshot)
{
    heap_lock(&snapshot->heap);
    uint64_t heap = regions_bytes(&snapshot->heap.registered) / PREFAULTED_SHARE;
    heap_unlock(&snapshot->heap);
    uint64_t spare = memory_budget_spare(snapshot) / PREFAULTED_ROOM_SHARE;
    if (spare < PREFAULTED_BYTES_MIN) {
        prefaulted_release(&snapshot->prefaulted);
        return;
    }
    uint64_t most = spare < PREFAULTED_BYTES_MOST ? spare : PREFAULTED_BYTES_MOST;
    uint64_t bytes = heap < PREFAULTED_BYTES_MIN   ? PREFAULTED_BYTES_MIN
                     : heap > PREFAULTED_BYTES_MAX ? PREFAULTED_BYTES_MAX
                                                   : heap;
    prefaulted_fill(&snapshot->prefaulted, bytes < most ? bytes : most, most,
                    snapshot->settings.huge_pages);
}

/* So that the first snapshot of a heap this big need not do it in its pause. */
static void prepare_buffer(struct snapshot *snapshot)
{
    heap_lock(&snapshot->heap);
    if (snapshot_is_idle(snapshot) &&
        view_set_regions(&snapshot->view, &snapshot->heap.registered) == 0)
        preserved_prepare(&snapshot->preserved, snapshot->view.chunk_count,
                          snapshot->settings.buffer_limit);
    heap_unlock(&snapshot->heap);
    while (snapshot_is_idle(snapshot) && preserved_touch_ahead(&snapshot->preserved))
        sleep_usec(TOUCH_REST_USEC);
}

/* Bit by bit: as long as this thread runs, faults are expensive (snapshot/saver.c). */
static void touch_ahead(struct snapshot *snapshot)
{
    for (int i = 0; i < TOUCHES_AT_ONCE; i++)
        if (!preserved_touch_ahead(&snapshot->preserved))
            break;
}

static bool may_work(const struct snapshot *snapshot)
{
    return !snapshot->ability.error && snapshot->settings.enabled;
}

static void do_chores(struct snapshot *snapshot)
{
    while (fault_point(FAULT_HELD_UPKEEP) &&
           !atomic_load_explicit(&snapshot->stopping, memory_order_acquire))
        sleep_usec(1000);
    if (!may_work(snapshot)) {
        /* It was asked for while there was a yes; somebody waits for the answer. */
        dirty_rate_refuse();
        return;
    }
    memory_budget_update(snapshot);
    allocator_stay_at_home();
    arena_pool_purge();
    refresh(snapshot);
    prepare_buffer(snapshot);
    fill_prefaulted(snapshot);
    if (may_work(snapshot)) /* still: that took a moment */
        dirty_rate_run(snapshot);
    refresh(snapshot);
    if (snapshot->settings.huge_pages &&
        atomic_load_explicit(&snapshot->mend_wanted, memory_order_relaxed))
        mend(snapshot);
    if (snapshot->settings.huge_pages)
        map_unpopulated(snapshot);
}

/* ---- during a snapshot ----------------------------------------------------------- */

static void stand_by(struct snapshot *snapshot)
{
    struct thread_cpus all_cpus;
    uint32_t phase;
    thread_get_cpus(0, &all_cpus);
    thread_stay_off(&all_cpus, snapshot->fault_server.writer_cpu);
    while ((phase = atomic_load_explicit(&snapshot->phase, memory_order_acquire)) !=
           PHASE_NONE) {
        memory_budget_update(snapshot);
        if (!atomic_load_explicit(&snapshot->writers_pressed, memory_order_relaxed))
            touch_ahead(snapshot);
        /* New values that find none wait for the kernel to clear 2 MB. */
        fill_prefaulted(snapshot);
        if (!eviction_run(snapshot))
            futex_wait(&snapshot->phase, phase, TOUCH_MSEC);
    }
    thread_set_cpus(0, &all_cpus);
}

static void *run(void *argument)
{
    struct snapshot *snapshot = argument;
    while (!atomic_load_explicit(&snapshot->stopping, memory_order_acquire)) {
        uint32_t chores = atomic_load_explicit(&snapshot->chores, memory_order_acquire);
        fault_point_crash(FAULT_WILD_UPKEEP);
        /* What it looks at is written to by the report. */
        while (crash_is_under_way())
            sleep_usec(REPORT_USEC);
        rescue_tend(snapshot);
        if (snapshot_phase(snapshot) != PHASE_NONE)
            stand_by(snapshot);
        else
            do_chores(snapshot);
        if (snapshot_phase(snapshot) == PHASE_NONE)
            futex_wait(&snapshot->chores, chores, IDLE_MSEC);
    }
    return NULL;
}

int upkeep_start(struct snapshot *snapshot)
{
    return thread_start(&snapshot->upkeep, "uffd-upkeep", STACK_BYTES, run, snapshot);
}

void upkeep_stop(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->stopping, true, memory_order_release);
    snapshot_wake_upkeep(snapshot);
    thread_join(&snapshot->upkeep);
}
