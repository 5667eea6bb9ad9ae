#include "standing.h"

/* Un-protecting takes the memory map's lock: in slices, so that a page fault of the server
 * waits for one slice only, and of a chunk each, which tells whether it was written to. */
#define SLICE_BYTES CHUNK_BYTES
#define REST_USEC   200

static bool is_wanted(const struct snapshot *snapshot)
{
    return snapshot->settings.standing_protection && snapshot->settings.enabled;
}

static uint64_t slice_end(uint64_t at, uint64_t end)
{
    uint64_t next = round_down(at, SLICE_BYTES) + SLICE_BYTES;
    return next < end ? next : end;
}

/* The slices of a region are the chunks that the preserved pages are counted by. */
static void release_region(struct snapshot *snapshot, const struct view_region *region,
                           bool only_written)
{
    uint32_t chunk = region->first_chunk;
    for (uint64_t at = region->start, end; at < region->end; at = end, chunk++) {
        end = slice_end(at, region->end);
        if (!only_written || !preserved_chunk_is_empty(&snapshot->preserved, chunk))
            heap_unprotect(&snapshot->heap, at, end);
    }
}

enum fault_duty standing_release(struct snapshot *snapshot)
{
    struct heap *heap = &snapshot->heap;
    bool stands = is_wanted(snapshot) &&
                  !atomic_load_explicit(&heap->disarmed, memory_order_acquire) &&
                  heap_may_stand(heap);
    for (size_t i = 0; i < snapshot->view.region_count; i++)
        release_region(snapshot, &snapshot->view.regions[i], stands);
    atomic_store_explicit(&heap->standing, stands ? STANDS : STANDS_NOT,
                          memory_order_release);
    return stands ? FAULTS_LIFTED : FAULTS_PARKED;
}

/* Not when the watchdog has given it up meanwhile: it parks the server itself. */
void standing_has_ended(struct snapshot *snapshot)
{
    uint32_t stood = STANDS;
    atomic_compare_exchange_strong_explicit(&snapshot->heap.standing, &stood, STANDS_NOT,
                                            memory_order_seq_cst, memory_order_relaxed);
    fault_server_park(&snapshot->fault_server);
}

/* The next slice from `*at` on, under heap_lock(). False when there is none: then it has
 * all ended. */
static bool lift_slice(struct snapshot *snapshot, uint64_t *at)
{
    const struct region *region = regions_at_or_after(&snapshot->heap.registered, *at);
    if (!region) {
        standing_has_ended(snapshot);
        return false;
    }
    uint64_t start = *at > region->start ? *at : region->start;
    *at = slice_end(start, region->end);
    heap_unprotect(&snapshot->heap, start, *at);
    return true;
}

void standing_end(struct snapshot *snapshot)
{
    uint64_t at = 0;
    while (heap_stands(&snapshot->heap) && lift_slice(snapshot, &at))
        ;
}

void standing_end_unwanted(struct snapshot *snapshot)
{
    uint64_t at = 0;
    bool more = heap_stands(&snapshot->heap) && !is_wanted(snapshot);
    while (more) {
        heap_lock(&snapshot->heap);
        more = snapshot_is_idle(snapshot) && heap_stands(&snapshot->heap) &&
               lift_slice(snapshot, &at);
        heap_unlock(&snapshot->heap);
        sleep_usec(REST_USEC);
    }
}
