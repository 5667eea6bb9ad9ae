#include "memory/packing.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

#include "kernel/fault_points.h"

/* LZ4's "acceleration": 1 is the densest. Typical pages pack at about 1 GB/s. */
#define ACCELERATION 1

size_t packing_pack(struct packing *packing, const void *page_bytes)
{
    _Static_assert(sizeof(packing->state) >= 16416, "LZ4 state");
    int length =
        LZ4_compress_fast_extState(packing->state, page_bytes, (char *)packing->packed,
                                   (int)PAGE_BYTES, PACKED_BYTES_MAX, ACCELERATION);
    return length > 0 ? (size_t)length : 0;
}

uint32_t packing_room(size_t length)
{
    return (uint32_t)round_up(sizeof(struct packed_header) + length, PACKED_UNIT);
}

int packing_unpack(const void *piece, size_t room, void *to)
{
    struct packed_header header;
    memcpy(&header, piece, sizeof(header));
    uint16_t check = (uint16_t)~header.length;
    if (header.check != check || sizeof(header) + header.length > room ||
        fault_point(FAULT_DAMAGED_PAGE))
        return -EIO;
    int got = LZ4_decompress_safe((const char *)piece + sizeof(header), to, header.length,
                                  (int)PAGE_BYTES);
    return got == (int)PAGE_BYTES ? 0 : -EIO;
}
