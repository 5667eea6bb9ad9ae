#include "memory/packing.h"

#include <errno.h>
#include <string.h>

/* LZ4's "acceleration": 1 is the densest. */
#define ACCELERATION 1

/* Not against an enemy: against a bad disk, and against ourselves. */
static uint32_t sum_of(const struct piece *piece)
{
    const unsigned char *bytes = piece->bytes;
    uint64_t sum = ((uint64_t)piece->header.page << 32 | piece->header.length) *
                   UINT64_C(0x9e3779b97f4a7c15);
    uint32_t left = piece->header.length;
    for (; left >= 8; left -= 8, bytes += 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 32;
    }
    for (; left; left--)
        sum = (sum ^ *bytes++) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(sum >> 32);
}

static size_t finish(struct piece *piece, uint32_t page, size_t length)
{
    piece->header = (struct piece_header){.page = page, .length = (uint32_t)length};
    piece->header.sum = sum_of(piece);
    return piece_bytes(&piece->header);
}

size_t piece_pack(struct piece *piece, LZ4_stream_t *work, uint32_t page,
                  const void *page_bytes)
{
    const int room = (int)(PIECE_BYTES_MAX - sizeof(piece->header));
    int length = LZ4_compress_fast_extState(work, page_bytes, (char *)piece->bytes,
                                            (int)PAGE_BYTES, room, ACCELERATION);
    return length > 0 ? finish(piece, page, (size_t)length) : 0;
}

size_t piece_of_raw(struct piece *piece, uint32_t page, const void *page_bytes)
{
    memcpy(piece->bytes, page_bytes, PAGE_BYTES);
    return finish(piece, page, PAGE_BYTES);
}

int piece_unpack(const struct piece *piece, size_t bytes_there, uint32_t page, void *to,
                 size_t wanted)
{
    const struct piece_header *header = &piece->header;
    if (bytes_there < sizeof(*header) || header->length > PAGE_BYTES ||
        piece_bytes(header) > bytes_there || header->page != page ||
        header->sum != sum_of(piece))
        return -EIO;
    if (header->length == PAGE_BYTES) {
        memcpy(to, piece->bytes, wanted);
        return 0;
    }
    int got =
        LZ4_decompress_safe_partial((const char *)piece->bytes, to, (int)header->length,
                                    (int)wanted, (int)PAGE_BYTES);
    return got >= (int)wanted ? 0 : -EIO;
}
