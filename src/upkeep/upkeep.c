#include "upkeep.h"

#include "dirty_rate.h"
#include "huge_pages.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "memory/allocator.h"
#include "memory/arena_pool.h"
#include "snapshot/crash.h"
#include "snapshot/eviction.h"
#include "snapshot/memory_budget.h"
#include "snapshot/rescue.h"

#define STACK_BYTES     (256 * 1024)
#define IDLE_MSEC       1000
#define TOUCH_MSEC      40
#define REPORT_USEC     10000
#define TOUCH_REST_USEC 100
#define TOUCHES_AT_ONCE 8
/* Memory that is prefaulted: a share of the heap, within bounds; more if a
 * snapshot needed more. */
#define PREFAULTED_SHARE     64
#define PREFAULTED_BYTES_MIN (UINT64_C(2) << 20)
#define PREFAULTED_BYTES_MAX (UINT64_C(16) << 20)
/* And no more than this part of the room in the control group. */
#define PREFAULTED_ROOM_SHARE 8

/* ---- chores ---------------------------------------------------------------------- */

static void refresh(struct snapshot *snapshot)
{
    heap_lock(&snapshot->heap);
    fault_point_hang(FAULT_HUNG_WITH_HEAP);
    if (snapshot_is_idle(snapshot) && heap_is_stale(&snapshot->heap) &&
        heap_open(&snapshot->heap, &snapshot->ability) == 0) {
        uint64_t before = regions_bytes(&snapshot->heap.registered);
        heap_find_stacks(&snapshot->heap);
        if (heap_refresh(&snapshot->heap, false) == 0)
            huge_pages_ask(snapshot);
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
    uint64_t bytes = regions_bytes(&snapshot->heap.registered) / PREFAULTED_SHARE;
    heap_unlock(&snapshot->heap);
    uint64_t spare = memory_budget_spare(snapshot) / PREFAULTED_ROOM_SHARE;
    if (spare < PREFAULTED_BYTES_MIN) {
        prefaulted_release(&snapshot->prefaulted);
        return;
    }
    if (bytes < PREFAULTED_BYTES_MIN)
        bytes = PREFAULTED_BYTES_MIN;
    prefaulted_fill(
        &snapshot->prefaulted, bytes,
        spare < PREFAULTED_BYTES_MAX ? spare : PREFAULTED_BYTES_MAX,
        atomic_load_explicit(&snapshot->huge_pages_ahead, memory_order_relaxed));
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

/* Bit by bit: as long as this thread runs, faults are expensive (snapshot/pace.c). */
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
    fault_point_hang(FAULT_HELD_UPKEEP);
    if (fault_point(FAULT_BROKEN_DEMAND))
        (void)heap_is_stale(&snapshot->heap);
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
    huge_pages_tend(snapshot);
}

/* ---- during a snapshot ----------------------------------------------------------- */

static void stand_by(struct snapshot *snapshot)
{
    struct thread_cpus all_cpus;
    uint32_t phase;
    thread_get_cpus(0, &all_cpus);
    thread_stay_off(&all_cpus, snapshot->fault_server.writer_cpu);
    while ((phase = atomic_load_explicit(&snapshot->phase, memory_order_acquire)) !=
               PHASE_NONE &&
           !crash_is_under_way()) {
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

static bool leaves(struct snapshot *snapshot)
{
    uint32_t asked = UPKEEP_IS_TO_LEAVE;
    return atomic_compare_exchange_strong_explicit(&snapshot->upkeep_leaving, &asked,
                                                   UPKEEP_LEAVES, memory_order_acq_rel,
                                                   memory_order_relaxed);
}

/* What it looks at is written to by a crash's report, and what it changes is tested by it:
 * it says that it is at work, then looks whether there is one; crash_begin() the other way
 * round. */
static void begin_work(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->upkeep_at_work, true, memory_order_seq_cst);
    while (crash_is_under_way()) {
        atomic_store_explicit(&snapshot->upkeep_at_work, false, memory_order_release);
        sleep_usec(REPORT_USEC);
        atomic_store_explicit(&snapshot->upkeep_at_work, true, memory_order_seq_cst);
    }
}

static void *upkeep(void *argument)
{
    struct snapshot *snapshot = argument;
    while (!leaves(snapshot)) {
        uint32_t chores = atomic_load_explicit(&snapshot->chores, memory_order_acquire);
        fault_point_crash(FAULT_WILD_UPKEEP);
        begin_work(snapshot);
        rescue_tend(snapshot);
        if (snapshot_phase(snapshot) != PHASE_NONE)
            stand_by(snapshot);
        else
            do_chores(snapshot);
        atomic_store_explicit(&snapshot->upkeep_at_work, false, memory_order_release);
        if (snapshot_phase(snapshot) == PHASE_NONE)
            futex_wait(&snapshot->chores, chores, IDLE_MSEC);
    }
    return NULL;
}

int upkeep_start(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&snapshot->upkeep_leaving, UPKEEP_STAYS, memory_order_relaxed);
    return thread_start(&snapshot->upkeep, THREAD_UPKEEP, STACK_BYTES, upkeep, snapshot);
}

bool upkeep_stop(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    uint32_t asked = UPKEEP_IS_TO_LEAVE;
    atomic_store_explicit(&snapshot->upkeep_leaving, asked, memory_order_release);
    snapshot_wake_upkeep(snapshot);
    bool left = thread_join_within(&snapshot->upkeep, LOCK_IN_TIME_USEC);
    /* It may be on its way out by now. */
    if (!left && !atomic_compare_exchange_strong_explicit(
                     &snapshot->upkeep_leaving, &asked, UPKEEP_STAYS,
                     memory_order_acq_rel, memory_order_acquire)) {
        thread_join(&snapshot->upkeep);
        left = true;
    }
    return left;
}
