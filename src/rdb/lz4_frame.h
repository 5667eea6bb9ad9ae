/* A stream of bytes as an LZ4 frame, which the tool lz4 and others unpack: blocks that do
 * not depend on each other, without checksums, since a dump has one of its own.
 *
 *   head │ block: length, bytes │ block │ … │ end
 *
 * Nothing is allocated between create and destroy. One thread at a time. */
#ifndef RDB_UFFD_RDB_LZ4_FRAME_H
#define RDB_UFFD_RDB_LZ4_FRAME_H

#include <stddef.h>

/* What one block holds at most. */
#define LZ4_FRAME_BLOCK_BYTES (256 * 1024)
#define LZ4_FRAME_HEAD_BYTES  7
#define LZ4_FRAME_END_BYTES   4

struct lz4_frame;

extern const unsigned char lz4_frame_head[LZ4_FRAME_HEAD_BYTES];
extern const unsigned char lz4_frame_end[LZ4_FRAME_END_BYTES];

/* NULL: no memory. */
struct lz4_frame *lz4_frame_create(void);
void lz4_frame_destroy(struct lz4_frame *frame); /* NULL: nothing */
/* A block with these bytes, from 1 to LZ4_FRAME_BLOCK_BYTES of them; its length. `*block`
 * is the frame's, until the next one. */
size_t lz4_frame_pack(struct lz4_frame *frame, const void *bytes, size_t length,
                      const unsigned char **block);

#endif
