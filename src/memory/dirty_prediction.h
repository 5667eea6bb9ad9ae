/* How many pages will have been written by a later time. Arithmetic only. */
#ifndef RDB_UFFD_MEMORY_DIRTY_PREDICTION_H
#define RDB_UFFD_MEMORY_DIRTY_PREDICTION_H

#include <stdint.h>

/* What was counted so long after the beginning. */
struct dirty_sample {
    uint64_t usec;
    uint64_t pages;
};

/* Pages written `usec` after the beginning: read off between two samples,
 * or continued beyond the last one along a curve that flattens as the same pages are
 * written again. Never more than `heap_bytes` hold. 0 without samples. */
uint64_t dirty_predict(const struct dirty_sample *samples, unsigned count, uint64_t usec,
                       uint64_t heap_bytes);

#endif
