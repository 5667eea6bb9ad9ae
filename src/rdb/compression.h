/* The server's LZF, made repeatable: what it writes for a value depends on the
 * value alone.
 *
 * lzf_compress() keeps a table of 65536 pointers into its input on the stack
 * and does not clear it. A pointer left over from an earlier value counts as a
 * match when it falls between the start of the new input and the place reached,
 * and the bytes there happen to agree. So it must never fall there:
 *
 *   ring of rooms   |value|value|value|...           |  a value lies behind all
 *                    ^ old pointers    ^ in           |  that came before it
 *
 *   stack           caller's frames, now deeper, now shallower
 *                   padding up to one fixed place
 *                   the table: nobody else writes here
 *
 * When the ring starts a new lap, and for a value too big for it, the table is
 * wiped: about 20 us for a megabyte of values.
 *
 * Thread: one, with 700 KB of stack to spare.
 */
#ifndef RDB_UFFD_RDB_COMPRESSION_H
#define RDB_UFFD_RDB_COMPRESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rdb/encoder.h"

#define COMPRESSION_RING_BYTES (1024 * 1024)
/* A value beyond this gets memory of its own ... */
#define COMPRESSION_ROOM_MAX (COMPRESSION_RING_BYTES / 4)
/* ... which is kept for the next such value unless it is beyond this. */
#define COMPRESSION_KEEP_MAX ((size_t)4 * 1024 * 1024)

struct compression_scratch {
    unsigned char *start;
    size_t bytes;
};

/* In memory that reads as zeros at first (memory_map()). */
struct compression {
    rdb_compress_function compress; /* NULL: off, but rooms are still to be had */
    size_t ring_at;
    uintptr_t table_top; /* where on the stack the table is; 0: nowhere yet */
    bool table_is_dirty; /* must be wiped before it is used */
    struct compression_scratch big_room, big_out;
    unsigned char ring[COMPRESSION_RING_BYTES];
    unsigned char out[COMPRESSION_ROOM_MAX];
};

void compression_init(struct compression *compression, rdb_compress_function compress);
void compression_release(struct compression *compression);
/* Room for a value. Valid until the next call. NULL when memory is short. */
void *compression_room(struct compression *compression, size_t length);
/* Compresses `length` bytes, at least one, to at most `allowed` bytes; bytes
 * that are not in a room are copied into one. Returns the compressed length and
 * where the result is, until the next call; 0 when it does not fit or memory is
 * short. */
size_t compression_run(struct compression *compression, const void *bytes, size_t length,
                       size_t allowed, const void **result);
/* Gives back rooms and results that are too big to be kept. */
void compression_trim(struct compression *compression);

#endif
