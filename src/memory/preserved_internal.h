/* Shared by the two files of the preserved-page buffer: preserved.c (life,
 * index, slots) and preserved_moving.c (packing and spooling). */
#ifndef RDB_UFFD_MEMORY_PRESERVED_INTERNAL_H
#define RDB_UFFD_MEMORY_PRESERVED_INTERNAL_H

#include "memory/preserved.h"

#define NO_SLOT UINT32_MAX
#define NO_PAGE UINT32_MAX
/* What a slot costs: its page and its places in the two tables. */
#define SLOT_BYTES (PAGE_BYTES + sizeof(uint32_t) + sizeof(uint8_t))

enum slot_kind {
    SLOT_FREE,
    SLOT_LEAF,
    SLOT_RAW,
    SLOT_INCOMPRESSIBLE, /* raw, and packing it was tried */
    SLOT_BLOCK,          /* packed pages */
};

/* An index entry: two bits say where the page is, thirty bits where there.
 * 0: not preserved. MOVING: its slot is being rewritten, look again. */
enum entry_tag { ENTRY_RAW = 1, ENTRY_PACKED = 2, ENTRY_SPOOLED = 3 };
#define ENTRY_MOVING           4u
#define ENTRY_TAG(entry)       ((entry)&3u)
#define ENTRY_PLACE(entry)     ((entry) >> 2)
#define ENTRY_MAKE(tag, place) (((uint32_t)(place) << 2) | (uint32_t)(tag))

static inline void *slot_bytes(const struct preserved *preserved, uint32_t slot)
{
    return preserved->slots + (uint64_t)slot * PAGE_BYTES;
}

/* The entry of a page whose chunk has a leaf; NULL when it has none. */
static inline _Atomic uint32_t *entry_of(const struct preserved *preserved, uint32_t page)
{
    uint32_t leaf = atomic_load_explicit(&preserved->directory[page / PAGES_PER_CHUNK],
                                         memory_order_acquire);
    if (!leaf)
        return NULL;
    return (_Atomic uint32_t *)slot_bytes(preserved, leaf - 1) + page % PAGES_PER_CHUNK;
}

/* A slot with memory, or NO_SLOT at the limit. */
uint32_t slot_take(struct preserved *preserved, enum slot_kind kind);
void slot_free(struct preserved *preserved, uint32_t slot);
/* Gives the memory behind one free slot back. False when there is none. */
bool slot_cool_one(struct preserved *preserved);
/* How many slots the limit allows now. */
uint32_t slots_allowed(const struct preserved *preserved);

/* Packs one raw page; a slot becomes free, or more room in a block.
 * 0, or -ENOENT when nothing is left to pack. */
int moving_pack_one(struct preserved *preserved);
/* Writes one raw page, or a block of packed ones, to the spool and frees its
 * slot. 0, -ENOENT when there is none, -errno of the spool. */
int moving_spool_one(struct preserved *preserved);

#endif
