/* Shared by the files of the preserved-page buffer: preserved.c (life, index),
 * preserved_slots.c (which slots are free), preserved_moving.c (packing and spooling) and
 * preserved_reading.c. */
#ifndef RDB_UFFD_MEMORY_PRESERVED_INTERNAL_H
#define RDB_UFFD_MEMORY_PRESERVED_INTERNAL_H

#include "memory/packing.h"
#include "memory/preserved.h"

#define NO_SLOT UINT32_MAX
#define NO_PAGE UINT32_MAX
/* What a slot costs: its page and its places in the two tables. */
#define SLOT_BYTES (PAGE_BYTES + sizeof(uint32_t) + sizeof(uint8_t))

enum slot_kind {
    SLOT_FREE,
    SLOT_LEAF,
    SLOT_RAW,
    SLOT_PACKING,        /* raw, and with the packer: stays where it is */
    SLOT_INCOMPRESSIBLE, /* raw, and packing it was tried */
    SLOT_LOG,            /* a part of a packed log */
};

/* An index entry: two bits say where the page is, thirty bits where there.
 * 0: not preserved. MOVING: its slot is being rewritten, look again. FORGONE: nothing is
 * kept, nor will be. */
enum entry_tag { ENTRY_RAW = 1, ENTRY_PACKED = 2, ENTRY_SPOOLED = 3 };
#define ENTRY_MOVING           4u
#define ENTRY_FORGONE          8u
#define ENTRY_TAG(entry)       ((entry)&3u)
#define ENTRY_PLACE(entry)     ((entry) >> 2)
#define ENTRY_MAKE(tag, place) (((uint32_t)(place) << 2) | (uint32_t)(tag))

/* A place in a packed log counts units of 64 bytes: thirty bits reach as many
 * slots (64 GB). Pages beyond them stay raw. */
#define UNITS_PER_SLOT ((uint32_t)(PAGE_BYTES / PIECE_UNIT))
#define LOG_SLOTS_MAX  ((1u << 30) / UNITS_PER_SLOT)

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

/* What a reader gets of a slot that is used anew meanwhile leads it to bytes of another page,
 * or to none: it looks at the index entry before it believes them. */
static inline uint32_t slot_word(const struct preserved *preserved, uint32_t slot)
{
    return atomic_load_explicit(&preserved->slot_table[slot], memory_order_relaxed);
}

static inline void slot_set_word(struct preserved *preserved, uint32_t slot,
                                 uint32_t word)
{
    atomic_store_explicit(&preserved->slot_table[slot], word, memory_order_relaxed);
}

/* A slot with memory, or NO_SLOT at the limit. */
uint32_t slot_take(struct preserved *preserved, enum slot_kind kind);
void slot_free(struct preserved *preserved, uint32_t slot);
/* Gives the memory behind free slots back, at most `count`, in one call. False
 * when there are none. */
bool slots_cool(struct preserved *preserved, uint32_t count);
/* Counts `more` slots as having memory, unless that passed the limit: the fault
 * server and the upkeep thread both take. */
bool slots_take_resident(struct preserved *preserved, uint32_t more);
/* How many slots the limit allows now. */
uint32_t slots_allowed(const struct preserved *preserved);

/* How many slots hold something. */
uint32_t slots_in_use(const struct preserved *preserved);

/* Copies `length` bytes of a packed log that begin `at` bytes behind the start of `slot`, going
 * on in the next slots. Returns false if the log does not go on there, or cannot be read. Any
 * thread; what a reader gets is worth nothing if the entry has changed meanwhile. */
bool log_copy(const struct preserved *preserved, uint32_t slot, uint32_t at, void *to,
              size_t length);

/* Puts what the packer has done in place. */
void moving_collect(struct preserved *preserved);
/* Gives the packer raw pages: at least `least` of them, or none. */
void moving_post(struct preserved *preserved, uint32_t least);
/* Packs one raw page without the packer's thread; a slot becomes free, or there
 * is more room in the log. 0, or -ENOENT when nothing is left to pack. */
int moving_pack_one(struct preserved *preserved);
/* Writes one raw page, or the oldest slot of a packed log, to the spool and
 * frees its slot. 0, -ENOENT when there is none, -errno of the spool. */
int moving_spool_one(struct preserved *preserved);
/* Writes a page that has no slot to the spool, packed first if `pack`. Returns
 * its entry through `entry`. 0 or -errno. */
int moving_spool_page(struct preserved *preserved, uint32_t page, const void *live,
                      bool pack, uint32_t *entry);
/* Packing a page takes less time than writing it to the spool. */
bool moving_pack_is_faster(const struct preserved *preserved);

#endif
