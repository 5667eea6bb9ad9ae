/* Pages packed, and the form in which a page is stored outside of a slot of its own.
 *
 *  piece  ┌────────────────────────────────────┬────────────────┬─────────┐
 *         │ page │ sum │ length │ form │ lows  │ `length` bytes │ padding │
 *         └────────────────────────────────────┴────────────────┴─────────┘
 *
 * The bytes are the page itself (in the spool only), words of pointers (packed_words.h), which
 * are read as fast as the page itself nearly, or LZ4, for all else. A sum tells damage;
 * words that have never left memory are read without it, as raw pages are.
 * Every page is packed alone, and can be unpacked alone.
 */
#ifndef RDB_UFFD_MEMORY_PACKING_H
#define RDB_UFFD_MEMORY_PACKING_H

#include <lz4.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/packed_words.h"
#include "memory/pages.h"

/* Pieces in memory start at multiples of this: a place then fits the 30 bits
 * that an index entry has for it. */
#define PIECE_UNIT 64u
/* A page whose piece would be longer is kept raw: a quarter saved at most is not
 * worth unpacking at every read. */
#define PIECE_BYTES_MAX 3072u
/* And pages that take no more than this as words are not tried with LZ4. */
#define PIECE_WORDS_MAX 2304u

enum piece_form { PIECE_RAW, PIECE_LZ4, PIECE_WORDS };

struct piece_header {
    uint32_t page;
    uint32_t sum;      /* of all else */
    uint16_t length;   /* of the bytes that follow */
    uint8_t form;      /* enum piece_form */
    uint8_t low_bytes; /* of PIECE_WORDS: words_pack() */
};

/* Room for any piece, the raw ones of the spool included. */
struct piece {
    struct piece_header header;
    unsigned char bytes[PAGE_BYTES];
};

/* Packs the 4096 bytes of a page into *piece, with `work` as LZ4's work space.
 * Returns the bytes of the piece, 0 when the page does not shrink enough. */
size_t piece_pack(struct piece *piece, LZ4_stream_t *work, uint32_t page,
                  const void *page_bytes);
/* A piece that holds the page as it is. The same return value. */
size_t piece_of_raw(struct piece *piece, uint32_t page, const void *page_bytes);
/* Gives the first `wanted` of the 4096 bytes of page `page` back (`to` has room for
 * all of them): a reader mostly wants a few, and what lies behind need not be
 * unpacked. `bytes_there`: how much of the piece was read. 0, or -EIO when it is damaged
 * or another page's. Any thread. */
int piece_unpack(const struct piece *piece, size_t bytes_there, uint32_t page, void *to,
                 size_t wanted);

static inline size_t piece_bytes(const struct piece_header *header)
{
    return sizeof(*header) + header->length;
}

/* What a piece takes of the packed log. */
static inline uint32_t piece_room(const struct piece_header *header)
{
    return (uint32_t)round_up(piece_bytes(header), PIECE_UNIT);
}

#endif
