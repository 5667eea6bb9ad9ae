/* Pages and chunks: the units in which memory is preserved and looked up. */
#ifndef RDB_UFFD_MEMORY_PAGES_H
#define RDB_UFFD_MEMORY_PAGES_H

#include <stdint.h>

#define PAGE_SHIFT 12
#define PAGE_BYTES (UINT64_C(1) << PAGE_SHIFT)
#define PAGE_MASK  (PAGE_BYTES - 1)

/* A chunk is what one leaf of the page index covers: 1024 pages, whose entries
 * of four bytes fill exactly one page. */
#define CHUNK_SHIFT     22
#define CHUNK_BYTES     (UINT64_C(1) << CHUNK_SHIFT)
#define PAGES_PER_CHUNK (1u << (CHUNK_SHIFT - PAGE_SHIFT))

#define HUGE_PAGE_SHIFT     21
#define HUGE_PAGE_BYTES     (UINT64_C(1) << HUGE_PAGE_SHIFT)
#define PAGES_PER_HUGE_PAGE (1u << (HUGE_PAGE_SHIFT - PAGE_SHIFT))

static inline uint64_t round_down(uint64_t value, uint64_t unit)
{
    return value & ~(unit - 1);
}

static inline uint64_t round_up(uint64_t value, uint64_t unit)
{
    return round_down(value + unit - 1, unit);
}

#endif
