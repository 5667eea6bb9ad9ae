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
#include "memory/decommitted.h"

#define FEATURES                                                                         \
    (UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC)
/* Boundaries of slices are those of huge pages, which would be split otherwise. */
#define SLICE_BYTES     (UINT64_C(16) << 20)
#define SLICE_REST_USEC 200
#define RANGES          256
/* 20 huge pages at least: enough that what lies in them is what lies in all. */
#define SAMPLE_BYTES_MIN (UINT64_C(40) << 20)
#define ONE_IN_MAX       32u

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

/* Of what begins at `at`: to the next multiple of `bytes`, or the region's end. */
static uint64_t part_end(const struct region *region, uint64_t at, uint64_t bytes)
{
    uint64_t end = round_down(at, bytes) + bytes;
    return end < region->end ? end : region->end;
}

static void rest_between_slices(const struct region *region, uint64_t at)
{
    if (at % SLICE_BYTES == 0 && at < region->end)
        sleep_usec(SLICE_REST_USEC);
}

typedef int (*page_work)(const struct dirty *dirty, uint64_t start, uint64_t end,
                         void *context);

/* Calls `work` for each huge page that is watched, or what there is of it, until it fails
 * or is stopped. `stop` NULL: all at once. */
static int visit_pages(const struct dirty *dirty, const _Atomic bool *stop,
                       page_work work, void *context)
{
    for (size_t i = 0; i < dirty->regions.count; i++) {
        const struct region *region = &dirty->regions.regions[i];
        for (uint64_t at = region->start, next; at < region->end; at = next) {
            next = part_end(region, at, HUGE_PAGE_BYTES);
            if (stop && stopped(stop))
                return -ECANCELED;
            int error =
                dirty_samples(&dirty->sampling, at) ? work(dirty, at, next, context) : 0;
            if (error)
                return error;
            if (stop)
                rest_between_slices(region, next);
        }
    }
    return 0;
}

static int protect_page(const struct dirty *dirty, uint64_t start, uint64_t end,
                        void *context)
{
    (void)context;
    int error;
    do {
        error = userfaultfd_protect(dirty->userfaultfd, start, end - start);
    } while (error == -EAGAIN);
    return error == -ENOENT ? 0 : error; /* unmapped meanwhile */
}

static void count_range(const struct dirty *dirty, struct dirty_count *count,
                        const struct pagemap_range *range)
{
    count->pages += (range->end - range->start) / PAGE_BYTES;
    if (!dirty->access_times)
        return;
    for (uint64_t page = range->start; page < range->end; page += PAGE_BYTES)
        access_times_count_page(dirty->access_times, page, &count->access_times);
}

static int count_page(const struct dirty *dirty, uint64_t start, uint64_t end,
                      void *context)
{
    struct pagemap_range ranges[RANGES];
    struct dirty_count *count = context;
    while (start < end) {
        uint64_t scanned = end;
        int found =
            pagemap_scan_written(dirty->pagemap, start, end, ranges, RANGES, &scanned);
        if (found == -EPERM) /* replaced by a mapping that is not counted */
            return 0;
        if (found < 0)
            return found;
        for (int i = 0; i < found; i++)
            count_range(dirty, count, &ranges[i]);
        start = scanned > start ? scanned : end;
    }
    return 0;
}

static int note_page(const struct dirty *dirty, uint64_t start, uint64_t end,
                     void *context)
{
    (void)context;
    access_times_note(dirty->access_times, start, end);
    return 0;
}

static int measure_page(const struct dirty *dirty, uint64_t start, uint64_t end,
                        void *context)
{
    (void)dirty;
    uint64_t *bytes = context;
    *bytes += end - start;
    return 0;
}

/* ---- for the others -------------------------------------------------------------- */

static int copy_regions(struct dirty *dirty, const struct region_set *regions)
{
    /* Room for the gaps that decommitted memory leaves. */
    size_t count = 2 * regions->count + 128;
    struct region *storage = memory_map(count * sizeof(*storage));
    if (!storage)
        return -ENOMEM;
    regions_init(&dirty->regions, storage, count);
    return regions_copy(regions, &dirty->regions);
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

struct dirty_sampling dirty_choose_sampling(uint64_t heap_bytes)
{
    unsigned one_in = 1;
    while (one_in < ONE_IN_MAX && heap_bytes / (2 * one_in) >= SAMPLE_BYTES_MIN)
        one_in *= 2;
    return (struct dirty_sampling){one_in, (unsigned)clock_usec() & (one_in - 1)};
}

int dirty_open(struct dirty *dirty, const struct region_set *regions,
               const struct dirty_sampling *sampling)
{
    int error = open_descriptors(dirty);
    if (error)
        return error;
    dirty->sampling = *sampling;
    error = copy_regions(dirty, regions);
    if (error)
        close_descriptors(dirty);
    return error;
}

int dirty_start(struct dirty *dirty, const _Atomic bool *stop)
{
    int error = decommitted_freeze(&dirty->regions);
    if (error)
        return error;
    register_regions(dirty);
    dirty->bytes = regions_bytes(&dirty->regions);
    dirty->sampled_bytes = 0;
    visit_pages(dirty, NULL, measure_page, &dirty->sampled_bytes);
    /* Looked at before they are protected: what is written in between differs, and counts
     * if it is written again. */
    dirty->access_times = access_times_create(dirty->sampled_bytes / PAGE_BYTES);
    if (dirty->access_times)
        error = visit_pages(dirty, stop, note_page, NULL);
    return error ? error : visit_pages(dirty, stop, protect_page, NULL);
}

/* Of all that was written, so much as of those pages that were looked at. */
static uint64_t without_accesses(const struct dirty_count *count)
{
    if (!count->access_times.noted)
        return count->pages;
    return (uint64_t)((double)count->pages * (double)count->access_times.changed /
                      (double)count->access_times.noted);
}

/* Of the sample, and of all. */
static uint64_t of_all(const struct dirty *dirty, uint64_t pages)
{
    if (!dirty->sampled_bytes)
        return pages;
    return (uint64_t)((double)pages * (double)dirty->bytes /
                      (double)dirty->sampled_bytes);
}

int dirty_read(const struct dirty *dirty, struct dirty_count *count,
               const _Atomic bool *stop)
{
    count->pages = 0;
    count->access_times = (struct access_times_count){0, 0};
    int error = visit_pages(dirty, stop, count_page, count);
    count->accessed = of_all(dirty, count->pages);
    count->pages = of_all(dirty, without_accesses(count));
    return error;
}

static void release_region(const struct dirty *dirty, const struct region *region,
                           const _Atomic bool *stop)
{
    for (uint64_t at = region->start, next; at < region->end; at = next) {
        next = stopped(stop) ? region->end : part_end(region, at, SLICE_BYTES);
        userfaultfd_unregister(dirty->userfaultfd, at, next - at);
        rest_between_slices(region, next);
    }
}

void dirty_end(struct dirty *dirty, const _Atomic bool *stop)
{
    if (dirty->userfaultfd < 0)
        return;
    decommitted_thaw();
    /* A forked child may hold the descriptor for a moment: regions first, so that
     * nothing depends on the close. */
    for (size_t i = 0; i < dirty->regions.count; i++)
        release_region(dirty, &dirty->regions.regions[i], stop);
    close_descriptors(dirty);
    access_times_destroy(dirty->access_times);
    dirty->access_times = NULL;
    memory_unmap(dirty->regions.regions, dirty->regions.capacity * sizeof(struct region));
    dirty->regions.regions = NULL;
}
