/* Counts the pages that are written, without anybody waiting for it: the kernel
 * itself lifts the protection of a page at the first write (UFFD_FEATURE_WP_ASYNC)
 * and tells afterwards which pages lost it (PAGEMAP_SCAN).
 *
 * A range belongs to one userfaultfd at most; for as long as it is counted it cannot
 * be registered with another. Everything is done in slices with a rest between
 * them, so that page faults of the process do not wait; `*stop` ends each of the
 * functions after the current slice, with -ECANCELED.
 */
#ifndef RDB_UFFD_MEMORY_DIRTY_H
#define RDB_UFFD_MEMORY_DIRTY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memory/regions.h"

struct dirty {
    int userfaultfd; /* -1: nothing is counted */
    int pagemap;
    struct region_set regions; /* storage from memory_map() */
};

struct dirty_count {
    uint64_t pages;  /* written since dirty_start() */
    uint64_t chunks; /* of 4 MB that hold such pages: the index has a page for each */
};

/* Whether the kernel can do it: 0, -ENOTTY, -EINVAL, or what opening failed with. */
int dirty_probe(void);
/* Opens what is needed and copies the regions. 0 or -errno, with nothing left. */
int dirty_open(struct dirty *dirty, const struct region_set *regions);
/* Takes over the regions, which nobody else may have registered, and protects them.
 * 0 or -errno; dirty_end() is needed in both cases. */
int dirty_start(struct dirty *dirty, const _Atomic bool *stop);
/* A region that went away meanwhile counts as unwritten. */
int dirty_read(const struct dirty *dirty, struct dirty_count *count,
               const _Atomic bool *stop);
/* Lets go of the regions: slice by slice, and the rest at once when stopped. No-op
 * when it is not open. */
void dirty_end(struct dirty *dirty, const _Atomic bool *stop);

#endif
