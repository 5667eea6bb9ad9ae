/* Reading preserved pages: any thread, no lock, against a writer that moves
 * them. Copy first, then look whether the page is still there; only then are
 * the bytes worth anything. */
#include <errno.h>
#include <string.h>

#include "kernel/fault_points.h"
#include "kernel/guarded_copy.h"
#include "memory/packer.h"
#include "memory/preserved_internal.h"

void preserved_prefetch_entry(const struct preserved *preserved, uint32_t page)
{
    __builtin_prefetch((const void *)entry_of(preserved, page), 0, 3);
}

/* Where the piece begins, and the rest of what is looked at first is hinted at here. */
static const void *packed_place(const struct preserved *preserved, uint32_t place)
{
    const unsigned char *piece = preserved->slots + (uint64_t)place * PIECE_UNIT;
    __builtin_prefetch(piece + PIECE_UNIT, 0, 3);
    __builtin_prefetch(piece + 2 * PIECE_UNIT, 0, 3);
    return piece;
}

/* What its entry says at the moment, 0: nothing. */
static uint32_t glance_at_entry(const struct preserved *preserved, uint32_t page)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    return entry ? atomic_load_explicit(entry, memory_order_relaxed) : 0;
}

bool preserved_is_raw(const struct preserved *preserved, uint32_t page)
{
    return ENTRY_TAG(glance_at_entry(preserved, page)) == ENTRY_RAW;
}

const void *preserved_place(const struct preserved *preserved, uint32_t page,
                            size_t offset)
{
    uint32_t seen = glance_at_entry(preserved, page);
    if (ENTRY_TAG(seen) == ENTRY_PACKED)
        return packed_place(preserved, ENTRY_PLACE(seen));
    if (ENTRY_TAG(seen) != ENTRY_RAW)
        return NULL;
    return (unsigned char *)slot_bytes(preserved, ENTRY_PLACE(seen)) + offset;
}

static bool still_there(_Atomic uint32_t *entry, uint32_t seen)
{
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(entry, memory_order_relaxed) == seen;
}

/* The piece whose header was copied before, as far as it goes. Returns the bytes copied. */
static size_t copy_piece(const struct preserved *preserved, uint32_t slot, uint32_t at,
                         struct piece *piece)
{
    size_t bytes = piece_bytes(&piece->header);
    if (bytes > PIECE_BYTES_MAX || !log_copy(preserved, slot, at, piece, bytes))
        return 0;
    return bytes;
}

static int unpack_part(const struct piece *piece, size_t bytes, uint32_t page,
                       size_t offset, void *to, size_t length)
{
    unsigned char unpacked[PAGE_BYTES];
    int error = piece_unpack(piece, bytes, page, unpacked, offset + length);
    if (!error)
        memcpy(to, unpacked + offset, length);
    return error;
}

/* No more of a piece of words than is wanted, and without its sum, as of a raw page: it has
 * never left memory. */
static int read_words(const struct preserved *preserved, uint32_t slot, uint32_t at,
                      unsigned low_bytes, size_t offset, void *to, size_t length)
{
    struct word_classes classes;
    unsigned char kept[PAGE_BYTES];
    at += (uint32_t)sizeof(struct piece_header);
    if (low_bytes > sizeof(uint64_t) ||
        !log_copy(preserved, slot, at, &classes, sizeof(classes)))
        return -EIO;
    struct word_span span = words_span(&classes, low_bytes, offset, length);
    at += (uint32_t)(sizeof(classes) + span.start);
    if (!log_copy(preserved, slot, at, kept, span.bytes))
        return -EIO;
    words_unpack(&classes, low_bytes, kept, offset, length, to);
    return 0;
}

/* One attempt, as below. */
static int read_packed(const struct preserved *preserved, uint32_t page,
                       _Atomic uint32_t *entry, uint32_t seen, size_t offset, void *to,
                       size_t length)
{
    uint32_t slot = ENTRY_PLACE(seen) / UNITS_PER_SLOT;
    uint32_t at = ENTRY_PLACE(seen) % UNITS_PER_SLOT * PIECE_UNIT;
    struct piece piece;
    struct piece_header *header = &piece.header;
    log_copy(preserved, slot, at, header, sizeof(*header));
    if (header->form == PIECE_WORDS) {
        int error =
            read_words(preserved, slot, at, header->low_bytes, offset, to, length);
        if (!still_there(entry, seen))
            return -EAGAIN;
        return error || header->page != page ? -EIO : 0;
    }
    size_t bytes = copy_piece(preserved, slot, at, &piece);
    if (!still_there(entry, seen))
        return -EAGAIN;
    if (fault_point(FAULT_DAMAGED_PAGE))
        piece.bytes[0] ^= 1;
    return unpack_part(&piece, bytes, page, offset, to, length);
}

/* Readers that find a page unchecked at the same time check it twice. */
static bool is_checked(const struct preserved *preserved, uint32_t page)
{
    uint64_t word =
        atomic_load_explicit(&preserved->checked[page / 64], memory_order_relaxed);
    return word >> (page % 64) & 1;
}

static void note_checked(struct preserved *preserved, uint32_t page)
{
    atomic_fetch_or_explicit(&preserved->checked[page / 64], UINT64_C(1) << (page % 64),
                             memory_order_relaxed);
}

/* The whole of a page for its sum, 2 us, and never again: a page of a hash table's entries
 * is read once for each of its hundred keys. What is in the spool never moves. */
static int read_spooled(struct preserved *preserved, uint32_t page, uint32_t place,
                        size_t offset, void *to, size_t length)
{
    struct piece piece;
    if (is_checked(preserved, page))
        return spool_read_raw(&preserved->spool, place, offset, to, length);
    long bytes = spool_read(&preserved->spool, place, &piece);
    if (bytes < 0)
        return -EIO;
    int error = unpack_part(&piece, (size_t)bytes, page, offset, to, length);
    if (!error && piece.header.form == PIECE_RAW)
        note_checked(preserved, page);
    return error;
}

/* One attempt: -EAGAIN when the page moved meanwhile. */
static int read_once(struct preserved *preserved, uint32_t page, _Atomic uint32_t *entry,
                     uint32_t seen, size_t offset, void *to, size_t length)
{
    int error;
    switch (ENTRY_TAG(seen)) {
    case ENTRY_RAW:
        error = guarded_copy(
            to, (unsigned char *)slot_bytes(preserved, ENTRY_PLACE(seen)) + offset,
            length);
        return still_there(entry, seen) ? error : -EAGAIN;
    case ENTRY_PACKED:
        return read_packed(preserved, page, entry, seen, offset, to, length);
    case ENTRY_SPOOLED:
        return read_spooled(preserved, page, ENTRY_PLACE(seen), offset, to, length);
    default: /* ENTRY_MOVING: for the time of one small copy */
        return -EAGAIN;
    }
}

int preserved_read(struct preserved *preserved, uint32_t page, size_t offset, void *to,
                   size_t length)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    if (!entry)
        return -ENOENT;
    for (;;) {
        uint32_t seen = atomic_load_explicit(entry, memory_order_acquire);
        if (!seen || seen == ENTRY_FORGONE)
            return seen ? -EFAULT : -ENOENT;
        int result = read_once(preserved, page, entry, seen, offset, to, length);
        if (result != -EAGAIN)
            return result;
    }
}
