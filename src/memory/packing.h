/* One page, packed with LZ4: what a packed page looks like inside a slot.
 *
 *  slot  ┌────────┬───────────┬───pad──┬────────┬──────────┬──────────┐
 *        │ header │ LZ4 bytes │ to 64  │ header │ …        │ NO_PAGE  │
 *        └────────┴───────────┴────────┴────────┴──────────┴──────────┘
 *
 * Pieces start at multiples of 64 bytes, so that a place fits the 30 bits an
 * index entry has for it.
 */
#ifndef RDB_UFFD_MEMORY_PACKING_H
#define RDB_UFFD_MEMORY_PACKING_H

#include <stddef.h>
#include <stdint.h>

#include "memory/pages.h"

#define PACKED_UNIT           64u
#define PACKED_UNITS_PER_SLOT ((uint32_t)(PAGE_BYTES / PACKED_UNIT))
/* A page that shrinks to no less than this is kept raw: two of them would not
 * share a slot, and unpacking costs every reader. */
#define PACKED_BYTES_MAX 2000u

struct packed_header {
    uint32_t page;
    uint16_t length; /* of the LZ4 bytes that follow */
    uint16_t check;  /* ~length: tells a damaged header */
};

/* Work space of the one thread that packs; allocated with memory_map(). */
struct packing {
    unsigned char state[16416 + 64]; /* LZ4's own work space */
    unsigned char packed[PACKED_BYTES_MAX + 64];
    unsigned char page[PAGE_BYTES];
};

/* Packs `page_bytes` into packing->packed. Returns the length, 0 when the page
 * does not shrink enough. */
size_t packing_pack(struct packing *packing, const void *page_bytes);
/* Bytes of a slot that a packed page of `length` bytes takes. */
uint32_t packing_room(size_t length);
/* Unpacks the piece at `piece` to 4096 bytes at `to`. `room`: bytes up to the
 * end of its slot. 0, or -EIO when it is damaged. Any thread. */
int packing_unpack(const void *piece, size_t room, void *to);

#endif
