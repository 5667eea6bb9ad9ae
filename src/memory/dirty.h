/* Counts the pages that are written, without anybody waiting for it: the kernel
 * itself lifts the protection of a page at the first write (UFFD_FEATURE_WP_ASYNC)
 * and tells afterwards which pages lost it (PAGEMAP_SCAN).
 *
 * A range belongs to one userfaultfd at most; for as long as it is counted it cannot
 * be registered with another. Everything is done in slices with a rest between
 * them, so that page faults of the process do not wait; `*stop` ends each of the
 * functions after the current slice, with -ECANCELED.
 *
 * Of a large heap only one huge page in so many is watched, and stands for the others: a
 * write to a watched one splits it, and from then on reading it is slower too.
 *
 *    address >> 21   ┌─┬─┬─┬─┬─┬─┬─┬─┬─┬─┐
 *    one in 4, [1]   │ │█│ │ │ │█│ │ │ │█│ …   two bits of the address say which
 *                    └─┴─┴─┴─┴─┴─┴─┴─┴─┴─┘
 */
#ifndef RDB_UFFD_MEMORY_DIRTY_H
#define RDB_UFFD_MEMORY_DIRTY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memory/access_times.h"
#include "memory/pages.h"
#include "memory/regions.h"

struct dirty_sampling {
    unsigned one_in; /* a power of two */
    unsigned which;  /* below that */
};

struct dirty {
    int userfaultfd; /* -1: nothing is counted */
    int pagemap;
    struct region_set regions; /* storage from memory_map() */
    struct dirty_sampling sampling;
    uint64_t bytes, sampled_bytes;     /* of the regions, once started */
    struct access_times *access_times; /* NULL: every write counts */
};

struct dirty_count {
    uint64_t pages;
    uint64_t accessed; /* the same, with those that were only read */
    /* Of some of them, whether more has changed. */
    struct access_times_count access_times;
};

/* For a heap of so many bytes: enough huge pages to stand for the others. */
struct dirty_sampling dirty_choose_sampling(uint64_t heap_bytes);
/* Whether the page at `address` is one that is watched. */
static inline bool dirty_samples(const struct dirty_sampling *sampling, uint64_t address)
{
    return ((address >> HUGE_PAGE_SHIFT) & (sampling->one_in - 1)) == sampling->which;
}

/* Whether the kernel can do it: 0, -ENOTTY, -EINVAL, or what opening failed with. */
int dirty_probe(void);
/* Opens what is needed and copies the regions. 0 or -errno, with nothing left. */
int dirty_open(struct dirty *dirty, const struct region_set *regions,
               const struct dirty_sampling *sampling);
/* Takes over the regions, which nobody else may have registered, and protects them.
 * 0 or -errno; dirty_end() is needed in both cases. */
int dirty_start(struct dirty *dirty, const _Atomic bool *stop);
/* How many pages have been written since, all in all, as far as the sample tells, but
 * for those in which only the times of accesses have changed (access_times.h); and with
 * them, as a backup would have it, while which the server notes such times. A region that
 * went away meanwhile counts as unwritten. */
int dirty_read(const struct dirty *dirty, struct dirty_count *count,
               const _Atomic bool *stop);
/* Lets go of the regions: slice by slice, and the rest at once when stopped. No-op
 * when it is not open. */
void dirty_end(struct dirty *dirty, const _Atomic bool *stop);

#endif
