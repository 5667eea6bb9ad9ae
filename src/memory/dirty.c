#include "memory/dirty.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/pagemap.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"
#include "memory/vacant.h"

#define FEATURES                                                                         \
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC)
/* Boundaries of slices are those of huge pages, which would be split otherwise. */
#define SLICE_BYTES     (UINT64_C(16) << 20)
#define SLICE_REST_USEC 200
#define RANGES          256

static bool stopped(const _Atomic bool *stop)
{
    return atomic_load_explicit(stop, memory_order_acquire);
}

static int open_descriptors(struct dirty *dirty)
{
    uint64_t granted = 0;
    if (fault_point(FAULT_NO_DIRTY_TRACKING))
        return -ENOTTY;
    dirty->userfaultfd = userfaultfd_open();
    if (dirty->userfaultfd < 0)
        return dirty->userfaultfd;
    int error = userfaultfd_handshake(dirty->userfaultfd, FEATURES, &granted);
    if (!error && (granted & FEATURES) != FEATURES)
        error = -EINVAL;
    if (!error)
        dirty->pagemap = error = pagemap_open();
    if (error >= 0)
        return 0;
    close(dirty->userfaultfd);
    dirty->userfaultfd = -1;
    return error;
}

static void close_descriptors(struct dirty *dirty)
{
    close(dirty->userfaultfd);
    close(dirty->pagemap);
    dirty->userfaultfd = dirty->pagemap = -1;
}

int dirty_probe(void)
{
    struct dirty dirty = {.userfaultfd = -1, .pagemap = -1};
    struct pagemap_range range;
    uint64_t scanned;
    int error = open_descriptors(&dirty);
    if (error)
        return error;
    void *page = mmap(NULL, PAGE_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t start = (uint64_t)(uintptr_t)page;
    error = page == MAP_FAILED
                ? -ENOMEM
                : userfaultfd_register(dirty.userfaultfd, start, PAGE_BYTES);
    if (!error)
        error = pagemap_scan_written(dirty.pagemap, start, start + PAGE_BYTES, &range, 1,
                                     &scanned);
    close_descriptors(&dirty);
    if (page != MAP_FAILED)
        munmap(page, PAGE_BYTES);
    return error < 0 ? error : 0;
}

/* ---- slices ---------------------------------------------------------------------- */

static uint64_t slice_end(const struct region *region, uint64_t at)
{
    uint64_t end = round_down(at, SLICE_BYTES) + SLICE_BYTES;
    return end < region->end ? end : region->end;
}

/* Calls `work` for each slice until it fails or is stopped. */
static int visit_slices(const struct dirty *dirty, const _Atomic bool *stop,
                        int (*work)(const struct dirty *dirty, uint64_t start,
                                    uint64_t end, void *context),
                        void *context)
{
    for (size_t i = 0; i < dirty->regions.count; i++) {
        const struct region *region = &dirty->regions.regions[i];
        for (uint64_t at = region->start; at < region->end; at = slice_end(region, at)) {
            if (stopped(stop))
                return -ECANCELED;
            int error = work(dirty, at, slice_end(region, at), context);
            if (error)
                return error;
            if (slice_end(region, at) < region->end)
                sleep_usec(SLICE_REST_USEC);
        }
    }
    return 0;
}

static int protect_slice(const struct dirty *dirty, uint64_t start, uint64_t end,
                         void *context)
{
    (void)context;
    int error;
    do {
        error = userfaultfd_protect(dirty->userfaultfd, start, end - start);
    } while (error == -EAGAIN);
    return error == -ENOENT ? 0 : error; /* unmapped meanwhile */
}

static int release_slice(const struct dirty *dirty, uint64_t start, uint64_t end,
                         void *context)
{
    (void)context;
    userfaultfd_unregister(dirty->userfaultfd, start, end - start);
    return 0;
}

static void count_range(struct dirty_count *count, const struct pagemap_range *range,
                        uint64_t *last_chunk)
{
    count->pages += (range->end - range->start) / PAGE_BYTES;
    for (uint64_t chunk = range->start / CHUNK_BYTES;
         chunk <= (range->end - 1) / CHUNK_BYTES; chunk++) {
        if (chunk != *last_chunk)
            count->chunks++;
        *last_chunk = chunk;
    }
}

static int count_slice(const struct dirty *dirty, uint64_t start, uint64_t end,
                       void *context)
{
    struct pagemap_range ranges[RANGES];
    uint64_t last_chunk = UINT64_MAX;
    while (start < end) {
        uint64_t scanned = end;
        int found =
            pagemap_scan_written(dirty->pagemap, start, end, ranges, RANGES, &scanned);
        if (found == -EPERM) /* replaced by a mapping that is not counted */
            return 0;
        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            count_range(context, &ranges[i], &last_chunk);
        start = scanned > start ? scanned : end;
    }
    return 0;
}

/* ---- for the others -------------------------------------------------------------- */

static int copy_regions(struct dirty *dirty, const struct region_set *regions)
{
    /* Room for the gaps that vacant memory leaves. */
    size_t count = 2 * regions->count + 128;
    struct region *storage = memory_map(count * sizeof(*storage));
    if (!storage)
        return -ENOMEM;
    memcpy(storage, regions->regions, regions->count * sizeof(*storage));
    regions_init(&dirty->regions, storage, count);
    dirty->regions.count = regions->count;
    return 0;
}

/* What cannot be registered is not counted. */
static void register_regions(struct dirty *dirty)
{
    size_t kept = 0;
    for (size_t i = 0; i < dirty->regions.count; i++) {
        struct region region = dirty->regions.regions[i];
        if (userfaultfd_register(dirty->userfaultfd, region.start,
                                 region.end - region.start) == 0)
            dirty->regions.regions[kept++] = region;
    }
    dirty->regions.count = kept;
}

int dirty_open(struct dirty *dirty, const struct region_set *regions)
{
    int error = open_descriptors(dirty);
    if (error)
        return error;
    error = copy_regions(dirty, regions);
    if (error)
        close_descriptors(dirty);
    return error;
}

int dirty_start(struct dirty *dirty, const _Atomic bool *stop)
{
    int error = vacant_freeze(&dirty->regions);
    if (error)
        return error;
    register_regions(dirty);
    return visit_slices(dirty, stop, protect_slice, NULL);
}

int dirty_read(const struct dirty *dirty, struct dirty_count *count,
               const _Atomic bool *stop)
{
    memset(count, 0, sizeof(*count));
    return visit_slices(dirty, stop, count_slice, count);
}

void dirty_end(struct dirty *dirty, const _Atomic bool *stop)
{
    if (dirty->userfaultfd < 0)
        return;
    vacant_thaw();
    /* A forked child may hold the descriptor for a moment: regions first, so that
     * nothing depends on the close. */
    if (visit_slices(dirty, stop, release_slice, NULL) != 0)
        for (size_t i = 0; i < dirty->regions.count; i++)
            release_slice(dirty, dirty->regions.regions[i].start,
                          dirty->regions.regions[i].end, NULL);
    close_descriptors(dirty);
    memory_unmap(dirty->regions.regions, dirty->regions.capacity * sizeof(struct region));
    dirty->regions.regions = NULL;
}
