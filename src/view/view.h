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
 */
#ifndef RDB_UFFD_VIEW_H
#define RDB_UFFD_VIEW_H

#include <stddef.h>
#include <stdint.h>

#include "memory/pages.h"
#include "memory/regions.h"

/* An address in the server's memory at the instant of the freeze. 0 is the
 * server's NULL. Never cast to a pointer outside src/view. */
typedef uint64_t frozen_address;

struct view;

/* One reader of a view. A reader belongs to one thread; any number of readers
 * may work on one view at the same time. */
struct view_reader {
    struct view *view;
    uint64_t region_start; /* the region the last read fell in */
    uint64_t region_end;
    uint32_t region_first_chunk;
    uint64_t preserved_reads; /* reads answered from the preserved copy */
};

void view_reader_init(struct view_reader *reader, struct view *view);

/* Copies `length` bytes that stood at `from` at the freeze to `to`.
 * Returns 0, -EFAULT if any byte lies outside the frozen regions (a wrong
 * pointer: the snapshot must be given up), -EIO if a preserved page cannot be
 * read back, -ECANCELED if the snapshot was cancelled. `length` may be 0, and
 * may span pages and chunks, not two regions that are not adjacent.
 * Any thread but the fault server's. Never blocks on the server. */
int view_read(struct view_reader *reader, void *to, frozen_address from,
              size_t length);

/* A hint that `from` will be read soon. Any value is harmless. */
static inline void view_prefetch(frozen_address from)
{
    __builtin_prefetch((const void *)(uintptr_t)from, 0, 3);
}

#endif
