/* How long writers waited for their faults, as a histogram: eight buckets for
 * every doubling, so that a value read back is at most an eighth too high.
 *
 * One thread records (the fault server), any may read meanwhile, without locks;
 * such a reader may miss the newest values. Times are nanoseconds, 0 to 2^64-1.
 */
#ifndef RDB_UFFD_VIEW_WAIT_HISTOGRAM_H
#define RDB_UFFD_VIEW_WAIT_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define WAIT_BUCKETS_PER_OCTAVE 8u
#define WAIT_BUCKETS            (WAIT_BUCKETS_PER_OCTAVE * 62u)

struct wait_histogram {
    _Atomic uint64_t buckets[WAIT_BUCKETS];
    _Atomic uint64_t count;
    _Atomic uint64_t longest;
};

/* Forgets everything. Not while values are recorded. */
void wait_histogram_clear(struct wait_histogram *histogram);
/* The recording thread only. Touches nothing but `histogram`. */
void wait_histogram_add(struct wait_histogram *histogram, uint64_t nsec);
/* The least time that at least `permille` thousandths of the values do not
 * exceed, rounded up to its bucket's end but never above the longest; 0 when
 * nothing was recorded. `permille`: 1 … 1000. */
uint64_t wait_histogram_quantile(const struct wait_histogram *histogram,
                                 unsigned permille);

#endif
