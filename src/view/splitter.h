/* Splits huge pages that are written to during a snapshot, where reading parts of them is
 * slow.
 *
 * A hypervisor without nested paging keeps page tables of its own, filled as pages are
 * touched. One was met (Linux 6.18 as its guest) that throws away, with every TLB flush
 * that comes from another CPU, what it knows of huge pages that are mapped by small ones,
 * as a huge page is from the first time a part of it loses its protection:
 *
 *   huge page    mapped whole                    a read of 8 bytes at random: 30 ns
 *   huge page    mapped by 512 entries           5 us, again and again, of hundreds of them
 *   512 pages    the huge page has been split    as ever
 *
 * Readers find that out (view_is_slow()), at the earliest some milliseconds after the
 * freeze. From then on a huge page is split when so many of its pages have been preserved
 * that it is not one that is written to by chance, since to split it takes as long as
 * reading all of its pages once; and those that were due before are caught up with, one
 * at a time, after faults and between them. */
#ifndef RDB_UFFD_VIEW_SPLITTER_H
#define RDB_UFFD_VIEW_SPLITTER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "view/view.h"

struct splitter {
    /* mark_probe_split(): whether the kernel keeps marks through a split. Written by who
     * has tried it, main thread or upkeep thread; without a yes nothing is split. */
    _Atomic int keeps_marks;
    uint64_t caught_up;      /* up to this address, UINT64_MAX: with all of them */
    _Atomic uint64_t splits; /* in this snapshot; read by anyone */
};

/* When the fault server is armed. Main thread. */
void splitter_begin(struct splitter *splitter, const struct view *view);
/* The page at `address` has been preserved, and may be written to. When a huge page is
 * split that takes up to 2 ms, and who touches it meanwhile waits. Fault server. */
void splitter_after_fault(struct splitter *splitter, const struct view *view,
                          uint64_t address);
/* Splits one of those that were due before reads were found to be slow; up to 2 ms, as
 * above. Returns whether there may be more. Fault server, when no fault waits. */
bool splitter_catch_up(struct splitter *splitter, const struct view *view);

#endif
