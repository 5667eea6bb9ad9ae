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

int pagemap_open(void)
{
    int descriptor = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    return descriptor < 0 ? -errno : descriptor;
}

int pagemap_scan_written(int pagemap, uint64_t start, uint64_t end,
                         struct pagemap_range *ranges, size_t capacity, uint64_t *scanned)
{
    struct scan_request request = {
        .size = sizeof(request),
        .flags = CHECK_ASYNC,
        .start = start,
        .end = end,
        .ranges = (uint64_t)(uintptr_t)ranges,
        .range_count = capacity,
        .category_mask = PAGE_IS_WRITTEN,
        .return_mask = PAGE_IS_WRITTEN,
    };
    int count = ioctl(pagemap, SCAN, &request);
    if (count < 0)
        return -errno;
    *scanned = request.walk_end;
    return count;
}
