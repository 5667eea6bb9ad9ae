/* Which pages were written, protected, or are huge, as PAGEMAP_SCAN tells
 * (Linux 6.7). */
#ifndef RDB_UFFD_KERNEL_PAGEMAP_H
#define RDB_UFFD_KERNEL_PAGEMAP_H

#include <stddef.h>
#include <stdint.h>

/* The kernel's struct page_region. */
struct pagemap_range {
    uint64_t start;
    uint64_t end;
    uint64_t categories;
};

/* Opens this process's page map. The descriptor, or -errno. */
int pagemap_open(void);
/* The ranges of pages in [start, end) that lost their write protection since it was
 * set; all of it must belong to a userfaultfd with UFFD_FEATURE_WP_ASYNC. Returns how
 * many ranges were filled in, or -errno: -ENOTTY on a kernel without the call. Where
 * the scan ended is stored in `*scanned`: `end`, or less when `ranges` was full. */
int pagemap_scan_written(int pagemap, uint64_t start, uint64_t end,
                         struct pagemap_range *ranges, size_t capacity,
                         uint64_t *scanned);
/* The ranges of [start, end) in which a page may be written to without a fault, or is not
 * there at all: not mapped, or mapped and neither touched nor marked. Guard pages
 * (MADV_GUARD_INSTALL) are not among them, nobody can write to those. Also on kernels
 * before 6.7, from the page map itself. Returns and `*scanned` as above, but a range may
 * be cut in two, and `capacity` must be at least 2. Any thread, no memory but the
 * stack. */
int pagemap_find_unprotected(int pagemap, uint64_t start, uint64_t end,
                             struct pagemap_range *ranges, size_t capacity,
                             uint64_t *scanned);
/* How many pages of [start, end), at most 2 MB, are in memory, or -errno. The kernel's
 * shared page of zeros is not one of them; before Linux 6.7 nothing tells it apart. */
int pagemap_count_present(int pagemap, uint64_t start, uint64_t end);
/* Of these, how many no other process has: a forked child shares all until one of the two
 * writes. Or -errno. */
int pagemap_count_own(int pagemap, uint64_t start, uint64_t end);
/* 1 if all of [start, end) is in huge pages, 0 if not, or -errno. */
int pagemap_is_huge(int pagemap, uint64_t start, uint64_t end);

#endif
