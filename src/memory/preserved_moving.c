/* Moving preserved pages to where they cost less: the packed log, or the spool.
 *
 * A page that moves is published at its new place before its old place is used
 * for anything else. Only where the new place is the old one (its own slot
 * becomes the end of the log) are readers kept out by ENTRY_MOVING meanwhile.
 */
#include <errno.h>
#include <string.h>

#include "kernel/fault_points.h"
#include "kernel/guarded_copy.h"
#include "memory/packer.h"
#include "memory/preserved_internal.h"

/* The next slot of this kind below `end`, round robin; NO_SLOT if there is none. */
static uint32_t next_of_kind(struct preserved *preserved, enum slot_kind kind,
                             uint32_t end)
{
    uint32_t from = preserved->sweep < end ? preserved->sweep : 0;
    const uint8_t *kinds = preserved->slot_kinds;
    const uint8_t *found = memchr(kinds + from, kind, end - from);
    if (!found)
        found = memchr(kinds, kind, from);
    if (!found)
        return NO_SLOT;
    uint32_t slot = (uint32_t)(found - kinds);
    preserved->sweep = slot + 1;
    return slot;
}

static uint32_t slots_used(const struct preserved *preserved)
{
    return atomic_load_explicit(&preserved->unused_from, memory_order_relaxed);
}

static uint32_t next_to_pack(struct preserved *preserved)
{
    if (!preserved->raw_count)
        return NO_SLOT;
    uint32_t end = slots_used(preserved);
    return next_of_kind(preserved, SLOT_RAW, end < LOG_SLOTS_MAX ? end : LOG_SLOTS_MAX);
}

static void publish_place(struct preserved *preserved, uint32_t page, uint32_t entry)
{
    atomic_store_explicit(entry_of(preserved, page), entry, memory_order_release);
}

/* ---- the packed logs ------------------------------------------------------------- */

bool log_copy(const struct preserved *preserved, uint32_t slot, uint32_t at, void *to,
              size_t length)
{
    while (length) {
        size_t part = 0;
        if (at < PAGE_BYTES)
            part = PAGE_BYTES - at < length ? PAGE_BYTES - at : length;
        if (part &&
            guarded_copy(to, (unsigned char *)slot_bytes(preserved, slot) + at, part))
            return false;
        to = (unsigned char *)to + part;
        length -= part;
        if (!length)
            break;
        slot = slot_word(preserved, slot);
        at = part ? 0 : at - (uint32_t)PAGE_BYTES;
        if (slot >= preserved->slot_count)
            return false;
    }
    return true;
}

static struct packed_log *log_of(struct preserved *preserved, const struct piece *piece)
{
    return piece->header.form == PIECE_WORDS ? &preserved->words_log
                                             : &preserved->lz4_log;
}

static uint32_t log_room(const struct packed_log *log)
{
    return log->last == NO_SLOT ? 0 : PAGE_BYTES - log->used;
}

static unsigned char *log_end(const struct preserved *preserved,
                              const struct packed_log *log)
{
    return (unsigned char *)slot_bytes(preserved, log->last) + log->used;
}

static uint32_t place_of_end(const struct packed_log *log)
{
    return log->last * UNITS_PER_SLOT + log->used / PIECE_UNIT;
}

/* Room in the last slot first, the rest in `slot`, which becomes the last one. */
static uint32_t write_across(struct preserved *preserved, struct packed_log *log,
                             uint32_t slot, const struct piece *piece)
{
    size_t bytes = piece_bytes(&piece->header);
    uint32_t room = log_room(log), last = log->last;
    uint32_t place = slot * UNITS_PER_SLOT;
    if (room) {
        memcpy(log_end(preserved, log), piece, bytes < room ? bytes : room);
        place = place_of_end(log);
    }
    if (bytes > room)
        memcpy(slot_bytes(preserved, slot), (const unsigned char *)piece + room,
               bytes - room);
    if (last == NO_SLOT) {
        log->first = slot;
        log->start = 0;
    } else {
        slot_set_word(preserved, last, slot);
    }
    log->last = slot;
    log->used = piece_room(&piece->header) - room;
    return place;
}

/* The page in `slot` becomes the next piece of its log. Its slot is free
 * afterwards, or the log's new end. */
static void log_add(struct preserved *preserved, uint32_t slot, const struct piece *piece)
{
    struct packed_log *log = log_of(preserved, piece);
    uint32_t page = piece->header.page, room = piece_room(&piece->header), place;
    bool fits = room <= log_room(log);
    if (fits) {
        memcpy(log_end(preserved, log), piece, piece_bytes(&piece->header));
        place = place_of_end(log);
        log->used += room;
    } else {
        publish_place(preserved, page, ENTRY_MOVING);
        /* A reader that loaded RAW earlier checks the entry after its copy: that
         * check must not see RAW once the slot's bytes have begun to change. */
        atomic_thread_fence(memory_order_seq_cst);
        preserved->slot_kinds[slot] = SLOT_LOG;
        place = write_across(preserved, log, slot, piece);
    }
    publish_place(preserved, page, ENTRY_MAKE(ENTRY_PACKED, place));
    atomic_fetch_add_explicit(&preserved->pages_packed, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&preserved->packed_bytes, room, memory_order_relaxed);
    if (!fits)
        return;
    atomic_thread_fence(memory_order_seq_cst);
    slot_free(preserved, slot);
}

/* ---- packing --------------------------------------------------------------------- */

static void put_in_place(struct preserved *preserved, uint32_t slot, size_t length,
                         const struct piece *piece)
{
    if (length)
        log_add(preserved, slot, piece);
    else
        preserved->slot_kinds[slot] = SLOT_INCOMPRESSIBLE;
}

void moving_collect(struct preserved *preserved)
{
    struct packer *packer = preserved->packer;
    for (struct packer_job *job; (job = packer_first_done(packer));) {
        put_in_place(preserved, job->slot, job->length, &job->piece);
        packer_take(packer);
    }
}

void moving_post(struct preserved *preserved, uint32_t least)
{
    struct packer *packer = preserved->packer;
    if (!preserved->raw_count || !packer_next_job(packer, least - 1))
        return;
    uint32_t count = 0;
    for (struct packer_job *job; (job = packer_next_job(packer, count)); count++) {
        uint32_t slot = next_to_pack(preserved);
        if (slot == NO_SLOT)
            break;
        preserved->slot_kinds[slot] = SLOT_PACKING;
        preserved->raw_count--;
        job->slot = slot;
        job->page = slot_word(preserved, slot);
        job->page_bytes = slot_bytes(preserved, slot);
    }
    packer_post(packer, count);
}

int moving_pack_one(struct preserved *preserved)
{
    struct packer *packer = preserved->packer;
    uint32_t slot = next_to_pack(preserved);
    if (slot == NO_SLOT)
        return -ENOENT;
    preserved->raw_count--;
    size_t length = piece_pack(&packer->own_piece, &packer->own_work,
                               slot_word(preserved, slot), slot_bytes(preserved, slot));
    put_in_place(preserved, slot, length, &packer->own_piece);
    return 0;
}

bool moving_pack_is_faster(const struct preserved *preserved)
{
    /* About two pages are packed for each slot that becomes free. */
    return atomic_load_explicit(&preserved->spool.usec_for_64, memory_order_relaxed) >
           2 * atomic_load_explicit(&preserved->packer->usec_for_64,
                                    memory_order_relaxed);
}

/* ---- the spool ------------------------------------------------------------------- */

static int spool_piece(struct preserved *preserved, const struct piece *piece,
                       uint32_t *entry)
{
    uint32_t place;
    int error = spool_write(&preserved->spool, piece, &place);
    if (error)
        return error;
    *entry = ENTRY_MAKE(ENTRY_SPOOLED, place);
    atomic_fetch_add_explicit(&preserved->pages_spooled, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&preserved->pages_spooled_at_limit, 1,
                              memory_order_relaxed);
    return 0;
}

int moving_spool_page(struct preserved *preserved, uint32_t page, const void *live,
                      bool pack, uint32_t *entry)
{
    struct packer *packer = preserved->packer;
    struct piece *piece = &packer->own_piece;
    void *copy = packer->own_page;
    int error =
        guarded_copy(copy, fault_point_lost(FAULT_LOST_PRESERVING, live), PAGE_BYTES);
    if (error)
        return error;
    if (!pack || !piece_pack(piece, &packer->own_work, page, copy))
        piece_of_raw(piece, page, copy);
    return spool_piece(preserved, piece, entry);
}

static int spool_slot(struct preserved *preserved, uint32_t slot)
{
    uint32_t page = slot_word(preserved, slot), entry;
    int error =
        moving_spool_page(preserved, page, slot_bytes(preserved, slot), false, &entry);
    if (error)
        return error;
    publish_place(preserved, page, entry);
    if (preserved->slot_kinds[slot] == SLOT_RAW)
        preserved->raw_count--;
    atomic_thread_fence(memory_order_seq_cst);
    slot_free(preserved, slot);
    return 0;
}

static bool log_slot_has_more(const struct packed_log *log)
{
    return log->start < (log->first == log->last ? log->used : PAGE_BYTES);
}

static int spool_first_piece(struct preserved *preserved, struct packed_log *log)
{
    struct piece *piece = &preserved->packer->own_piece;
    uint32_t slot = log->first, at = log->start, entry;
    log_copy(preserved, slot, at, &piece->header, sizeof(piece->header));
    if (!log_copy(preserved, slot, at, piece, piece_bytes(&piece->header)))
        return -EIO;
    int error = spool_piece(preserved, piece, &entry);
    if (error)
        return error;
    publish_place(preserved, piece->header.page, entry);
    uint32_t room = piece_room(&piece->header);
    atomic_fetch_sub_explicit(&preserved->pages_packed, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&preserved->packed_bytes, room, memory_order_relaxed);
    log->start += room;
    return 0;
}

/* The oldest slot of the log, with the piece that ends in the next one. */
static int spool_log_slot(struct preserved *preserved, struct packed_log *log)
{
    uint32_t slot = log->first;
    while (log_slot_has_more(log)) {
        int error = spool_first_piece(preserved, log);
        if (error)
            return error;
    }
    if (slot == log->last) {
        log->first = log->last = NO_SLOT;
        log->start = 0;
    } else {
        log->first = slot_word(preserved, slot);
        log->start -= PAGE_BYTES;
    }
    atomic_thread_fence(memory_order_seq_cst);
    slot_free(preserved, slot);
    return 0;
}

/* What the walk reads most often goes last: a page of a table's entries is read for each of
 * its hundred keys, at random, and from the spool by a system call each time. */
int moving_spool_one(struct preserved *preserved)
{
    uint32_t slot = next_of_kind(preserved, SLOT_RAW, slots_used(preserved));
    if (slot == NO_SLOT)
        slot = next_of_kind(preserved, SLOT_INCOMPRESSIBLE, slots_used(preserved));
    if (slot != NO_SLOT)
        return spool_slot(preserved, slot);
    if (preserved->lz4_log.first != NO_SLOT)
        return spool_log_slot(preserved, &preserved->lz4_log);
    return preserved->words_log.first == NO_SLOT
               ? -ENOENT
               : spool_log_slot(preserved, &preserved->words_log);
}
