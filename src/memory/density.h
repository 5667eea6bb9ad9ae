/* How dense a heap is: which part of its huge pages holds something.
 *
 * An allocator's block of 112 KB that holds a value of 100 KB leaves three of its 28 pages
 * untouched. In small pages they cost nothing; in a huge page they are there, as zeros,
 * and with values of such sizes the server would hold a fifth more memory than without
 * the module. So huge pages are asked for ahead only where they are filled:
 *
 *   window of 2 MB   [ used | used | zeros | used | … ]   in a huge page: by content
 *                    [ used | used |   –   | used | … ]   in small ones: by what is there
 *
 * Some windows, spread over the heap, stand for all. */
#ifndef RDB_UFFD_MEMORY_DENSITY_H
#define RDB_UFFD_MEMORY_DENSITY_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/regions.h"

struct density {
    unsigned windows; /* that were looked at and are half full at least */
    unsigned filled;  /* of them, those in which nearly every page holds something */
    unsigned small;   /* of those, the ones that are not in a huge page */
    uint64_t pages;   /* of all windows, and those of them that hold something */
    uint64_t used;
};

/* So many pages of a window make it filled: more than that is not worth a huge page. */
#define DENSITY_PAGES_LEAST (HUGE_PAGE_BYTES / PAGE_BYTES * 15 / 16)

/* Looks at `count` windows of the set, spread evenly; others each time. Memory that goes
 * away meanwhile is left out. 0 or -errno. One thread; some 0.6 ms for a window. */
int density_measure(const struct region_set *set, unsigned count,
                    struct density *density);

#endif
