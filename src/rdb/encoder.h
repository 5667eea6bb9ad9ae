/* The RDB encoder: knows the file format, and no memory layout.
 *
 * It takes plain bytes and numbers and writes what the server's own SAVE would
 * write for them, byte for byte, into a sink. A walker decides what a value is
 * and in which order its parts come; the encoder decides how each is written.
 *
 * Errors are sticky: after the first failure every call returns that same
 * negative errno, so that a walker may check once per key.
 *
 * Thread: one encoder belongs to one thread, with 700 KB of stack to spare.
 */
#ifndef RDB_UFFD_RDB_ENCODER_H
#define RDB_UFFD_RDB_ENCODER_H

#include <stddef.h>
#include <stdint.h>

/* Where encoded bytes go. `write` returns 0 or -errno and takes all or fails. */
struct rdb_sink {
    int (*write)(struct rdb_sink *sink, const void *bytes, size_t length);
};

/* The server's own lzf_compress(): returns the compressed length, or 0 when
 * the result would not fit in `out_length`. */
typedef size_t (*rdb_compress_function)(const void *in, size_t in_length, void *out,
                                        size_t out_length);

struct rdb_encoder;

/* `compress` is the server's lzf_compress, NULL when rdbcompression is off.
 * The sink must outlive the encoder. Returns NULL when memory is short. */
struct rdb_encoder *rdb_encoder_create(struct rdb_sink *sink,
                                       rdb_compress_function compress);
void rdb_encoder_destroy(struct rdb_encoder *encoder);

/* 0 or the first error. */
int rdb_encoder_error(const struct rdb_encoder *encoder);
/* Bytes encoded so far, whether the sink has seen them or not. */
uint64_t rdb_encoder_bytes(const struct rdb_encoder *encoder);

/* Hands everything encoded so far to the sink. The encoder collects 64 KB
 * first, so without this the end of a dump is missing. */
int rdb_encoder_flush(struct rdb_encoder *encoder);

/* Forgets what the sink has not seen, and the error if there was one. */
void rdb_encoder_reset(struct rdb_encoder *encoder);

int rdb_encode_raw(struct rdb_encoder *encoder, const void *bytes, size_t length);
int rdb_encode_byte(struct rdb_encoder *encoder, uint8_t byte);
/* The variable-length number: 6, 14, 32 or 64 bits (rdbSaveLen). */
int rdb_encode_length(struct rdb_encoder *encoder, uint64_t length);
/* Eight bytes little endian. */
int rdb_encode_milliseconds(struct rdb_encoder *encoder, int64_t milliseconds);
int rdb_encode_binary_double(struct rdb_encoder *encoder, double value);

/* A string as rdbSaveRawString writes it: an integer if it reads as one (at
 * most 11 bytes), LZF if compression is on, it is longer than 20 bytes and
 * that saves at least 4 bytes, else the bytes. */
int rdb_encode_string(struct rdb_encoder *encoder, const void *bytes, size_t length);
/* The string form of an integer-encoded object (rdbSaveLongLongAsStringObject). */
int rdb_encode_integer_string(struct rdb_encoder *encoder, int64_t value);
/* A blob that the server already holds LZF-compressed (a quicklist node). */
int rdb_encode_lzf_blob(struct rdb_encoder *encoder, const void *compressed,
                        size_t compressed_length, size_t original_length);

/* Room for `length` bytes into which a caller reads a value before it hands it
 * to rdb_encode_string() or rdb_encode_lzf_blob(). One room at a time: it is
 * valid until the next call of any of these three returns, so a caller that
 * needs a field and its value together, or a batch of keys, reads them into
 * memory of its own. What was encoded from a room once must not be again. NULL
 * (and a sticky -ENOMEM) when memory is short.
 *
 * Bytes that are not in a room may be encoded too; those that are to be
 * compressed are then copied into one first. Why compressing wants rooms:
 * compression.h. */
void *rdb_encoder_room(struct rdb_encoder *encoder, size_t length);

#endif
