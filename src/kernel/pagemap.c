#include "kernel/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kernel/fault_points.h"

/* Kernel headers older than the kernel we may run on lack these. */
struct scan_request {
    uint64_t size;
    uint64_t flags;
    uint64_t start;
    uint64_t end;
    uint64_t walk_end;
    uint64_t ranges;
    uint64_t range_count;
    uint64_t max_pages;
    uint64_t category_inverted;
    uint64_t category_mask;
    uint64_t category_anyof_mask;
    uint64_t return_mask;
};
/* One look at entries: those of a huge page. */
#define COUNTED_PAGES   512
#define SCAN            _IOWR('f', 16, struct scan_request)
#define CHECK_ASYNC     (UINT64_C(1) << 1)
#define PAGE_IS_WRITTEN (UINT64_C(1) << 1)
#define PAGE_IS_PRESENT (UINT64_C(1) << 3)
#define PAGE_IS_SWAPPED (UINT64_C(1) << 4)
#define PAGE_IS_PFNZERO (UINT64_C(1) << 5)
#define PAGE_IS_HUGE    (UINT64_C(1) << 6)
#define PAGE_IS_GUARD   (UINT64_C(1) << 8) /* Linux 6.15 */
/* An entry of the page map, one for each page. The last two: Linux 5.14, 6.15. */
#define ENTRY_IS_PRESENT   (UINT64_C(1) << 63)
#define ENTRY_IS_OWN       (UINT64_C(1) << 56)
#define ENTRY_IS_PROTECTED (UINT64_C(1) << 57)
#define ENTRY_IS_GUARD     (UINT64_C(1) << 58)
#define ENTRIES_AT_ONCE    256
#define PAGE_SHIFT         12
/* Ranges that one call tells of. */
#define SEEN_AT_ONCE 128

int pagemap_open(void)
{
    int descriptor = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

static int scan_pages(int pagemap, struct scan_request *request,
                      struct pagemap_range *ranges, size_t capacity, uint64_t *scanned)
{
    request->size = sizeof(*request);
    request->ranges = (uint64_t)(uintptr_t)ranges;
    request->range_count = capacity;
    int count = ioctl(pagemap, SCAN, request);
    if (count < 0)
        return -errno;
    *scanned = request->walk_end;
    return count;
}

int pagemap_scan_written(int pagemap, uint64_t start, uint64_t end,
                         struct pagemap_range *ranges, size_t capacity, uint64_t *scanned)
{
    struct scan_request request = {
        .flags = CHECK_ASYNC,
        .start = start,
        .end = end,
        .category_mask = PAGE_IS_WRITTEN,
        .return_mask = PAGE_IS_WRITTEN,
    };
    return scan_pages(pagemap, &request, ranges, capacity, scanned);
}

/* "Written" is the kernel's word for what is not protected; but of a page that is not
 * there it says neither. The mark that protects an untouched page counts as swapped. */
static bool is_protected(const struct pagemap_range *range)
{
    return !(range->categories & PAGE_IS_WRITTEN) &&
           (range->categories & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED));
}

/* ---- what is not protected -------------------------------------------------------- */

/* Collects ranges that rise. */
struct collection {
    struct pagemap_range *ranges;
    size_t capacity;
    size_t count;
};

/* False when there is no room: nothing from `start` on has been collected. */
static bool collect_range(struct collection *to, uint64_t start, uint64_t end)
{
    if (start == end)
        return true;
    if (to->count && to->ranges[to->count - 1].end == start) {
        to->ranges[to->count - 1].end = end;
        return true;
    }
    if (to->count == to->capacity)
        return false;
    to->ranges[to->count++] = (struct pagemap_range){.start = start, .end = end};
    return true;
}

static bool is_safe(const struct pagemap_range *range)
{
    return is_protected(range) || (range->categories & PAGE_IS_GUARD);
}

/* PAGEMAP_SCAN tells nothing of what is not mapped: what lies between two ranges that are
 * protected is not. */
static int collect_by_scan(int pagemap, uint64_t start, uint64_t end,
                           struct collection *to, uint64_t *scanned)
{
    struct pagemap_range seen[SEEN_AT_ONCE];
    uint64_t at = start, until = end;
    struct scan_request request = {
        .start = start,
        .end = end,
        .return_mask =
            PAGE_IS_WRITTEN | PAGE_IS_PRESENT | PAGE_IS_SWAPPED | PAGE_IS_GUARD,
    };
    if (fault_point(FAULT_NO_PAGEMAP_SCAN))
        return -ENOTTY;
    int count = scan_pages(pagemap, &request, seen, SEEN_AT_ONCE, &until);
    if (count == -EINVAL) { /* it does not know guard pages, and has none */
        request.return_mask &= ~PAGE_IS_GUARD;
        count = scan_pages(pagemap, &request, seen, SEEN_AT_ONCE, &until);
    }
    if (count < 0)
        return count;
    for (int i = 0; i < count; i++) {
        if (!is_safe(&seen[i]))
            continue;
        if (!collect_range(to, at, seen[i].start)) {
            *scanned = at;
            return 0;
        }
        at = seen[i].end;
    }
    *scanned = collect_range(to, at, until) ? until : at;
    return 0;
}

static int collect_by_entries(int pagemap, uint64_t start, uint64_t end,
                              struct collection *to, uint64_t *scanned)
{
    uint64_t entries[ENTRIES_AT_ONCE];
    uint64_t pages = (end - start) >> PAGE_SHIFT;
    size_t wanted = pages < ENTRIES_AT_ONCE ? pages : ENTRIES_AT_ONCE;
    ssize_t got = pread(pagemap, entries, wanted * sizeof(*entries),
                        (off_t)((start >> PAGE_SHIFT) * sizeof(*entries)));
    if (got != (ssize_t)(wanted * sizeof(*entries)))
        return got < 0 ? -errno : -EIO;
    for (size_t i = 0; i < wanted; i++) {
        uint64_t page = start + (i << PAGE_SHIFT);
        *scanned = page;
        if (!(entries[i] & (ENTRY_IS_PROTECTED | ENTRY_IS_GUARD)) &&
            !collect_range(to, page, page + (1 << PAGE_SHIFT)))
            return 0;
    }
    *scanned = start + (wanted << PAGE_SHIFT);
    return 0;
}

int pagemap_find_unprotected(int pagemap, uint64_t start, uint64_t end,
                             struct pagemap_range *ranges, size_t capacity,
                             uint64_t *scanned)
{
    struct collection found = {.ranges = ranges, .capacity = capacity};
    int error = collect_by_scan(pagemap, start, end, &found, scanned);
    if (error == -ENOTTY)
        error = collect_by_entries(pagemap, start, end, &found, scanned);
    return error ? error : (int)found.count;
}

/* Of which all `bits` are set. */
static int count_entries(int pagemap, uint64_t start, uint64_t end, uint64_t bits)
{
    uint64_t entries[COUNTED_PAGES];
    size_t bytes = (size_t)((end - start) >> PAGE_SHIFT) * sizeof(entries[0]);
    if (bytes > sizeof(entries))
        return -EINVAL;
    ssize_t got = pread(pagemap, entries, bytes,
                        (off_t)((start >> PAGE_SHIFT) * sizeof(entries[0])));
    if (got < 0)
        return -errno;
    int count = 0;
    for (size_t i = 0; i < (size_t)got / sizeof(entries[0]); i++)
        count += (entries[i] & bits) == bits;
    return count;
}

int pagemap_count_own(int pagemap, uint64_t start, uint64_t end)
{
    return count_entries(pagemap, start, end, ENTRY_IS_PRESENT | ENTRY_IS_OWN);
}

int pagemap_count_present(int pagemap, uint64_t start, uint64_t end)
{
    struct pagemap_range ranges[SEEN_AT_ONCE];
    uint64_t pages = 0;
    for (uint64_t at = start, scanned = end; at < end; at = scanned) {
        struct scan_request request = {
            .start = at,
            .end = end,
            .category_inverted = PAGE_IS_PFNZERO,
            .category_mask = PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
            .return_mask = PAGE_IS_PRESENT,
        };
        int count = scan_pages(pagemap, &request, ranges, SEEN_AT_ONCE, &scanned);
        if (count < 0) /* the shared page of zeros, which costs nothing, counts too */
            return count_entries(pagemap, start, end, ENTRY_IS_PRESENT);
        for (int i = 0; i < count; i++)
            pages += (ranges[i].end - ranges[i].start) >> PAGE_SHIFT;
        if (scanned <= at)
            return -EIO;
    }
    return (int)pages;
}

int pagemap_is_huge(int pagemap, uint64_t start, uint64_t end)
{
    struct pagemap_range range;
    uint64_t scanned;
    struct scan_request request = {
        .start = start,
        .end = end,
        .category_mask = PAGE_IS_HUGE,
        .return_mask = PAGE_IS_HUGE,
    };
    int count = scan_pages(pagemap, &request, &range, 1, &scanned);
    if (count < 0)
        return count;
    return count == 1 && range.start == start && range.end == end;
}
