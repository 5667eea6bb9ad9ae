#include "rdb/compression.h"

#include <string.h>

#include "kernel/memory.h"

/* 65536 pointers, and the frame around them. */
#define TABLE_BYTES (560 * 1024)
/* How much deeper than at the first call the stack may get, and how much
 * shallower, before the table has to move. */
#define DEPTH_SLACK (32 * 1024)

void compression_init(struct compression *compression, rdb_compress_function compress)
{
    compression->compress = compress;
    compression->table_is_dirty = true;
}

/* ---- rooms ----------------------------------------------------------------------- */

static void scratch_free(struct compression_scratch *scratch)
{
    memory_unmap(scratch->start, scratch->bytes);
    scratch->start = NULL;
    scratch->bytes = 0;
}

static unsigned char *scratch_get(struct compression_scratch *scratch, size_t length)
{
    if (length <= scratch->bytes)
        return scratch->start;
    scratch_free(scratch);
    scratch->start = memory_map(length);
    if (scratch->start)
        scratch->bytes = length;
    return scratch->start;
}

void compression_trim(struct compression *compression)
{
    if (compression->big_room.bytes > COMPRESSION_KEEP_MAX)
        scratch_free(&compression->big_room);
    if (compression->big_out.bytes > COMPRESSION_KEEP_MAX)
        scratch_free(&compression->big_out);
}

void compression_release(struct compression *compression)
{
    scratch_free(&compression->big_room);
    scratch_free(&compression->big_out);
}

void *compression_room(struct compression *compression, size_t length)
{
    if (compression->big_room.bytes > COMPRESSION_KEEP_MAX)
        compression_trim(compression);
    if (length > COMPRESSION_ROOM_MAX) {
        compression->table_is_dirty = true;
        return scratch_get(&compression->big_room, length);
    }
    if (length > COMPRESSION_RING_BYTES - compression->ring_at) {
        compression->table_is_dirty = true;
        compression->ring_at = 0;
    }
    void *room = compression->ring + compression->ring_at;
    compression->ring_at += length;
    return room;
}

static bool lies_in(uintptr_t at, const unsigned char *start, size_t bytes)
{
    return at - (uintptr_t)start < bytes;
}

static bool is_room(const struct compression *compression, const void *bytes)
{
    uintptr_t at = (uintptr_t)bytes;
    return lies_in(at, compression->ring, COMPRESSION_RING_BYTES) ||
           lies_in(at, compression->big_room.start, compression->big_room.bytes);
}

/* ---- compressing ----------------------------------------------------------------- */

__attribute__((noinline)) static void wipe_table(void)
{
    unsigned char table[TABLE_BYTES];
    memset(table, 0, sizeof(table));
    __asm__ volatile("" : : "r"(table) : "memory");
}

/* Whatever the depth of its callers, both functions called from here begin
 * their frames at `table_top`. */
__attribute__((noinline)) static size_t compress_at_table(struct compression *compression,
                                                          const void *in, size_t length,
                                                          void *out, size_t allowed)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    uintptr_t distance = here - compression->table_top;
    if (distance == 0 || distance > 2 * DEPTH_SLACK) {
        distance = DEPTH_SLACK;
        compression->table_top = here - distance;
        compression->table_is_dirty = true;
    }
    unsigned char padding[distance];
    __asm__ volatile("" : : "r"(padding) : "memory");
    if (compression->table_is_dirty)
        wipe_table();
    compression->table_is_dirty = false;
    size_t got = compression->compress(in, length, out, allowed);
    __asm__ volatile("" : : "r"(padding) : "memory");
    return got;
}

size_t compression_run(struct compression *compression, const void *bytes, size_t length,
                       size_t allowed, const void **result)
{
    if (!is_room(compression, bytes)) {
        void *room = compression_room(compression, length);
        if (!room)
            return 0;
        bytes = memcpy(room, bytes, length);
    }
    unsigned char *out = allowed <= sizeof(compression->out)
                             ? compression->out
                             : scratch_get(&compression->big_out, allowed);
    if (!out)
        return 0;
    *result = out;
    return compress_at_table(compression, bytes, length, out, allowed);
}
