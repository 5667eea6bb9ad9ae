#include "view/view.h"

#include <errno.h>
#include <string.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/guarded_copy.h"
#include "kernel/memory.h"
#include "kernel/thread.h"

/* More mappings than the kernel's default allows a process to have. */
#define REGION_CAPACITY 65536
/* Of so many reads of live memory one is timed, a short one. What misses caches and TLB
 * takes a tenth of SLOW_NSEC; an interrupt, or a page that must come from swap, is one
 * among many. Of reads that are not of where another has just been, two in three, one slow
 * one in 32 makes a save twice as long. */
#define READS_PER_TIMED 64
#define SHORT_READ      256
#define TIMED_TO_JUDGE  512
#define SLOW_TO_JUDGE   10
#define SLOW_NSEC       2000
#define NOT_KEPT        UINT32_MAX

int view_create(struct view *view, struct preserved *preserved)
{
    memset(view, 0, sizeof(*view));
    view->regions = memory_map(REGION_CAPACITY * sizeof(*view->regions));
    if (!view->regions)
        return -ENOMEM;
    view->region_capacity = REGION_CAPACITY;
    view->preserved = preserved;
    return 0;
}

void view_destroy(struct view *view)
{
    memory_unmap(view->regions, view->region_capacity * sizeof(*view->regions));
    view->regions = NULL;
}

int view_set_regions(struct view *view, const struct region_set *regions)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    if (regions->count > view->region_capacity)
        return -ENOSPC;
    uint64_t chunks = 0, bytes = 0;
    for (size_t i = 0; i < regions->count; i++) {
        const struct region *region = &regions->regions[i];
        view->regions[i] =
            (struct view_region){region->start, region->end, (uint32_t)chunks};
        bytes += region->end - region->start;
        chunks += ((region->end - 1) >> CHUNK_SHIFT) - (region->start >> CHUNK_SHIFT) + 1;
    }
    if (chunks > UINT32_MAX / PAGES_PER_CHUNK)
        return -ENOSPC;
    view->region_count = regions->count;
    view->chunk_count = (uint32_t)chunks;
    view->bytes = bytes;
    atomic_store_explicit(&view->error, 0, memory_order_relaxed);
    return 0;
}

bool view_fail(struct view *view, int error)
{
    int none = 0;
    return atomic_compare_exchange_strong_explicit(
        &view->error, &none, error, memory_order_seq_cst, memory_order_relaxed);
}

/* The first region that ends after `address`. */
static const struct view_region *region_at_or_after(const struct view *view,
                                                    uint64_t address)
{
    size_t low = 0, high = view->region_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (view->regions[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low == view->region_count ? NULL : &view->regions[low];
}

static const struct view_region *find_region(const struct view *view, uint64_t address)
{
    const struct view_region *region = region_at_or_after(view, address);
    return region && region->start <= address ? region : NULL;
}

uint64_t view_first_from(const struct view *view, uint64_t address)
{
    const struct view_region *region = region_at_or_after(view, address);
    if (!region)
        return 0;
    return address > region->start ? address : region->start;
}

bool view_overlaps(const struct view *view, uint64_t start, uint64_t end)
{
    const struct view_region *region = region_at_or_after(view, start);
    return region && region->start < end;
}

/* Chunks are counted from the aligned start of the region's first one. */
static uint32_t chunk_in_region(uint64_t region_start, uint32_t first_chunk,
                                uint64_t address)
{
    return first_chunk +
           (uint32_t)((address >> CHUNK_SHIFT) - (region_start >> CHUNK_SHIFT));
}

bool view_page_of(const struct view *view, uint64_t address, uint32_t *page)
{
    const struct view_region *region = find_region(view, address);
    if (!region)
        return false;
    *page =
        chunk_in_region(region->start, region->first_chunk, address) * PAGES_PER_CHUNK +
        (uint32_t)(address >> PAGE_SHIFT) % PAGES_PER_CHUNK;
    return true;
}

void view_reader_init(struct view_reader *reader, struct view *view)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    memset(reader, 0, sizeof(*reader));
    reader->view = view;
}

void view_reader_init_live(struct view_reader *reader, struct checked_reader *live)
{
    DEMAND_MAIN_THREAD();
    memset(reader, 0, sizeof(*reader));
    reader->live = live;
}

static bool enter(struct view_reader *reader, frozen_address address)
{
    const struct view_region *region = find_region(reader->view, address);
    if (!region)
        return false;
    reader->region_start = region->start;
    reader->region_end = region->end;
    reader->region_first_chunk = region->first_chunk;
    return true;
}

static bool enter_region(struct view_reader *reader, uint64_t from, uint64_t length)
{
    return enter(reader, from) && length <= reader->region_end - from;
}

static uint32_t page_in_region(const struct view_reader *reader, frozen_address address)
{
    return chunk_in_region(reader->region_start, reader->region_first_chunk, address) *
               PAGES_PER_CHUNK +
           (uint32_t)(address >> PAGE_SHIFT) % PAGES_PER_CHUNK;
}

static bool is_in_region(const struct view_reader *reader, frozen_address address)
{
    return address >= reader->region_start && address < reader->region_end;
}

/* Its page, if that has been preserved, else NOT_KEPT. */
static uint32_t kept_page(struct view_reader *reader, frozen_address address)
{
    if (!is_in_region(reader, address) && !enter(reader, address))
        return NOT_KEPT;
    uint32_t page = page_in_region(reader, address);
    return preserved_has(reader->view->preserved, page) ? page : NOT_KEPT;
}

bool view_is_memory(struct view_reader *reader, frozen_address address)
{
    if (!reader->view)
        return false;
    uint32_t page = kept_page(reader, address);
    return page == NOT_KEPT || preserved_is_raw(reader->view->preserved, page);
}

/* Looks for the region too: a table and what its buckets lead to are seldom in the same, and
 * a hint at a live page that is not what will be read is worth nothing.
 *
 * In three rounds, since what an instruction waits for (the translation of an address, an
 * index entry) keeps all but the next few dozen instructions from being begun. */
void view_give_hints(struct view_reader *reader)
{
    const struct preserved *preserved = reader->view ? reader->view->preserved : NULL;
    const void *places[VIEW_HINTS];
    uint32_t kept[VIEW_HINTS]; /* pages that have been preserved */
    size_t count = reader->hint_count;
    reader->hint_count = 0;
    for (size_t i = 0; i < count; i++) {
        frozen_address at = reader->hints[i];
        places[i] = (const void *)(uintptr_t)at;
        kept[i] = preserved ? kept_page(reader, at) : NOT_KEPT;
        if (kept[i] != NOT_KEPT)
            preserved_prefetch_entry(preserved, kept[i]);
    }
    for (size_t i = 0; i < count; i++)
        if (kept[i] != NOT_KEPT)
            places[i] = preserved_place(preserved, kept[i], reader->hints[i] & PAGE_MASK);
    for (size_t i = 0; i < count; i++)
        __builtin_prefetch(places[i], 0, 3);
}

int view_check(struct view_reader *reader, frozen_address from, uint64_t length)
{
    if (!reader->view)
        return length <= reader->live->allowed ? 0 : -E2BIG;
    return enter_region(reader, from, length) ? 0 : -EFAULT;
}

/* Live bytes that the server may be writing at this moment: what was torn is
 * thrown away by the caller. ThreadSanitizer does not see into guarded_copy(). */
static inline int copy_live(void *to, frozen_address from, size_t length)
{
    const void *live = (const void *)(uintptr_t)from;
    live = fault_point_wild(FAULT_WILD_READ, fault_point_lost(FAULT_LOST_PAGE, live));
    int error = guarded_copy(to, live, length);
    /* The copy before the second look: see the picture in view.h. */
    atomic_thread_fence(memory_order_acquire);
    return error;
}

/* Copies, and takes the time. */
static int copy_timed(struct view_reader *reader, void *to, frozen_address from,
                      size_t length)
{
    uint64_t began = clock_nsec();
    int error = copy_live(to, from, length);
    bool slow = clock_nsec() - began > SLOW_NSEC || fault_point(FAULT_SLOW_READS);
    reader->until_timed = READS_PER_TIMED;
    reader->timed_slow += slow;
    if (reader->timed_slow == SLOW_TO_JUDGE)
        atomic_store_explicit(&reader->view->slow, true, memory_order_relaxed);
    if (++reader->timed == TIMED_TO_JUDGE)
        reader->timed = reader->timed_slow = 0;
    return error;
}

static inline int copy(struct view_reader *reader, void *to, frozen_address from,
                       size_t length)
{
    if (reader->until_timed)
        reader->until_timed--;
    else if (length <= SHORT_READ)
        return copy_timed(reader, to, from, length);
    return copy_live(to, from, length);
}

static inline int view_error(const struct view *view)
{
    return atomic_load_explicit(&view->error, memory_order_relaxed);
}

/* `length` bytes inside one page. */
static int read_in_page(struct view_reader *reader, uint32_t page, void *to,
                        frozen_address from, size_t length)
{
    struct preserved *preserved = reader->view->preserved;
    size_t offset = from & PAGE_MASK;
    if (!preserved_has(preserved, page)) {
        int error = copy(reader, to, from, length);
        if (!preserved_has(preserved, page))
            return error ? error : view_error(reader->view);
    }
    reader->preserved_reads++;
    int error = preserved_read(preserved, page, offset, to, length);
    return error ? error : view_error(reader->view);
}

static int read_by_pages(struct view_reader *reader, uint32_t chunk, void *to,
                         frozen_address from, size_t length)
{
    uint32_t page =
        chunk * PAGES_PER_CHUNK + (uint32_t)(from >> PAGE_SHIFT) % PAGES_PER_CHUNK;
    while (length) {
        size_t in_page = PAGE_BYTES - (from & PAGE_MASK);
        if (in_page > length)
            in_page = length;
        int error = read_in_page(reader, page, to, from, in_page);
        if (error)
            return error;
        to = (char *)to + in_page;
        from += in_page;
        length -= in_page;
        page++;
    }
    return 0;
}

int view_read(struct view_reader *reader, void *to, frozen_address from, size_t length)
{
    if (from < reader->region_start || from >= reader->region_end ||
        length > reader->region_end - from) {
        if (!length)
            return 0;
        if (!reader->view)
            return checked_read(reader->live, to, from, length);
        if (fault_point(FAULT_CORRUPT_POINTER) || !enter_region(reader, from, length))
            return -EFAULT;
    }
    uint32_t chunk =
        chunk_in_region(reader->region_start, reader->region_first_chunk, from);
    if (((from ^ (from + length - 1)) >> PAGE_SHIFT) == 0)
        return read_in_page(reader,
                            chunk * PAGES_PER_CHUNK +
                                (uint32_t)(from >> PAGE_SHIFT) % PAGES_PER_CHUNK,
                            to, from, length);
    bool one_chunk = ((from ^ (from + length - 1)) >> CHUNK_SHIFT) == 0;
    const struct preserved *preserved = reader->view->preserved;
    if (one_chunk && preserved_chunk_is_empty(preserved, chunk)) {
        int error = copy_live(to, from, length);
        if (preserved_chunk_is_empty(preserved, chunk))
            return error ? error : view_error(reader->view);
    }
    return read_by_pages(reader, chunk, to, from, length);
}
