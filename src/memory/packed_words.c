#include "memory/packed_words.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "the low bytes of a word are its first ones");

/* Of the words that are asked for their heads; odd. */
#define VOTER_DISTANCE 7

enum word_class { WORD_ZERO, WORD_FIRST_HEAD, WORD_SECOND_HEAD, WORD_OTHER };

static uint64_t word_at(const unsigned char *page, size_t word)
{
    uint64_t value;
    memcpy(&value, page + word * sizeof(value), sizeof(value));
    return value;
}

static uint64_t head_of(uint64_t word, unsigned low_bytes)
{
    return word >> (8 * low_bytes) << (8 * low_bytes);
}

/* Two heads that are had by more than a third each of some words, if any are (Misra and
 * Gries): one pass, two counters; whoever is neither takes one off both. The branches go
 * anywhere, so it is not all words; and not every eighth, since entries have places for a
 * pointer and for a number. */
static void choose_heads(uint64_t heads[2], const unsigned char *page, unsigned low_bytes)
{
    unsigned votes[2] = {0, 0};
    for (size_t i = 0; i < WORDS_PER_PAGE; i += VOTER_DISTANCE) {
        uint64_t word = word_at(page, i), head = head_of(word, low_bytes);
        if (!word)
            continue;
        int same = votes[0] && heads[0] == head ? 0 : votes[1] && heads[1] == head;
        if (heads[same] == head && votes[same])
            votes[same]++;
        else if (!votes[0] || !votes[1]) {
            int unused = votes[0] ? 1 : 0;
            heads[unused] = head;
            votes[unused] = 1;
        } else {
            votes[0]--;
            votes[1]--;
        }
    }
}

static size_t kept_bytes(enum word_class class, unsigned low_bytes)
{
    return class == WORD_ZERO ? 0 : class == WORD_OTHER ? sizeof(uint64_t) : low_bytes;
}

/* Without a branch for the class, of which each guess would be wrong half of the time: all 8
 * bytes of a word are stored, and the next one goes over what is not kept of it. Returns the
 * end of what is kept. */
static size_t pack_64(struct word_classes *classes, size_t i, unsigned char *kept,
                      unsigned low_bytes, const unsigned char *page)
{
    uint64_t low_bits = 0, high_bits = 0;
    size_t used = 0;
    for (size_t bit = 0; bit < 64; bit++) {
        uint64_t word = word_at(page, 64 * i + bit), head = head_of(word, low_bytes);
        uint64_t first = head == classes->heads[0], second = head == classes->heads[1];
        uint64_t any = word != 0, other = any & ~(first | second);
        memcpy(kept + used, &word, sizeof(word));
        used += any * low_bytes + other * (sizeof(word) - low_bytes);
        low_bits |= ((any & first) | other) << bit;
        high_bits |= (any & ~first) << bit;
    }
    classes->low_bits[i] = low_bits;
    classes->high_bits[i] = high_bits;
    return used;
}

static size_t pack_with(struct word_classes *classes, unsigned char *kept, size_t room,
                        unsigned low_bytes, const unsigned char *page)
{
    unsigned char packed[64 * sizeof(uint64_t) + sizeof(uint64_t)];
    size_t used = 0;
    memset(classes, 0, sizeof(*classes));
    choose_heads(classes->heads, page, low_bytes);
    for (size_t i = 0; i < WORDS_PER_PAGE / 64; i++) {
        size_t bytes = pack_64(classes, i, packed, low_bytes, page);
        if (used + bytes > room)
            return room + 1;
        memcpy(kept + used, packed, bytes);
        used += bytes;
    }
    return used;
}

size_t words_pack(struct word_classes *classes, unsigned char *kept, size_t room,
                  unsigned *low_bytes, const void *page)
{
    *low_bytes = WORD_LOW_BYTES;
    size_t used = pack_with(classes, kept, room, *low_bytes, page);
    return used <= room ? used : pack_with(classes, kept, room, ++*low_bytes, page);
}

/* ---- unpacking -------------------------------------------------------------------- */

static size_t kept_in(uint64_t low_bits, uint64_t high_bits, unsigned low_bytes)
{
    return (size_t)__builtin_popcountll(low_bits ^ high_bits) * low_bytes +
           (size_t)__builtin_popcountll(low_bits & high_bits) * sizeof(uint64_t);
}

/* Of all words before this one, at most WORDS_PER_PAGE. */
static size_t kept_before(const struct word_classes *classes, unsigned low_bytes,
                          size_t word)
{
    size_t bytes = 0;
    for (size_t i = 0; i < word / 64; i++)
        bytes += kept_in(classes->low_bits[i], classes->high_bits[i], low_bytes);
    uint64_t before = (UINT64_C(1) << (word % 64)) - 1;
    if (before)
        bytes += kept_in(classes->low_bits[word / 64] & before,
                         classes->high_bits[word / 64] & before, low_bytes);
    return bytes;
}

struct word_span words_span(const struct word_classes *classes, unsigned low_bytes,
                            size_t offset, size_t length)
{
    size_t end = (offset + length - 1) / sizeof(uint64_t) + 1;
    size_t start = kept_before(classes, low_bytes, offset / sizeof(uint64_t));
    return (struct word_span){start, kept_before(classes, low_bytes, end) - start};
}

static uint64_t unpack_word(const struct word_classes *classes, unsigned low_bytes,
                            size_t word, const unsigned char **kept)
{
    unsigned class = (classes->low_bits[word / 64] >> (word % 64) & 1) |
                     (classes->high_bits[word / 64] >> (word % 64) & 1) << 1;
    size_t bytes = kept_bytes((enum word_class) class, low_bytes);
    uint64_t value = 0;
    memcpy(&value, *kept, bytes);
    *kept += bytes;
    if (class == WORD_FIRST_HEAD || class == WORD_SECOND_HEAD)
        value |= classes->heads[class - WORD_FIRST_HEAD];
    return value;
}

void words_unpack(const struct word_classes *classes, unsigned low_bytes,
                  const unsigned char *span, size_t offset, size_t length, void *to)
{
    unsigned char *next = to;
    for (size_t word = offset / sizeof(uint64_t); length; word++) {
        uint64_t value = unpack_word(classes, low_bytes, word, &span);
        size_t skipped = offset % sizeof(value);
        size_t part = sizeof(value) - skipped < length ? sizeof(value) - skipped : length;
        memcpy(next, (unsigned char *)&value + skipped, part);
        next += part;
        offset += part;
        length -= part;
    }
}
