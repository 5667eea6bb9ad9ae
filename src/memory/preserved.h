/* Preserved pages: what stood in a page at the freeze, by page number, in a
 * buffer whose size the operator sets and in a spool file beyond that.
 *
 *  directory          leaf (one slot)           slot
 *  [chunk 0] ──────▶  [page 0] 0: not preserved
 *  [chunk 1] 0        [page 1] RAW ───────────▶ 4096 bytes
 *  [chunk 2] ─▶ …     [page 2] PACKED ────────▶ a piece of a slot, LZ4
 *                     [page 3] SPOOLED ───────▶ a page of the spool file
 *
 * A slot is 4096 bytes of one big mapping. Slots hold raw pages, leaves of the
 * index, or packed pages; all of them count against the limit, and so do the
 * directory and the table of slots.
 *
 * Threads: one writer, the fault server: every function marked [server] is
 * called by it alone. Any number of readers at the same time, without locks:
 * a page's entry is published with release order after its bytes are there,
 * and a reader that finds the entry changed after it copied copies again. A
 * page once preserved stays so until preserved_end(), wherever it moves.
 * [idle]: only when no snapshot is under way.
 */
#ifndef RDB_UFFD_MEMORY_PRESERVED_H
#define RDB_UFFD_MEMORY_PRESERVED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/pages.h"
#include "memory/spool.h"

enum buffer_policy {
    BUFFER_SPOOL, /* at the limit, pages go to the spool */
    BUFFER_BLOCK, /* at the limit, the writer waits until the snapshot ends */
    BUFFER_ABORT, /* at the limit, the snapshot is given up */
};

struct packing;

struct preserved {
    /* Set at preserved_begin(), constant until preserved_end(). */
    _Atomic uint32_t *directory; /* slot of the leaf + 1, 0: no page preserved */
    unsigned char *slots;
    uint32_t *slot_table; /* by slot: page number, or next free slot */
    uint8_t *slot_kinds;
    uint32_t slot_count; /* address space, not memory */
    uint32_t chunk_count;
    size_t directory_bytes;
    enum buffer_policy policy;
    bool compress;
    struct spool spool;

    /* The fault server's. */
    uint32_t unused_from;     /* slots from here on were never used */
    uint32_t populated_until; /* slots up to here have, or had, memory */
    uint32_t first_warm;      /* freed slots with memory, linked by slot_table */
    uint32_t first_cold;      /* freed slots whose memory was given back */
    uint32_t raw_count;       /* raw pages that nobody tried to pack yet */
    uint32_t sweep;           /* where the search for a page to move goes on */
    uint32_t open_block;      /* slot that takes packed pages, NO_SLOT: none */
    uint32_t open_block_used;
    struct packing *packing; /* room for packing and unpacking */

    /* Written by the fault server, read by anyone. */
    _Atomic uint64_t limit;          /* bytes; also written by the operator's thread */
    _Atomic uint32_t slots_resident; /* with memory behind them */
    _Atomic uint64_t bytes_peak;
    _Atomic uint64_t pages;        /* preserved in this snapshot */
    _Atomic uint64_t pages_packed; /* … of them packed now */
    _Atomic uint64_t packed_bytes;
    _Atomic uint64_t pages_spooled;
};

/* Makes the empty structure. 0 or -ENOMEM. */
int preserved_create(struct preserved *preserved);
void preserved_destroy(struct preserved *preserved);

struct preserved_settings {
    uint64_t limit; /* bytes */
    enum buffer_policy policy;
    bool compress;
    const char *spool_directory; /* "": the current one */
};

/* The least limit with which `chunk_count` chunks can be preserved. */
uint64_t preserved_least_limit(uint32_t chunk_count);

/* Makes ready for pages 0 … chunk_count * PAGES_PER_CHUNK - 1. 0; -ENOMEM;
 * -EDQUOT when the limit is below preserved_least_limit(); or what opening the
 * spool failed with. [idle], main thread. */
int preserved_begin(struct preserved *preserved, uint32_t chunk_count,
                    const struct preserved_settings *settings);
/* Forgets all pages and gives the memory back, but for a small reserve. [idle] */
void preserved_end(struct preserved *preserved);

/* Keeps a copy of the 4096 bytes at `live` as page `page`; no-op when it is
 * preserved already. 0; -ENOBUFS when the policy is not to spool and there is
 * no room; -errno of the spool. [server] */
int preserved_put(struct preserved *preserved, uint32_t page, const void *live);
/* Does a little of what need not be done in a fault: touch memory ahead, pack
 * pages when the buffer fills, move pages to the spool when the limit was
 * lowered. Returns 1 if there may be more to do, 0 if not, -errno. [server] */
int preserved_work(struct preserved *preserved);

/* Copies bytes of a preserved page. 0; -ENOENT when it is not preserved; -EIO
 * when it cannot be read back. Any thread. */
int preserved_read(struct preserved *preserved, uint32_t page, size_t offset, void *to,
                   size_t length);

/* True if no page of the chunk is preserved. Any thread. */
static inline bool preserved_chunk_is_empty(const struct preserved *preserved,
                                            uint32_t chunk)
{
    return atomic_load_explicit(&preserved->directory[chunk], memory_order_acquire) == 0;
}

bool preserved_has(const struct preserved *preserved, uint32_t page);

/* Bytes held now, index structures included; never above the limit. */
uint64_t preserved_bytes(const struct preserved *preserved);
/* Changes the limit, also during a snapshot; the fault server follows. */
void preserved_set_limit(struct preserved *preserved, uint64_t limit);

#endif
