/* Moving preserved pages to where they cost less: packed, or in the spool. */
#include <errno.h>
#include <string.h>

#include "memory/packing.h"
#include "memory/preserved_internal.h"

/* The next slot of one of two kinds, round robin; NO_SLOT if there is none. */
static uint32_t next_of_kind(struct preserved *preserved, enum slot_kind kind,
                             enum slot_kind or_kind)
{
    for (uint32_t looked = 0; looked < preserved->unused_from; looked++) {
        if (preserved->sweep >= preserved->unused_from)
            preserved->sweep = 0;
        uint32_t slot = preserved->sweep++;
        uint8_t found = preserved->slot_kinds[slot];
        if (found == kind || found == or_kind)
            return slot;
    }
    return NO_SLOT;
}

static void publish(struct preserved *preserved, uint32_t page, uint32_t entry)
{
    atomic_store_explicit(entry_of(preserved, page), entry, memory_order_release);
}

static void write_piece(struct preserved *preserved, uint32_t block, uint32_t at,
                        uint32_t page, size_t length)
{
    unsigned char *piece = (unsigned char *)slot_bytes(preserved, block) + at;
    struct packed_header header = {page, (uint16_t)length, (uint16_t)~length};
    memcpy(piece, &header, sizeof(header));
    memcpy(piece + sizeof(header), preserved->packing->packed, length);
    uint32_t end = at + packing_room(length);
    if (end < PAGE_BYTES) {
        struct packed_header last = {NO_PAGE, 0, 0};
        memcpy(piece + packing_room(length), &last, sizeof(last));
    }
    preserved->open_block = block;
    preserved->open_block_used = end;
    publish(preserved, page,
            ENTRY_MAKE(ENTRY_PACKED, block * PACKED_UNITS_PER_SLOT + at / PACKED_UNIT));
}

/* The page's own slot becomes the block that takes its packed bytes. Readers
 * of the raw page are kept out by MOVING until the new bytes are there. */
static void turn_into_block(struct preserved *preserved, uint32_t slot, uint32_t page,
                            size_t length)
{
    publish(preserved, page, ENTRY_MOVING);
    /* A reader that loaded RAW earlier checks the entry after its copy: that
     * check must not see RAW once the slot's bytes have begun to change. */
    atomic_thread_fence(memory_order_seq_cst);
    preserved->slot_kinds[slot] = SLOT_BLOCK;
    write_piece(preserved, slot, 0, page, length);
}

int moving_pack_one(struct preserved *preserved)
{
    if (!preserved->raw_count)
        return -ENOENT;
    uint32_t slot = next_of_kind(preserved, SLOT_RAW, SLOT_RAW);
    if (slot == NO_SLOT)
        return -ENOENT;
    preserved->raw_count--;
    uint32_t page = preserved->slot_table[slot];
    size_t length = packing_pack(preserved->packing, slot_bytes(preserved, slot));
    if (!length) {
        preserved->slot_kinds[slot] = SLOT_INCOMPRESSIBLE;
        return 0;
    }
    atomic_fetch_add_explicit(&preserved->pages_packed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&preserved->packed_bytes, packing_room(length),
                              memory_order_relaxed);
    if (preserved->open_block != NO_SLOT &&
        preserved->open_block_used + packing_room(length) <= PAGE_BYTES) {
        write_piece(preserved, preserved->open_block, preserved->open_block_used, page,
                    length);
        atomic_thread_fence(memory_order_seq_cst);
        slot_free(preserved, slot);
    } else {
        turn_into_block(preserved, slot, page, length);
    }
    return 0;
}

static int spool_page(struct preserved *preserved, uint32_t page, const void *bytes)
{
    uint32_t number;
    int error = spool_write(&preserved->spool, bytes, &number);
    if (error)
        return error;
    publish(preserved, page, ENTRY_MAKE(ENTRY_SPOOLED, number));
    atomic_fetch_add_explicit(&preserved->pages_spooled, 1, memory_order_relaxed);
    return 0;
}

static int spool_block(struct preserved *preserved, uint32_t slot)
{
    unsigned char *block = slot_bytes(preserved, slot);
    for (uint32_t at = 0; at + sizeof(struct packed_header) <= PAGE_BYTES;) {
        struct packed_header header;
        memcpy(&header, block + at, sizeof(header));
        if (header.page == NO_PAGE)
            break;
        int error = packing_unpack(block + at, PAGE_BYTES - at, preserved->packing->page);
        if (!error)
            error = spool_page(preserved, header.page, preserved->packing->page);
        if (error)
            return error;
        atomic_fetch_sub_explicit(&preserved->pages_packed, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&preserved->packed_bytes, packing_room(header.length),
                                  memory_order_relaxed);
        at += packing_room(header.length);
    }
    return 0;
}

int moving_spool_one(struct preserved *preserved)
{
    uint32_t slot = next_of_kind(preserved, SLOT_RAW, SLOT_INCOMPRESSIBLE);
    bool block = slot == NO_SLOT;
    if (block)
        slot = next_of_kind(preserved, SLOT_BLOCK, SLOT_BLOCK);
    if (slot == NO_SLOT)
        return -ENOENT;
    int error = block ? spool_block(preserved, slot)
                      : spool_page(preserved, preserved->slot_table[slot],
                                   slot_bytes(preserved, slot));
    if (error)
        return error;
    if (preserved->slot_kinds[slot] == SLOT_RAW)
        preserved->raw_count--;
    if (slot == preserved->open_block)
        preserved->open_block = NO_SLOT;
    atomic_thread_fence(memory_order_seq_cst);
    slot_free(preserved, slot);
    return 0;
}
