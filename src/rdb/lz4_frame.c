#include "rdb/lz4_frame.h"

#include <lz4.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernel/memory.h"

/* The length of a block whose bytes are as they were has this bit. */
#define STORED       0x80000000u
#define LENGTH_BYTES sizeof(uint32_t)
/* LZ4's "acceleration": 1 is the densest. */
#define ACCELERATION 1

/* The magic number; version 1 and independent blocks; blocks of 256 KB; and the second byte
 * of xxHash32 over the two bytes before it. */
const unsigned char lz4_frame_head[LZ4_FRAME_HEAD_BYTES] = {0x04, 0x22, 0x4d, 0x18,
                                                            0x60, 0x50, 0xfb};
const unsigned char lz4_frame_end[LZ4_FRAME_END_BYTES] = {0};

struct lz4_frame {
    LZ4_stream_t state;
    unsigned char block[LENGTH_BYTES + LZ4_COMPRESSBOUND(LZ4_FRAME_BLOCK_BYTES)];
};

struct lz4_frame *lz4_frame_create(void)
{
    return memory_map(sizeof(struct lz4_frame));
}

void lz4_frame_destroy(struct lz4_frame *frame)
{
    if (frame)
        memory_unmap(frame, sizeof(*frame));
}

size_t lz4_frame_pack(struct lz4_frame *frame, const void *bytes, size_t length,
                      const unsigned char **block)
{
    unsigned char *to = frame->block + LENGTH_BYTES;
    int room = (int)(sizeof(frame->block) - LENGTH_BYTES);
    int packed = LZ4_compress_fast_extState(&frame->state, bytes, (char *)to, (int)length,
                                            room, ACCELERATION);
    bool smaller = packed > 0 && (size_t)packed < length;
    if (!smaller)
        memcpy(to, bytes, length);
    size_t stored = smaller ? (size_t)packed : length;
    /* Little endian on every machine a layout table exists for. */
    uint32_t head = (uint32_t)stored | (smaller ? 0 : STORED);
    memcpy(frame->block, &head, LENGTH_BYTES);
    *block = frame->block;
    return LENGTH_BYTES + stored;
}
