#include "dirty_rate.h"

#include <errno.h>
#include <string.h>

#include "keeper.h"
#include "snapshot/snapshot.h"
#include "snapshot/standing.h"

enum state { NONE, WANTED, RUNNING, DONE };

#define MB (UINT64_C(1) << 20)

static enum state get_state(struct dirty_rate *rate)
{
    return (enum state)atomic_load_explicit(&rate->state, memory_order_acquire);
}

static void set_state(struct dirty_rate *rate, enum state state)
{
    atomic_store_explicit(&rate->state, state, memory_order_release);
}

/* ---- the prediction -------------------------------------------------------------- */

/* As `buffer-limit` is set: a quarter more than predicted, whole megabytes. */
static uint64_t recommend(uint64_t bytes)
{
    uint64_t limit = round_up(bytes + bytes / 4, MB);
    return limit < 2 * RDB_UFFD_LEAST_BUFFER_LIMIT ? 2 * RDB_UFFD_LEAST_BUFFER_LIMIT
                                                   : limit;
}

/* A page of the index for each chunk that holds such pages: any but the emptiest heaps
 * have some everywhere. */
static uint64_t index_bytes(uint64_t pages, uint64_t heap_bytes)
{
    uint64_t chunks = heap_bytes / CHUNK_BYTES + 1;
    return (pages < chunks ? pages : chunks) * PAGE_BYTES + chunks * sizeof(uint32_t);
}

static void conclude(struct snapshot *snapshot, struct rdb_uffd_dirty_rate *result)
{
    const struct dirty_rate *rate = &snapshot->dirty_rate;
    const struct dirty_sample *last = &rate->samples[rate->sample_count - 1];
    uint64_t save_msec =
        atomic_load_explicit(&snapshot->last_whole_save_msec, memory_order_relaxed);
    uint64_t usec = save_msec ? save_msec * 1000 : last->usec;
    uint64_t pages =
        dirty_predict(rate->samples, rate->sample_count, usec, rate->heap_bytes);
    uint64_t index = index_bytes(pages, rate->heap_bytes);
    *result = (struct rdb_uffd_dirty_rate){
        .measured_msec = last->usec / 1000,
        .heap_bytes = rate->heap_bytes,
        .pages = last->pages,
        .save_msec = save_msec,
        .predicted_pages = pages,
        .predicted_bytes = pages * PAGE_BYTES + index,
        .predicted_lz4_bytes = pages * PAGE_BYTES / 1000 * rate->packed_permille + index,
        .recommended_limit = recommend(pages * PAGE_BYTES + index),
    };
}

/* ---- the keeper's part ----------------------------------------------------------- */

static bool stopped(struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->dirty_rate.stop, memory_order_acquire) ||
           atomic_load_explicit(&snapshot->stopping, memory_order_acquire) ||
           snapshot_phase(snapshot) != PHASE_NONE;
}

/* Under heap_lock(). */
static int take_heap(struct snapshot *snapshot)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    struct heap *heap = &snapshot->heap;
    int error = stopped(snapshot) ? -ECANCELED : heap_open(heap, &snapshot->ability);
    if (!error && heap_is_stale(heap))
        error = heap_refresh(heap, false);
    if (!error)
        error = dirty_open(&rate->dirty, &heap->registered, &rate->sampling);
    if (error)
        return error;
    rate->heap_bytes = regions_bytes(&heap->registered);
    error = heap_unregister_all(heap, &rate->stop);
    if (!error)
        standing_has_ended(snapshot);
    return error ? error : dirty_start(&rate->dirty, &rate->stop);
}

/* Until `usec` after `began`, in naps: a save nudges the keeper, but it may nap. */
static void wait_until(struct snapshot *snapshot, uint64_t when)
{
    while (!stopped(snapshot) && clock_usec() < when) {
        uint64_t left = when - clock_usec();
        sleep_usec(left < 5000 ? left : 5000);
    }
}

static int take_sample(struct snapshot *snapshot, uint64_t began)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    struct dirty_sample *sample = &rate->samples[rate->sample_count];
    heap_lock(&snapshot->heap);
    int error = stopped(snapshot) || rate->dirty.userfaultfd < 0
                    ? -ECANCELED
                    : dirty_read(&rate->dirty, &rate->count, &rate->stop);
    heap_unlock(&snapshot->heap);
    /* The scan takes a moment; its middle is when it was. */
    sample->usec = clock_usec() - began;
    sample->pages = rate->count.pages;
    if (!error)
        rate->sample_count++;
    return error;
}

static int measure(struct snapshot *snapshot)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    uint64_t step = (uint64_t)rate->seconds * 1000000 / DIRTY_RATE_SAMPLES;
    rate->sample_count = 0;
    heap_lock(&snapshot->heap);
    int error = take_heap(snapshot);
    heap_unlock(&snapshot->heap);
    uint64_t began = clock_usec();
    for (unsigned i = 1; i <= DIRTY_RATE_SAMPLES && !error; i++) {
        wait_until(snapshot, began + i * step);
        error = take_sample(snapshot, began);
    }
    rate->packed_permille = error ? 0 : packing_sample_try(&rate->count.sample);
    heap_lock(&snapshot->heap);
    dirty_end(&rate->dirty, &rate->stop);
    heap_unlock(&snapshot->heap);
    return error;
}

void dirty_rate_run(struct snapshot *snapshot)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    if (get_state(rate) != WANTED)
        return;
    set_state(rate, RUNNING);
    rate->error = measure(snapshot);
    /* Writes have split huge pages. */
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    set_state(rate, DONE);
}

void dirty_rate_refuse(struct snapshot *snapshot)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    if (get_state(rate) != WANTED)
        return;
    rate->error = -ESHUTDOWN;
    set_state(rate, DONE);
}

bool dirty_rate_is_active(struct snapshot *snapshot)
{
    return get_state(&snapshot->dirty_rate) != NONE;
}

bool dirty_rate_is_wanted(struct snapshot *snapshot)
{
    return get_state(&snapshot->dirty_rate) == WANTED;
}

/* ---- the main thread's part ------------------------------------------------------ */

void dirty_rate_init(struct snapshot *snapshot)
{
    snapshot->dirty_rate.dirty.userfaultfd = -1;
    snapshot->dirty_rate.dirty.pagemap = -1;
}

int dirty_rate_ask(struct snapshot *snapshot, unsigned seconds, uint64_t heap_bytes)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    if (get_state(rate) != NONE)
        return -EBUSY;
    rate->seconds = seconds;
    rate->sampling = dirty_choose_sampling(heap_bytes);
    atomic_store_explicit(&rate->stop, false, memory_order_relaxed);
    set_state(rate, WANTED);
    keeper_nudge(snapshot);
    return 0;
}

int dirty_rate_take(struct snapshot *snapshot, struct rdb_uffd_dirty_rate *result)
{
    struct dirty_rate *rate = &snapshot->dirty_rate;
    if (get_state(rate) != DONE)
        return -EAGAIN;
    int error = rate->error;
    if (!error)
        conclude(snapshot, result);
    set_state(rate, NONE);
    return error;
}

void dirty_rate_stop(struct snapshot *snapshot)
{
    atomic_store_explicit(&snapshot->dirty_rate.stop, true, memory_order_release);
}

void dirty_rate_give_back(struct snapshot *snapshot)
{
    dirty_end(&snapshot->dirty_rate.dirty, &snapshot->dirty_rate.stop);
}
