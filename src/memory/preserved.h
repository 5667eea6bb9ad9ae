/* Preserved pages: what stood in a page at the freeze, by page number, in a
 * buffer whose size the operator sets and in a spool file beyond that.
 *
 *  directory          leaf (one slot)           slot
 *  [chunk 0] ──────▶  [page 0] 0: not preserved
 *  [chunk 1] 0        [page 1] RAW ───────────▶ 4096 bytes
 *  [chunk 2] ─▶ …     [page 2] PACKED ────────▶ a piece in a packed log
 *                     [page 3] SPOOLED ───────▶ a piece in the spool file
 *                     [page 4] FORGONE          nothing: not to be read
 *
 * A slot is 4096 bytes of one big mapping. Slots hold raw pages, leaves of the
 * index, or a part of a packed log; all of them count against the limit, and
 * so do the directory, the table of slots and the packer's work space.
 *
 * A packed log is a chain of slots that pieces are written to one after the
 * other, across the ends of slots; its oldest slot leaves first, to the spool. There are two:
 * pages of pointers, which are read most, leave when there is nothing else.
 *
 *  slot 17            slot 4             slot 90
 *  ┌───┬──────┬────┐  ┌────┬─────┬──┐   ┌───┬──────────┐
 *  │ a │  b   │ c ─┼─▶│─ c │  d  │e─┼──▶│─e │ free     │   next: slot_table[]
 *  └───┴──────┴────┘  └────┴─────┴──┘   └───┴──────────┘
 *
 * Threads: one writer, the fault server: every function marked [server] is
 * called by it alone. The packer (packer.h) only reads raw pages for it. Any
 * number of readers at the same time, without locks: a page's entry is published
 * with release order after its bytes are there, and a reader that finds the
 * entry changed after it copied copies again. A page once preserved stays so
 * until preserved_end(), wherever it moves. What is in the spool has its sum looked at by
 * who reads it first; a raw page is then read there by the bytes that are wanted.
 * [idle]: only when no snapshot is under way.
 */
#ifndef RDB_UFFD_MEMORY_PRESERVED_H
#define RDB_UFFD_MEMORY_PRESERVED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "memory/pages.h"
#include "memory/spool.h"

enum buffer_policy {
    BUFFER_SPOOL, /* at the limit, pages go to the spool */
    BUFFER_BLOCK, /* at the limit, the writer waits until the snapshot ends */
    BUFFER_ABORT, /* at the limit, the snapshot is given up */
};

struct packer;

struct packed_log {
    uint32_t first; /* the oldest slot, NO_SLOT: it is empty */
    uint32_t start; /* where the first piece begins in it */
    uint32_t last;  /* the slot written to */
    uint32_t used;  /* bytes of it */
};

struct preserved {
    /* Set at preserved_begin(), constant until preserved_end(). */
    _Atomic uint32_t *directory; /* slot of the leaf + 1, 0: no page preserved */
    _Atomic uint64_t *marks;     /* a bit for every page: it has an entry */
    _Atomic uint64_t *checked;   /* another: raw in the spool, and its sum was right; the
                                    readers' */
    unsigned char *slots;
    /* By slot: page number; next slot of a list or the log. The server writes, readers follow
     * the log. */
    _Atomic uint32_t *slot_table;
    uint8_t *slot_kinds;
    uint32_t slot_count;    /* address space, not memory */
    uint32_t mapped_chunks; /* the heap that it was mapped for */
    uint32_t chunk_count;
    size_t directory_bytes;
    size_t marks_bytes;
    size_t fixed_bytes; /* what is held besides slots */
    enum buffer_policy policy;
    bool compress;
    struct spool spool;

    /* The upkeep thread touches memory ahead of need while this is open. */
    struct short_lock touching; /* end waits for the upkeep thread */
    bool toucher_is_late;       /* the main thread's: it has waited in vain */
    bool open;
    _Atomic uint32_t populated_until; /* slots up to here have, or had, memory */

    /* The fault server's. */
    _Atomic uint32_t unused_from; /* slots from here on were never used; the upkeep thread
                                     reads it */
    uint32_t first_warm;          /* freed slots with memory, linked by slot_table */
    uint32_t warm_count;
    uint32_t first_cold; /* freed slots whose memory was given back */
    uint32_t raw_count;  /* raw pages that nobody tried to pack yet */
    uint32_t sweep;      /* where the search for a page to move goes on */
    struct packed_log words_log, lz4_log; /* by the form of their pieces */
    struct packer *packer;
    /* Pages that found no slot free: each kept its writer waiting. */
    uint64_t waits;
    uint64_t wait_usec;

    /* Written by the fault server, read by anyone. */
    _Atomic uint64_t limit;   /* bytes; also written by the operator's thread */
    _Atomic uint64_t ceiling; /* likewise, by the upkeep thread: what there is room for */
    _Atomic uint32_t slots_resident; /* with memory behind them */
    _Atomic uint64_t bytes_peak;
    _Atomic uint64_t pages;        /* preserved in this snapshot */
    _Atomic uint64_t pages_packed; /* … of them in the packed logs now */
    _Atomic uint64_t packed_bytes;
    _Atomic uint64_t pages_spooled;
    /* … of them those that the limit sent there; the others were evicted. */
    _Atomic uint64_t pages_spooled_at_limit;
    _Atomic uint32_t leaves;
};

/* Makes the empty structure. 0 or -ENOMEM. */
int preserved_create(struct preserved *preserved);
/* Packing gets a thread of its own; `drained` is called there whenever it is
 * done with what it had: time for preserved_work(). Without it, pages are packed
 * inside preserved_work(). 0 or -errno. */
int preserved_start_packer(struct preserved *preserved, void (*drained)(void *context),
                           void *context);
void preserved_stop_packer(struct preserved *preserved);
void preserved_destroy(struct preserved *preserved);

struct preserved_settings {
    uint64_t limit; /* bytes */
    enum buffer_policy policy;
    bool compress;
    const char *spool_directory; /* "": the current one */
};

/* The least limit with which `chunk_count` chunks can be preserved. */
uint64_t preserved_least_limit(uint32_t chunk_count);

/* Takes the address space for so many chunks ahead, so that preserved_begin()
 * need not. [idle]; never at the same time as preserved_begin(). */
void preserved_prepare(struct preserved *preserved, uint32_t chunk_count, uint64_t limit);

/* Makes ready for pages 0 … chunk_count * PAGES_PER_CHUNK - 1. 0; -ENOMEM; -EBUSY when the
 * upkeep thread does not let go of the buffer in time;
 * -EDQUOT when the limit is below preserved_least_limit(); or what opening the
 * spool failed with. [idle], main thread. */
int preserved_begin(struct preserved *preserved, uint32_t chunk_count,
                    const struct preserved_settings *settings);
/* Forgets all pages and gives the memory back, but for a small reserve. [idle] */
void preserved_end(struct preserved *preserved);
/* The server crashes: between saves the reserve goes too, since its report needs memory. Any
 * thread, no lock. */
void preserved_abandon_reserve(struct preserved *preserved);

/* Touches a little memory ahead of the fault server's need, within the limit.
 * True if there is more to do. Upkeep thread; also [idle], for the reserve. */
bool preserved_touch_ahead(struct preserved *preserved);

/* Stores a copy of the 4096 bytes at `live` as page `page`; no-op when it is
 * preserved already. 0; -ENOBUFS when the policy is not to spool and there is
 * no room; -EFAULT when it cannot be read; -errno of the spool. [server] */
int preserved_put(struct preserved *preserved, uint32_t page, const void *live);
/* The same of a page whose raw piece somebody has written to the spool, at `place`: no-op
 * when it has been preserved meanwhile. 0, or -ENOBUFS and the like when there is no room
 * for the index. Policy BUFFER_SPOOL. [server] */
int preserved_put_spooled(struct preserved *preserved, uint32_t page, uint32_t place);
/* Of these pages of one chunk, but for those that are preserved already, nothing will be
 * kept: whoever reads them gets -EFAULT. 0, or -ENOBUFS and the like when there is no room
 * for the index. [server] */
int preserved_forgo(struct preserved *preserved, uint32_t first, uint32_t count);
/* After a few faults: takes over what the packer has done and gives it more, if
 * the buffer is nearly full. Cheap. [server] */
void preserved_tend(struct preserved *preserved);
/* Does a little of what need not be done in a fault: pack
 * pages when the buffer is nearly full, move pages to the spool when the limit was
 * lowered. Returns 1 if there may be more to do, 0 if not, -errno. [server] */
int preserved_work(struct preserved *preserved);

/* Copies bytes of a preserved page. 0; -ENOENT when it is not preserved; -EFAULT when
 * nothing is kept of it; -EIO when it cannot be read back. Any thread. */
int preserved_read(struct preserved *preserved, uint32_t page, size_t offset, void *to,
                   size_t length);

/* True if no page of the chunk is preserved or forgone. Any thread. */
static inline bool preserved_chunk_is_empty(const struct preserved *preserved,
                                            uint32_t chunk)
{
    return atomic_load_explicit(&preserved->directory[chunk], memory_order_acquire) == 0;
}

/* A page that has been preserved in this snapshot, or forgone. What is looked at first is in a
 * CPU's first cache, and so are nearly all bits of a heap of a gigabyte; the index is
 * not. Any thread. */
static inline bool preserved_has(const struct preserved *preserved, uint32_t page)
{
    if (preserved_chunk_is_empty(preserved, page / PAGES_PER_CHUNK))
        return false;
    uint64_t marks =
        atomic_load_explicit(&preserved->marks[page / 64], memory_order_acquire);
    return marks >> (page % 64) & 1;
}

/* How many pages of the huge page that this one belongs to have been preserved, or forgone.
 * Any thread. */
static inline unsigned preserved_in_huge_page(const struct preserved *preserved,
                                              uint32_t page)
{
    unsigned found = 0;
    uint32_t word = page / PAGES_PER_HUGE_PAGE * (PAGES_PER_HUGE_PAGE / 64);
    for (unsigned i = 0; i < PAGES_PER_HUGE_PAGE / 64; i++)
        found += (unsigned)__builtin_popcountll(
            atomic_load_explicit(&preserved->marks[word + i], memory_order_relaxed));
    return found;
}

/* A hint that the index entry of a page that has been preserved will be looked at soon. */
void preserved_prefetch_entry(const struct preserved *preserved, uint32_t page);
/* Whether it is in memory as it was, at the moment: any read of it costs what one of memory
 * does. */
bool preserved_is_raw(const struct preserved *preserved, uint32_t page);
/* Where these bytes of it are at the moment, or what is read for them first, for a hint and
 * nothing else; NULL: not in memory. */
const void *preserved_place(const struct preserved *preserved, uint32_t page,
                            size_t offset);

/* Bytes held now, index structures included; never above the limit. */
uint64_t preserved_bytes(const struct preserved *preserved);
/* … of which what is not pages: index, tables and the packer's work space. */
uint64_t preserved_index_bytes(const struct preserved *preserved);
/* Changes the limit, also during a snapshot; the fault server follows. Never
 * below what the index and a few pages take until the snapshot ends. */
void preserved_set_limit(struct preserved *preserved, uint64_t limit);
/* The same of what the process may take at most, UINT64_MAX: anything. The lower of the
 * two holds. Upkeep thread. */
void preserved_set_ceiling(struct preserved *preserved, uint64_t ceiling);
/* What holds now. */
uint64_t preserved_limit(const struct preserved *preserved);

#endif
