#include "rdb/encoder.h"

#include <errno.h>
#include <string.h>

#include "kernel/memory.h"

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

#define BUFFER_BYTES (64 * 1024)
#define RING_BYTES   (1024 * 1024)
/* A value beyond this gets room of its own, given back with the next room. */
#define RING_ROOM_MAX (RING_BYTES / 4)
/* The server's LZF keeps a table of 65536 pointers on the stack. */
#define LZF_STACK_BYTES (560 * 1024)

struct rdb_encoder {
    struct rdb_sink *sink;
    rdb_compress_function compress;
    int error;
    size_t used;    /* of `buffer` */
    uint64_t given; /* to the sink */
    size_t ring_at;
    bool table_is_dirty; /* LZF ran since the table was wiped */
    unsigned char *big_room;
    size_t big_room_bytes;
    unsigned char buffer[BUFFER_BYTES];
    unsigned char ring[RING_BYTES];
    unsigned char compressed[RING_ROOM_MAX];
};

struct rdb_encoder *rdb_encoder_create(struct rdb_sink *sink,
                                       rdb_compress_function compress)
{
    struct rdb_encoder *encoder = memory_map(sizeof(*encoder));
    if (!encoder)
        return NULL;
    encoder->sink = sink;
    encoder->compress = compress;
    encoder->table_is_dirty = true;
    return encoder;
}

static void free_big_room(struct rdb_encoder *encoder)
{
    memory_unmap(encoder->big_room, encoder->big_room_bytes);
    encoder->big_room = NULL;
}

void rdb_encoder_destroy(struct rdb_encoder *encoder)
{
    if (!encoder)
        return;
    free_big_room(encoder);
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

static int give(struct rdb_encoder *encoder, const void *bytes, size_t length)
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
    return give(encoder, encoder->buffer, used);
}

int rdb_encode_raw(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    if (encoder->error)
        return encoder->error;
    if (length > BUFFER_BYTES - encoder->used && rdb_encoder_flush(encoder) != 0)
        return encoder->error;
    if (length > BUFFER_BYTES)
        return give(encoder, bytes, length);
    memcpy(encoder->buffer + encoder->used, bytes, length);
    encoder->used += length;
    return 0;
}

int rdb_encode_byte(struct rdb_encoder *encoder, uint8_t byte)
{
    return rdb_encode_raw(encoder, &byte, 1);
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
    unsigned char bytes[9];
    return rdb_encode_raw(encoder, bytes, put_length(bytes, length));
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
    unsigned char short_form[5];
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

/* Clears the part of the stack in which lzf_compress() will find its table.
 * Called from where that is called, so that the two overlap. */
__attribute__((noinline)) static void wipe_table(void)
{
    unsigned char table[LZF_STACK_BYTES];
    memset(table, 0, sizeof(table));
    __asm__ volatile("" : : "r"(table) : "memory");
}

void *rdb_encoder_room(struct rdb_encoder *encoder, size_t length)
{
    if (encoder->big_room)
        free_big_room(encoder);
    if (length <= RING_BYTES - encoder->ring_at && length <= RING_ROOM_MAX) {
        void *room = encoder->ring + encoder->ring_at;
        encoder->ring_at += length;
        return room;
    }
    encoder->table_is_dirty = true;
    if (length <= RING_ROOM_MAX) {
        encoder->ring_at = length;
        return encoder->ring;
    }
    encoder->big_room = memory_map(length);
    encoder->big_room_bytes = length;
    if (!encoder->big_room)
        fail(encoder, -ENOMEM);
    return encoder->big_room;
}

static bool is_room(const struct rdb_encoder *encoder, const unsigned char *bytes)
{
    return (bytes >= encoder->ring && bytes < encoder->ring + RING_BYTES) ||
           (encoder->big_room && bytes >= encoder->big_room &&
            bytes < encoder->big_room + encoder->big_room_bytes);
}

int rdb_encode_lzf_blob(struct rdb_encoder *encoder, const void *compressed,
                        size_t compressed_length, size_t original_length)
{
    unsigned char head[1 + 9 + 9];
    head[0] = STRING_LZF;
    size_t length = 1 + put_length(head + 1, compressed_length);
    length += put_length(head + length, original_length);
    rdb_encode_raw(encoder, head, length);
    return rdb_encode_raw(encoder, compressed, compressed_length);
}

/* True if the string was written compressed. */
static bool encode_compressed(struct rdb_encoder *encoder, const void *bytes,
                              size_t length)
{
    size_t allowed = length - COMPRESS_MUST_SAVE;
    bool big = allowed > sizeof(encoder->compressed);
    unsigned char *out = big ? memory_map(allowed) : encoder->compressed;
    if (!out)
        return false; /* as the server does: then uncompressed */
    if (encoder->table_is_dirty)
        wipe_table();
    encoder->table_is_dirty = false;
    size_t got = encoder->compress(bytes, length, out, allowed);
    if (got)
        rdb_encode_lzf_blob(encoder, out, got, length);
    if (big)
        memory_unmap(out, allowed);
    return got != 0;
}

int rdb_encode_string(struct rdb_encoder *encoder, const void *bytes, size_t length)
{
    if (encoder->error)
        return encoder->error;
    int64_t value;
    if (length <= INTEGER_TEXT_MAX && reads_as_integer(bytes, length, &value)) {
        unsigned char short_form[5];
        size_t short_length = put_integer(short_form, value);
        if (short_length)
            return rdb_encode_raw(encoder, short_form, short_length);
    }
    if (encoder->compress && length > COMPRESS_ABOVE) {
        if (!is_room(encoder, bytes)) {
            void *room = rdb_encoder_room(encoder, length);
            if (!room)
                return encoder->error;
            memcpy(room, bytes, length);
            bytes = room;
        }
        if (encode_compressed(encoder, bytes, length))
            return encoder->error;
    }
    rdb_encode_length(encoder, length);
    return rdb_encode_raw(encoder, bytes, length);
}
