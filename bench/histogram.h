/* Latency histogram with bounded relative error, in the manner of HdrHistogram: buckets double in width, each power of
 * two is cut into 128, so that any percentile is off by less than 0.8 %. The maximum is kept exactly. */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

enum {
    HISTOGRAM_SUB_BITS = 7,
    HISTOGRAM_SUB_BUCKETS = 1 << HISTOGRAM_SUB_BITS,
    HISTOGRAM_MAX_BITS = 44, /* 2^44 ns are almost five hours */
    HISTOGRAM_BUCKETS =
        (HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB_BUCKETS,
};

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

void histogram_record(struct histogram *histogram, uint64_t value);

/* Smallest value that at least percent % of the recorded ones do not exceed (upper edge of its bucket, never above the
 * maximum); 0 when nothing was recorded. */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);

#endif
