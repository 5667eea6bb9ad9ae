#include "dirty_rate.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "host/deferred_free.h"
#include "kernel/contract.h"
#include "memory/allocator.h"
#include "memory/dirty.h"
#include "memory/dirty_prediction.h"
#include "snapshot/rescue.h"
#include "snapshot/service.h"
#include "snapshot/snapshot.h"

#define SAMPLES 10u

enum state { NONE, WANTED, RUNNING, DONE };

#define MB (UINT64_C(1) << 20)

/* The one measurement there can be at a time. */
static struct {
    _Atomic uint32_t state;
    _Atomic bool stop;
    unsigned seconds; /* this and the next set by who asks */
    struct dirty_sampling sampling;
    struct dirty dirty; /* under heap_lock() */
    uint64_t heap_bytes;
    struct dirty_count count; /* when last looked */
    unsigned sample_count;
    struct dirty_sample samples[SAMPLES];
    struct dirty_sample
        accessed[SAMPLES]; /* at the same times, with what was only read */
    int error;
} rate;

static enum state get_state(void)
{
    return (enum state)atomic_load_explicit(&rate.state, memory_order_acquire);
}

static void set_state(enum state state)
{
    atomic_store_explicit(&rate.state, state, memory_order_release);
}

/* ---- the prediction -------------------------------------------------------------- */

/* As `buffer-limit` is set: a quarter more than predicted, whole megabytes. */
static uint64_t recommend(uint64_t bytes)
{
    uint64_t limit = round_up(bytes + bytes / 4, MB);
    return limit < 2 * RDB_UFFD_LEAST_BUFFER_LIMIT ? 2 * RDB_UFFD_LEAST_BUFFER_LIMIT
                                                   : limit;
}

/* The pages, and a page of the index for each chunk that holds such pages: any but the
 * emptiest heaps have some everywhere. */
static uint64_t buffer_bytes(uint64_t pages)
{
    uint64_t chunks = rate.heap_bytes / CHUNK_BYTES + 1;
    return (pages + (pages < chunks ? pages : chunks)) * PAGE_BYTES +
           chunks * sizeof(uint32_t);
}

static uint64_t last_whole_save_msec(const struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->last_whole_save_msec, memory_order_relaxed);
}

static void conclude(struct snapshot *snapshot, struct rdb_uffd_dirty_rate *result)
{
    const struct dirty_sample *last = &rate.samples[rate.sample_count - 1];
    uint64_t save_msec = last_whole_save_msec(snapshot);
    uint64_t usec = save_msec ? save_msec * 1000 : last->usec;
    uint64_t pages =
        dirty_predict(rate.samples, rate.sample_count, usec, rate.heap_bytes);
    uint64_t accessed =
        dirty_predict(rate.accessed, rate.sample_count, usec, rate.heap_bytes);
    uint64_t bytes = buffer_bytes(pages);
    *result = (struct rdb_uffd_dirty_rate){
        .measured_msec = last->usec / 1000,
        .heap_bytes = rate.heap_bytes,
        .pages = last->pages,
        .save_msec = save_msec,
        .predicted_pages = pages,
        .predicted_bytes = bytes,
        .predicted_backup_bytes = buffer_bytes(accessed),
        .recommended_limit = recommend(bytes),
    };
    the_service.predicted_bytes = bytes;
    the_service.written_per_second =
        result->measured_msec ? result->pages * 1000 / result->measured_msec : 0;
}

/* ---- the upkeep thread's part ---------------------------------------------------- */

static bool stopped(struct snapshot *snapshot)
{
    return atomic_load_explicit(&rate.stop, memory_order_acquire) ||
           upkeep_is_to_leave(snapshot) || snapshot_phase(snapshot) != PHASE_NONE;
}

/* Under heap_lock(). */
static int take_heap(struct snapshot *snapshot)
{
    struct heap *heap = &snapshot->heap;
    int error = stopped(snapshot) ? -ECANCELED : heap_open(heap, &snapshot->ability);
    if (!error && heap_is_stale(heap))
        error = heap_refresh(heap, false);
    if (!error)
        error = dirty_open(&rate.dirty, &heap->registered, &rate.sampling);
    if (error)
        return error;
    rate.heap_bytes = regions_bytes(&heap->registered);
    error = heap_unregister_all(heap, &rate.stop);
    return error ? error : dirty_start(&rate.dirty, &rate.stop);
}

/* Until `usec` after `began`, in naps: a save nudges the upkeep thread, but it may nap. */
static void wait_until(struct snapshot *snapshot, uint64_t when)
{
    while (!stopped(snapshot) && clock_usec() < when) {
        uint64_t left = when - clock_usec();
        sleep_usec(left < 5000 ? left : 5000);
    }
}

static int take_sample(struct snapshot *snapshot, uint64_t began)
{
    struct dirty_sample *sample = &rate.samples[rate.sample_count];
    heap_lock(&snapshot->heap);
    int error = stopped(snapshot) || rate.dirty.userfaultfd < 0
                    ? -ECANCELED
                    : dirty_read(&rate.dirty, &rate.count, &rate.stop);
    heap_unlock(&snapshot->heap);
    /* The scan takes a moment; its middle is when it was. */
    sample->usec = clock_usec() - began;
    sample->pages = rate.count.pages;
    rate.accessed[rate.sample_count] =
        (struct dirty_sample){sample->usec, rate.count.accessed};
    if (!error)
        rate.sample_count++;
    return error;
}

static int measure(struct snapshot *snapshot)
{
    uint64_t step = (uint64_t)rate.seconds * 1000000 / SAMPLES;
    rate.sample_count = 0;
    heap_lock(&snapshot->heap);
    int error = take_heap(snapshot);
    heap_unlock(&snapshot->heap);
    uint64_t began = clock_usec();
    for (unsigned i = 1; i <= SAMPLES && !error; i++) {
        wait_until(snapshot, began + i * step);
        error = take_sample(snapshot, began);
    }
    heap_lock(&snapshot->heap);
    dirty_end(&rate.dirty, &rate.stop);
    heap_unlock(&snapshot->heap);
    return error;
}

void dirty_rate_run(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    if (get_state() != WANTED)
        return;
    set_state(RUNNING);
    rate.error = measure(snapshot);
    /* Writes have split huge pages. */
    atomic_store_explicit(&snapshot->mend_wanted, true, memory_order_relaxed);
    set_state(DONE);
}

void dirty_rate_refuse(void)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    if (get_state() != WANTED)
        return;
    rate.error = -ESHUTDOWN;
    set_state(DONE);
}

bool dirty_rate_is_active(void)
{
    DEMAND_MAIN_THREAD();
    return get_state() != NONE;
}

bool dirty_rate_is_wanted(void)
{
    return get_state() == WANTED;
}

/* ---- the main thread's part ------------------------------------------------------ */

void dirty_rate_init(void)
{
    DEMAND_MAIN_THREAD();
    memset(&rate, 0, sizeof(rate));
    rate.dirty.userfaultfd = rate.dirty.pagemap = -1;
}

/* Nobody takes the heap for it again: who would, finds it stopped. */
void dirty_rate_yield(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&rate.stop, true, memory_order_release);
    if (heap_lock_in_time(&snapshot->heap))
        return;
    dirty_end(&rate.dirty, &rate.stop);
    heap_unlock(&snapshot->heap);
}

void dirty_rate_forked(void)
{
    close(rate.dirty.userfaultfd);
}

static const char *const no_tracking =
    "this kernel cannot tell which pages were written: that takes Linux 6.7 "
    "(UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN)";

static const char *const switched_off = "the module is switched off (uffd.enabled no)";

static unsigned seconds_of_last_save(struct snapshot *snapshot)
{
    uint64_t seconds = (last_whole_save_msec(snapshot) + 999) / 1000;
    return seconds < 1 ? 1 : seconds > 10 ? 10 : (unsigned)seconds;
}

static bool is_watched(const void *memory)
{
    return dirty_samples(&rate.sampling, (uint64_t)(uintptr_t)memory);
}

const char *rdb_uffd_begin_dirty_rate(unsigned seconds)
{
    DEMAND_MAIN_THREAD();
    struct snapshot *snapshot = &the_snapshot;
    if (the_service.unsupported[0])
        return the_service.unsupported;
    if (!snapshot->settings.enabled)
        return switched_off;
    if (snapshot_phase(snapshot) != PHASE_NONE)
        return "a background save is running";
    if (!snapshot->ability.tracks_asynchronously || dirty_probe() != 0)
        return no_tracking;
    if (get_state() != NONE)
        return "a measurement is running already";
    rate.seconds = seconds ? seconds : seconds_of_last_save(snapshot);
    rate.sampling = dirty_choose_sampling(snapshot_memory_in_use(snapshot));
    atomic_store_explicit(&rate.stop, false, memory_order_relaxed);
    set_state(WANTED);
    snapshot_wake_upkeep(snapshot);
    /* What is written while saving depends on where new values go and on frees that are
     * put off: the same holds for what is watched, until the tick after the end. Other
     * dead values make room for new ones as ever. */
    if (!deferred_free_end())
        return UPKEEP_IS_LATE;
    allocator_restore();
    allocator_steer(deferred_free_is_installed());
    deferred_free_begin(false, is_watched);
    return NULL;
}

static const char *why_it_failed(int error)
{
    if (error == -ECANCELED)
        return "a background save has begun: the measurement was given up";
    if (error == -ESHUTDOWN)
        return switched_off;
    return error == -ENOTTY || error == -EINVAL ? no_tracking : strerrordesc_np(-error);
}

bool rdb_uffd_end_dirty_rate(struct rdb_uffd_dirty_rate *result, const char **failure)
{
    DEMAND_MAIN_THREAD();
    if (get_state() != DONE)
        return false;
    *failure = rate.error ? why_it_failed(rate.error) : NULL;
    if (!rate.error)
        conclude(&the_snapshot, result);
    set_state(NONE);
    return true;
}
