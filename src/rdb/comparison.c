#include "rdb/comparison.h"

#include <stdint.h>
#include <string.h>

#define LZF_STRING 0xC3 /* then: compressed length, length, compressed bytes */

struct bytes {
    const unsigned char *at, *end;
};

/* One of the encodings of a length up to 32 bits, those that begin with 11 aside. */
static bool take_length(struct bytes *bytes, size_t *length)
{
    static const uint8_t width[] = {1, 2, 5};
    unsigned kind = bytes->at < bytes->end ? *bytes->at >> 6 : 3;
    if (kind > 2 || (size_t)(bytes->end - bytes->at) < width[kind])
        return false;
    const unsigned char *at = bytes->at;
    *length = kind < 2 ? at[0] & 63 : 0;
    for (unsigned i = 1; i < width[kind]; i++)
        *length = *length << 8 | at[i];
    bytes->at += width[kind];
    return true;
}

/* A string at both places, compressed in `other`. Moves both behind it. */
static bool take_string(struct bytes *plain, struct bytes *other,
                        rdb_decompress_function decompress, unsigned char *scratch)
{
    size_t length, compressed, original;
    other->at++;
    if (!take_length(plain, &length) || !take_length(other, &compressed) ||
        !take_length(other, &original))
        return false;
    if (length != original || length > (size_t)(plain->end - plain->at) ||
        compressed > (size_t)(other->end - other->at))
        return false;
    if (decompress(other->at, compressed, scratch, length) != length ||
        memcmp(scratch, plain->at, length) != 0)
        return false;
    plain->at += length;
    other->at += compressed;
    return true;
}

bool rdb_is_same_value(const unsigned char *plain_bytes, size_t plain_length,
                       const unsigned char *other_bytes, size_t other_length,
                       rdb_decompress_function decompress, unsigned char *scratch)
{
    struct bytes plain = {plain_bytes, plain_bytes + plain_length};
    struct bytes other = {other_bytes, other_bytes + other_length};
    while (plain.at < plain.end && other.at < other.end) {
        /* As far as both agree they are at the same place of the value. */
        if (*plain.at == *other.at) {
            plain.at++;
            other.at++;
        } else if (*other.at != LZF_STRING ||
                   !take_string(&plain, &other, decompress, scratch))
            return false;
    }
    return plain.at == plain.end && other.at == other.end;
}
