#include "kernel/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>

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
#define SCAN            _IOWR('f', 16, struct scan_request)
#define CHECK_ASYNC     (UINT64_C(1) << 1)
#define PAGE_IS_WRITTEN (UINT64_C(1) << 1)
#define PAGE_IS_PRESENT (UINT64_C(1) << 3)
#define PAGE_IS_SWAPPED (UINT64_C(1) << 4)
#define PAGE_IS_HUGE    (UINT64_C(1) << 6)

int pagemap_open(void)
{
    int descriptor = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

static int scan(int pagemap, struct scan_request *request, struct pagemap_range *ranges,
                size_t capacity, uint64_t *scanned)
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
    return scan(pagemap, &request, ranges, capacity, scanned);
}

int pagemap_scan_untouched(int pagemap, uint64_t start, uint64_t end,
                           struct pagemap_range *ranges, size_t capacity,
                           uint64_t *scanned)
{
    struct scan_request request = {
        .start = start,
        .end = end,
        .category_inverted = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        .category_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
        .return_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
    };
    return scan(pagemap, &request, ranges, capacity, scanned);
}

int pagemap_scan_protection(int pagemap, uint64_t start, uint64_t end,
                            struct pagemap_range *ranges, size_t capacity,
                            uint64_t *scanned)
{
    struct scan_request request = {
        .start = start,
        .end = end,
        .return_mask = PAGE_IS_WRITTEN | PAGE_IS_PRESENT | PAGE_IS_SWAPPED,
    };
    return scan(pagemap, &request, ranges, capacity, scanned);
}

/* "Written" is the kernel's word for what is not protected; but of a page that is not
 * there it says neither. The mark that protects an untouched page counts as swapped. */
bool pagemap_is_protected(const struct pagemap_range *range)
{
    return !(range->categories & PAGE_IS_WRITTEN) &&
           (range->categories & (PAGE_IS_PRESENT | PAGE_IS_SWAPPED));
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
    int count = scan(pagemap, &request, &range, 1, &scanned);
    return count < 0 ? count : count == 1 && range.start == start && range.end == end;
}
