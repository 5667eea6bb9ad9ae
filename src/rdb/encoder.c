#include "rdb/encoder.h"

#include <errno.h>
#include <string.h>

#include "kernel/memory.h"
#include "rdb/compression.h"

/* Lengths: the two highest bits of the first byte say how to read it. */
#define LENGTH_14_BITS 0x40
#define LENGTH_32_BITS 0x80
#define LENGTH_64_BITS 0x81
/* Strings in another form than a length and bytes. */
#define STRING_INT8  0xC0
#define STRING_INT16 0xC1
#define STRING_INT32 0xC2
#define STRING_LZF   0xC3

#define INTEGER_TEXT_MAX   11
#define COMPRESS_ABOVE     20
#define COMPRESS_MUST_SAVE 4

#define LENGTH_BYTES_MAX  9
#define INTEGER_BYTES_MAX 5
#define BUFFER_BYTES      (64 * 1024)

struct rdb_encoder {
    struct rdb_sink *sink;
    int error;
    size_t used;    /* of `buffer` */
    uint64_t given; /* to the sink */
    unsigned char buffer[BUFFER_BYTES];
    struct compression compression;
};

struct rdb_encoder *rdb_encoder_create(struct rdb_sink *sink,
                                       rdb_compress_function compress)
{
    struct rdb_encoder *encoder = memory_map(sizeof(*encoder));
    if (!encoder)
        return NULL;
    encoder->sink = sink;
    compression_init(&encoder->compression, compress);
    return encoder;
}

void rdb_encoder_destroy(struct rdb_encoder *encoder)
{
    if (!encoder)
        return;
    compression_release(&encoder->compression);
    memory_unmap(encoder, sizeof(*encoder));
}

int rdb_encoder_error(const struct rdb_encoder *encoder)
{
    return encoder->error;
}

uint64_t rdb_encoder_bytes(const struct rdb_encoder *encoder)
{
    return encoder->given + encoder->used;
}

static int fail(struct rdb_encoder *encoder, int error)
{
    if (!encoder->error)
        encoder->error = error;
    return encoder->error;
}

/* ---- bytes ----------------------------------------------------------------------- */

static int give_to_sink(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    int error = encoder->sink->write(encoder->sink, bytes, length);
    if (error)
        return fail(encoder, error);
    encoder->given += length;
    return 0;
}

int rdb_encoder_flush(struct rdb_encoder *encoder)
{
    if (encoder->error || !encoder->used)
        return encoder->error;
    size_t used = encoder->used;
    encoder->used = 0;
    return give_to_sink(encoder, encoder->buffer, used);
}

void rdb_encoder_reset(struct rdb_encoder *encoder)
{
    encoder->used = 0;
    encoder->error = 0;
}

int rdb_encode_raw(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    if (encoder->error)
        return encoder->error;
    if (length > BUFFER_BYTES - encoder->used && rdb_encoder_flush(encoder) != 0)
        return encoder->error;
    if (length > BUFFER_BYTES)
        return give_to_sink(encoder, bytes, length);
    if (length)
        memcpy(encoder->buffer + encoder->used, bytes, length);
    encoder->used += length;
    return 0;
}

/* Where the next bytes go, `length` of them at most; they count once `used` is
 * raised. NULL after an error. */
static unsigned char *place_for(struct rdb_encoder *encoder, size_t length)
{
    if (length > BUFFER_BYTES - encoder->used)
        rdb_encoder_flush(encoder);
    return encoder->error ? NULL : encoder->buffer + encoder->used;
}

int rdb_encode_byte(struct rdb_encoder *encoder, uint8_t byte)
{
    unsigned char *place = place_for(encoder, 1);
    if (!place)
        return encoder->error;
    *place = byte;
    encoder->used++;
    return 0;
}

static size_t put_big_endian(unsigned char *to, uint64_t value, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (unsigned char)(value >> (8 * (bytes - 1 - i)));
    return bytes;
}

static size_t put_length(unsigned char *to, uint64_t length)
{
    if (length < (1 << 6)) {
        to[0] = (unsigned char)length;
        return 1;
    }
    if (length < (1 << 14)) {
        put_big_endian(to, length, 2);
        to[0] |= LENGTH_14_BITS;
        return 2;
    }
    if (length <= UINT32_MAX) {
        to[0] = LENGTH_32_BITS;
        return 1 + put_big_endian(to + 1, length, 4);
    }
    to[0] = LENGTH_64_BITS;
    return 1 + put_big_endian(to + 1, length, 8);
}

int rdb_encode_length(struct rdb_encoder *encoder, uint64_t length)
{
    unsigned char *place = place_for(encoder, LENGTH_BYTES_MAX);
    if (!place)
        return encoder->error;
    encoder->used += put_length(place, length);
    return 0;
}

static int encode_little_endian(struct rdb_encoder *encoder, uint64_t value)
{
    unsigned char bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (unsigned char)(value >> (8 * i));
    return rdb_encode_raw(encoder, bytes, sizeof(bytes));
}

int rdb_encode_milliseconds(struct rdb_encoder *encoder, int64_t milliseconds)
{
    return encode_little_endian(encoder, (uint64_t)milliseconds);
}

int rdb_encode_binary_double(struct rdb_encoder *encoder, double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return encode_little_endian(encoder, bits);
}

/* ---- integers -------------------------------------------------------------------- */

/* The short form of an integer of up to 32 bits; 0 when it needs more. */
static size_t put_integer(unsigned char *to, int64_t value)
{
    size_t bytes;
    if (value >= INT8_MIN && value <= INT8_MAX) {
        to[0] = STRING_INT8;
        bytes = 1;
    } else if (value >= INT16_MIN && value <= INT16_MAX) {
        to[0] = STRING_INT16;
        bytes = 2;
    } else if (value >= INT32_MIN && value <= INT32_MAX) {
        to[0] = STRING_INT32;
        bytes = 4;
    } else {
        return 0;
    }
    for (size_t i = 0; i < bytes; i++)
        to[1 + i] = (unsigned char)((uint64_t)value >> (8 * i));
    return 1 + bytes;
}

/* True if `text` is exactly what printing `*value` would give: no sign but a
 * minus, no leading zero. At most eleven characters, so nothing overflows. */
static bool reads_as_integer(const char *text, size_t length, int64_t *value)
{
    size_t at = 0;
    bool negative = length > 0 && text[0] == '-';
    at += negative;
    if (at == length || (text[at] == '0' && (length > at + 1 || negative)))
        return false;
    int64_t result = 0;
    for (; at < length; at++) {
        if (text[at] < '0' || text[at] > '9')
            return false;
        result = result * 10 + (text[at] - '0');
    }
    *value = negative ? -result : result;
    return true;
}

int rdb_encode_integer_string(struct rdb_encoder *encoder, int64_t value)
{
    unsigned char short_form[INTEGER_BYTES_MAX];
    size_t length = put_integer(short_form, value);
    if (length)
        return rdb_encode_raw(encoder, short_form, length);
    char text[24];
    char *at = text + sizeof(text);
    uint64_t rest = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    for (; rest; rest /= 10)
        *--at = (char)('0' + rest % 10);
    if (value < 0)
        *--at = '-';
    size_t digits = (size_t)(text + sizeof(text) - at);
    rdb_encode_length(encoder, digits);
    return rdb_encode_raw(encoder, at, digits);
}

/* ---- strings --------------------------------------------------------------------- */

void *rdb_encoder_room(struct rdb_encoder *encoder, size_t length)
{
    void *room = compression_room(&encoder->compression, length);
    if (!room)
        fail(encoder, -ENOMEM);
    return room;
}

/* Of what was in a room no more is needed. */
static int end_of_string(struct rdb_encoder *encoder, size_t length)
{
    if (length > COMPRESSION_ROOM_MAX)
        compression_trim(&encoder->compression);
    return encoder->error;
}

int rdb_encode_lzf_blob(struct rdb_encoder *encoder, const void *compressed,
                        size_t compressed_length, size_t original_length)
{
    unsigned char head[1 + 2 * LENGTH_BYTES_MAX];
    head[0] = STRING_LZF;
    size_t length = 1 + put_length(head + 1, compressed_length);
    length += put_length(head + length, original_length);
    rdb_encode_raw(encoder, head, length);
    rdb_encode_raw(encoder, compressed, compressed_length);
    return end_of_string(encoder, original_length);
}

static int encode_verbatim(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    rdb_encode_length(encoder, length);
    rdb_encode_raw(encoder, bytes, length);
    return end_of_string(encoder, length);
}

/* True if the string reads as an integer and was written as one. */
static bool encode_as_integer(struct rdb_encoder *encoder, const void *text,
                              size_t length)
{
    int64_t value;
    unsigned char short_form[INTEGER_BYTES_MAX];
    size_t short_length = 0;
    if (reads_as_integer(text, length, &value))
        short_length = put_integer(short_form, value);
    if (short_length)
        rdb_encode_raw(encoder, short_form, short_length);
    return short_length != 0;
}

int rdb_encode_string(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    if (encoder->error)
        return encoder->error;
    if (length <= INTEGER_TEXT_MAX && encode_as_integer(encoder, bytes, length))
        return encoder->error;
    if (length <= COMPRESS_ABOVE || !encoder->compression.compress)
        return encode_verbatim(encoder, bytes, length);
    const void *compressed;
    size_t allowed = length - COMPRESS_MUST_SAVE;
    size_t got =
        compression_run(&encoder->compression, bytes, length, allowed, &compressed);
    return got ? rdb_encode_lzf_blob(encoder, compressed, got, length)
               : encode_verbatim(encoder, bytes, length);
}
