#include "histogram.h"

#include <math.h>

static unsigned bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUB_BUCKETS)
        return (unsigned)value;
    unsigned top_bit = 63u - (unsigned)__builtin_clzll(value);
    if (top_bit >= HISTOGRAM_MAX_BITS)
        return HISTOGRAM_BUCKETS - 1;
    unsigned shift = top_bit - HISTOGRAM_SUB_BITS;
    return (shift + 1) * HISTOGRAM_SUB_BUCKETS + (unsigned)(value >> shift) -
           HISTOGRAM_SUB_BUCKETS;
}

static uint64_t upper_edge(unsigned bucket)
{
    if (bucket < HISTOGRAM_SUB_BUCKETS)
        return bucket;
    unsigned shift = bucket / HISTOGRAM_SUB_BUCKETS - 1;
    uint64_t lower = (uint64_t)(bucket % HISTOGRAM_SUB_BUCKETS + HISTOGRAM_SUB_BUCKETS)
                     << shift;
    return lower + (1ull << shift) - 1;
}

void histogram_record(struct histogram *histogram, uint64_t value)
{
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
    histogram->buckets[bucket_of(value)]++;
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    uint64_t wanted = (uint64_t)ceil((double)histogram->count * percent / 100.0);
    uint64_t seen = 0;
    for (unsigned bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->buckets[bucket];
        if (seen >= wanted && seen > 0) {
            uint64_t edge = upper_edge(bucket);
            return edge < histogram->max ? edge : histogram->max;
        }
    }
    return histogram->max;
}
