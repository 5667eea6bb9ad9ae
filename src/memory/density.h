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

#include <stdint.h>

#include "memory/regions.h"

struct density {
    unsigned windows; /* that were looked at and are half full at least */
    unsigned small;   /* of them, the ones without a hole that are in small pages */
    uint64_t pages;   /* of all windows, and those of them that hold something */
    uint64_t used;
};

/* Looks at `count` windows of the set, spread evenly; others each time. Memory that goes
 * away meanwhile is left out. 0 or -errno. One thread; some 0.6 ms for a window. */
int density_measure(const struct region_set *set, unsigned count,
                    struct density *density);

#endif
