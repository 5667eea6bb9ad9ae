#include "eviction.h"

#include <errno.h>
#include <sys/mman.h>

#include "host/deferred_free.h"
#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "snapshot.h"

/* Then a rest: each portion costs the server a shootdown and a turn of the fault server.
 * 100 MB a second, or 400 in a hurry. */
#define PAGES_AT_ONCE   SPOOL_BATCH_PAGES
#define REST_USEC       1000
#define SHORT_REST_USEC 100
#define NOTES_AT_ONCE   64
#define RUN_USEC        10000

/* What is dead, and how far it has been evicted. */
struct dead {
    struct iovec memory[NOTES_AT_ONCE];
    size_t count;
    size_t next;
};

bool eviction_is_possible(const struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    return snapshot->settings.buffer_policy == BUFFER_SPOOL;
}

void eviction_begin(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&snapshot->eviction_wanted, 0, memory_order_relaxed);
    atomic_store_explicit(&snapshot->evicted_bytes, 0, memory_order_relaxed);
}

void eviction_want(struct snapshot *snapshot, uint64_t bytes, bool hurry)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&snapshot->eviction_hurry, hurry, memory_order_relaxed);
    atomic_store_explicit(&snapshot->eviction_wanted, bytes, memory_order_relaxed);
}

static bool more_is_wanted(struct snapshot *snapshot)
{
    return snapshot_phase(snapshot) == PHASE_SAVING &&
           atomic_load_explicit(&snapshot->evicted_bytes, memory_order_relaxed) <
               atomic_load_explicit(&snapshot->eviction_wanted, memory_order_relaxed);
}

/* Moves its start past what is returned. False when it has no whole page left. */
static bool take_pages(struct iovec *memory, size_t most, struct region *pages)
{
    uint64_t address = (uint64_t)(uintptr_t)memory->iov_base;
    uint64_t start = round_up(address, PAGE_BYTES);
    uint64_t end = round_down(address + memory->iov_len, PAGE_BYTES);
    if (start >= end)
        return false;
    if (end - start > most * PAGE_BYTES)
        end = start + most * PAGE_BYTES;
    *pages = (struct region){start, end};
    *memory = (struct iovec){(void *)(uintptr_t)end, address + memory->iov_len - end};
    return true;
}

static size_t take_portion(struct dead *dead, struct region *pages)
{
    size_t count = 0, left = PAGES_AT_ONCE;
    while (left && dead->next < dead->count) {
        if (take_pages(&dead->memory[dead->next], left, &pages[count])) {
            left -= (pages[count].end - pages[count].start) / PAGE_BYTES;
            count++;
        } else {
            dead->next++;
        }
    }
    return count;
}

/* The upkeep thread's. */
static struct spool_batch batch;

/* Their content is what stood there at the freeze: a page that has been written to since
 * was preserved before that, and keeps the place it has, also if that is only just now. */
static size_t fill_batch(struct snapshot *snapshot, const struct region *ranges,
                         size_t count, uint64_t pages[PAGES_AT_ONCE])
{
    uint32_t page;
    batch.count = 0;
    fault_point_hang(FAULT_HUNG_WITH_NOTES);
    for (size_t i = 0; i < count; i++)
        for (uint64_t at = ranges[i].start; at < ranges[i].end; at += PAGE_BYTES)
            if (view_page_of(&snapshot->view, at, &page) &&
                !preserved_has(&snapshot->preserved, page)) {
                pages[batch.count] = at;
                spool_batch_add(&batch, page, (void *)(uintptr_t)at);
            }
    return batch.count;
}

/* The upkeep thread waits for the disk, the fault server only takes note, and nothing is held
 * meanwhile. What has been copied is what is preserved, also if the memory is written to or
 * freed at that time: then it was preserved before. A disk that fails here fails the save,
 * also one that would not have reached the limit. */
static int spool_all(struct snapshot *snapshot, const struct region *ranges, size_t count)
{
    uint64_t pages[PAGES_AT_ONCE];
    uint32_t place;
    size_t spooled = fill_batch(snapshot, ranges, count, pages);
    if (!spooled)
        return 0;
    uint64_t opening = deferred_free_opening();
    deferred_free_let_go();
    int error = spool_write_batch(&snapshot->preserved.spool, &batch, &place);
    if (!deferred_free_hold_again(opening))
        return -ECANCELED;
    if (!error)
        return fault_server_take_spooled(&snapshot->fault_server, pages, spooled, place);
    /* What has been saved by now stays so. */
    if (snapshot_phase(snapshot) == PHASE_SAVING && view_fail(&snapshot->view, error))
        snapshot_cancel_output(snapshot);
    return error;
}

/* First preserved, then dropped: a reader that finds a page of zeros finds it preserved
 * when it looks again. 0 or -errno. */
static int evict(struct snapshot *snapshot, const struct region *pages, size_t count)
{
    struct iovec ranges[PAGES_AT_ONCE];
    uint64_t bytes = 0;
    int error = fault_point(FAULT_EVICT_UNKEPT) ? 0 : spool_all(snapshot, pages, count);
    for (size_t i = 0; i < count; i++) {
        ranges[i] = (struct iovec){(void *)(uintptr_t)pages[i].start,
                                   pages[i].end - pages[i].start};
        bytes += ranges[i].iov_len;
    }
    if (!error)
        error = advice_give_many(ranges, count, MADV_DONTNEED);
    if (!error)
        atomic_fetch_add_explicit(&snapshot->evicted_bytes, bytes, memory_order_relaxed);
    return error;
}

/* The main thread may want it back at any moment. */
static bool evict_held(struct snapshot *snapshot, struct dead *dead)
{
    struct region pages[PAGES_AT_ONCE];
    size_t count;
    while (more_is_wanted(snapshot) && deferred_free_is_open() &&
           (count = take_portion(dead, pages)) != 0) {
        if (evict(snapshot, pages, count) != 0)
            return false;
        uint64_t opening = deferred_free_opening();
        deferred_free_let_go();
        sleep_usec(atomic_load_explicit(&snapshot->eviction_hurry, memory_order_relaxed)
                       ? SHORT_REST_USEC
                       : REST_USEC);
        if (!deferred_free_hold_again(opening))
            return false;
    }
    return true;
}

/* False when there is no more to evict now. */
static bool evict_some(struct snapshot *snapshot)
{
    struct dead dead = {0};
    dead.count = deferred_free_hold(dead.memory, NOTES_AT_ONCE);
    bool more = dead.count && evict_held(snapshot, &dead);
    deferred_free_let_go();
    return more;
}

bool eviction_run(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    uint64_t until = clock_usec() + RUN_USEC;
    while (more_is_wanted(snapshot) && evict_some(snapshot))
        if (clock_usec() >= until)
            return true;
    return false;
}
