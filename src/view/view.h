/* The frozen view: reads of the server's memory as it was at the freeze.
 *
 * All reads of server memory that belong to a snapshot go through view_read().
 * Nothing in src/keyspace or src/rdb holds a pointer into the server: a place
 * in the frozen past is a `frozen_address`, a plain number that cannot be
 * dereferenced by accident.
 *
 * How a read stays in the past while the server runs on:
 *
 *   reader                                fault server
 *   1 look whether page is preserved      a copy the page to a slot
 *     yes: read the slot, done            b publish the slot      (release)
 *   2 copy the bytes from the live page   c lift the protection
 *   3 look again          (acquire)         (only now can the writer write)
 *     preserved now: the copy of step 2
 *     may be new bytes, read the slot
 *
 * A read that sees no slot in step 3 took its bytes before c, so they are the
 * old ones. The order b before c is what the whole module rests on.
 *
 * Step 2 is slow on some machines (view/splitter.h): readers time some of their reads.
 */
#ifndef RDB_UFFD_VIEW_H
#define RDB_UFFD_VIEW_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/checked_read.h"
#include "memory/pages.h"
#include "memory/preserved.h"
#include "memory/regions.h"

/* An address in the server's memory at the instant of the freeze. 0 is the
 * server's NULL. Never cast to a pointer outside src/view. */
typedef uint64_t frozen_address;

/* A frozen region and the number of the first chunk of pages in it. Chunks are
 * aligned in the address space: two regions may share a chunk's worth of
 * addresses, but each counts its own. */
struct view_region {
    uint64_t start;
    uint64_t end;
    uint32_t first_chunk;
};

struct view {
    struct view_region *regions; /* sorted; from memory_map() */
    size_t region_count;
    size_t region_capacity;
    uint32_t chunk_count;
    uint64_t bytes; /* of all regions */
    struct preserved *preserved;
    /* 0, or why the past is no longer to be had: -ECANCELED, or the error that
     * the snapshot failed with. Set before any page loses its protection
     * without having been preserved or forgone, so that a reader that finds 0 after its
     * copy has copied old bytes. */
    _Atomic int error;
    /* Some reader found its reads of live memory slow: said once, and left so, since the
     * machine stays the same. */
    _Atomic bool slow;
};

/* 0 or -ENOMEM. `preserved` must outlive the view. */
int view_create(struct view *view, struct preserved *preserved);
void view_destroy(struct view *view);
/* Numbers the pages of these regions and clears the error. -ENOSPC when there
 * are too many regions. Under heap_lock() and with nothing frozen: main thread before the
 * freeze, upkeep thread between snapshots, to know the size. Not yet readable. */
int view_set_regions(struct view *view, const struct region_set *regions);
/* Ends all reading: view_read() returns `error` from now on, unless an earlier
 * error stands: then false. Any thread. */
bool view_fail(struct view *view, int error);
/* The page number of an address. False when it is in no frozen region. Any
 * thread, between freeze and release. */
bool view_page_of(const struct view *view, uint64_t address, uint32_t *page);
/* The first frozen address from here on, 0: none. As above. */
uint64_t view_first_from(const struct view *view, uint64_t address);
/* Whether any byte of [start, end) is in a frozen region. As above. */
bool view_overlaps(const struct view *view, uint64_t start, uint64_t end);

/* Whether reads of live memory were found to be slow on this machine. Any thread. */
static inline bool view_is_slow(const struct view *view)
{
    return atomic_load_explicit(&view->slow, memory_order_relaxed);
}

#define VIEW_HINTS 128

/* One reader of a view. A reader belongs to one thread; any number of readers
 * may work on one view at the same time. */
struct view_reader {
    struct view *view; /* NULL: it reads live memory, through `live` */
    struct checked_reader *live;
    uint64_t region_start; /* the region the last read fell in */
    uint64_t region_end;
    uint32_t region_first_chunk;
    uint64_t preserved_reads; /* reads answered from the preserved copy */
    /* Reads of live memory until one is timed; how many were, and how many were slow. */
    unsigned until_timed, timed, timed_slow;
    unsigned hint_count;
    frozen_address hints[VIEW_HINTS];
};

void view_reader_init(struct view_reader *reader, struct view *view);
/* A reader of memory as it is now, when nothing is frozen: for the main thread, which
 * then is the only one that changes what it reads. view_read() is as safe, and slow:
 * a system call or two for every read. */
void view_reader_init_live(struct view_reader *reader, struct checked_reader *live);

/* Copies `length` bytes that stood at `from` at the freeze to `to`.
 * Returns 0, -EFAULT if any byte lies outside the frozen regions, was forgone, or cannot be
 * read (a wrong pointer, a page that the machine has lost: the snapshot must be given up),
 * -EIO if a preserved page cannot be read back, -ECANCELED if the snapshot was cancelled.
 * `length` may be 0, and may span pages and chunks, not two regions that are not
 * adjacent. Any thread but the fault server's. Never blocks on the server. */
int view_read(struct view_reader *reader, void *to, frozen_address from, size_t length);
/* Whether so many bytes can be there at all, before anybody makes room for them. 0, -EFAULT,
 * or what a reader of live memory may not read any more: -E2BIG. */
int view_check(struct view_reader *reader, frozen_address from, uint64_t length);

/* Whether a read there is one of memory, by the reader itself: not of a page that has to be
 * unpacked or read from the spool first, nor by a system call. */
bool view_is_memory(struct view_reader *reader, frozen_address address);

/* Hands all hints to the CPU. */
void view_give_hints(struct view_reader *reader);

/* Bytes at this address will be read soon, from where it is now: any value is harmless. A
 * read that nobody has hinted at waits for memory alone; hints that are handed on together
 * wait together. They are kept until view_give_hints(), or until there are VIEW_HINTS. */
static inline void view_hint(struct view_reader *reader, frozen_address address)
{
    reader->hints[reader->hint_count++] = address;
    if (reader->hint_count == VIEW_HINTS)
        view_give_hints(reader);
}

#endif
