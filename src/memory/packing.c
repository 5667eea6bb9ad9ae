#include "memory/packing.h"

#include <errno.h>
#include <string.h>

/* LZ4's "acceleration": 1 is the densest. */
#define ACCELERATION 1

/* Not against an enemy: against a bad disk, and against ourselves. */
static uint32_t sum_of(const struct piece *piece)
{
    const unsigned char *bytes = piece->bytes;
    const struct piece_header *header = &piece->header;
    uint64_t sum = ((uint64_t)header->page << 32 | (uint32_t)header->length << 16 |
                    (uint32_t)header->form << 8 | header->low_bytes) *
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

static size_t finish(struct piece *piece, uint32_t page, size_t length,
                     enum piece_form form, unsigned low_bytes)
{
    piece->header = (struct piece_header){.page = page,
                                          .length = (uint16_t)length,
                                          .form = (uint8_t)form,
                                          .low_bytes = (uint8_t)low_bytes};
    piece->header.sum = sum_of(piece);
    return piece_bytes(&piece->header);
}

/* 0: not pointers, or not enough of them. */
static size_t pack_words(struct piece *piece, uint32_t page, const void *page_bytes)
{
    const size_t room =
        PIECE_WORDS_MAX - sizeof(piece->header) - sizeof(struct word_classes);
    struct word_classes classes;
    unsigned low_bytes;
    size_t kept = words_pack(&classes, piece->bytes + sizeof(classes), room, &low_bytes,
                             page_bytes);
    if (kept > room)
        return 0;
    memcpy(piece->bytes, &classes, sizeof(classes));
    return finish(piece, page, sizeof(classes) + kept, PIECE_WORDS, low_bytes);
}

size_t piece_pack(struct piece *piece, LZ4_stream_t *work, uint32_t page,
                  const void *page_bytes)
{
    const int room = (int)(PIECE_BYTES_MAX - sizeof(piece->header));
    size_t bytes = pack_words(piece, page, page_bytes);
    if (bytes)
        return bytes;
    int length = LZ4_compress_fast_extState(work, page_bytes, (char *)piece->bytes,
                                            (int)PAGE_BYTES, room, ACCELERATION);
    return length > 0 ? finish(piece, page, (size_t)length, PIECE_LZ4, 0) : 0;
}

size_t piece_of_raw(struct piece *piece, uint32_t page, const void *page_bytes)
{
    memcpy(piece->bytes, page_bytes, PAGE_BYTES);
    return finish(piece, page, PAGE_BYTES, PIECE_RAW, 0);
}

static int unpack_words(const struct piece *piece, void *to, size_t wanted)
{
    const struct piece_header *header = &piece->header;
    struct word_classes classes;
    if (header->length < sizeof(classes) || header->low_bytes > sizeof(uint64_t))
        return -EIO;
    memcpy(&classes, piece->bytes, sizeof(classes));
    struct word_span span = words_span(&classes, header->low_bytes, 0, wanted);
    if (span.bytes > header->length - sizeof(classes))
        return -EIO;
    words_unpack(&classes, header->low_bytes, piece->bytes + sizeof(classes), 0, wanted,
                 to);
    return 0;
}

static int unpack_lz4(const struct piece *piece, void *to, size_t wanted)
{
    int got = LZ4_decompress_safe_partial((const char *)piece->bytes, to,
                                          (int)piece->header.length, (int)wanted,
                                          (int)PAGE_BYTES);
    return got >= (int)wanted ? 0 : -EIO;
}

int piece_unpack(const struct piece *piece, size_t bytes_there, uint32_t page, void *to,
                 size_t wanted)
{
    const struct piece_header *header = &piece->header;
    if (bytes_there < sizeof(*header) || header->length > PAGE_BYTES ||
        piece_bytes(header) > bytes_there || header->page != page ||
        header->sum != sum_of(piece))
        return -EIO;
    if (header->form == PIECE_WORDS)
        return unpack_words(piece, to, wanted);
    if (header->form == PIECE_LZ4)
        return unpack_lz4(piece, to, wanted);
    if (header->form != PIECE_RAW || header->length != PAGE_BYTES)
        return -EIO;
    memcpy(to, piece->bytes, wanted);
    return 0;
}
