#include "view/wait_histogram.h"

/* Values below this have a bucket each. */
#define EXACT     (2 * WAIT_BUCKETS_PER_OCTAVE)
#define STEP_BITS 3

/* A longer value loses all but its leading four bits; their first is always set,
 * the other three say which eighth of the octave it is. */
static unsigned bucket_index(uint64_t nsec)
{
    if (nsec < EXACT)
        return (unsigned)nsec;
    unsigned shift = 63u - (unsigned)__builtin_clzll(nsec) - STEP_BITS;
    unsigned lead = (unsigned)(nsec >> shift);
    return shift * WAIT_BUCKETS_PER_OCTAVE + lead;
}

/* The largest value that falls into a bucket. */
static uint64_t bucket_end(unsigned bucket)
{
    if (bucket < EXACT)
        return bucket;
    unsigned shift = bucket / WAIT_BUCKETS_PER_OCTAVE - 1;
    uint64_t lead = bucket % WAIT_BUCKETS_PER_OCTAVE + WAIT_BUCKETS_PER_OCTAVE;
    return (lead << shift) + ((UINT64_C(1) << shift) - 1);
}

static uint64_t get(const _Atomic uint64_t *value)
{
    return atomic_load_explicit(value, memory_order_relaxed);
}

static void set(_Atomic uint64_t *value, uint64_t to)
{
    atomic_store_explicit(value, to, memory_order_relaxed);
}

void wait_histogram_clear(struct wait_histogram *histogram)
{
    for (unsigned i = 0; i < WAIT_BUCKETS; i++)
        set(&histogram->buckets[i], 0);
    set(&histogram->count, 0);
    set(&histogram->longest, 0);
}

/* There is one writer: a load and a store, no locked instruction. */
void wait_histogram_add(struct wait_histogram *histogram, uint64_t nsec)
{
    _Atomic uint64_t *bucket = &histogram->buckets[bucket_index(nsec)];
    set(bucket, get(bucket) + 1);
    set(&histogram->count, get(&histogram->count) + 1);
    if (nsec > get(&histogram->longest))
        set(&histogram->longest, nsec);
}

uint64_t wait_histogram_quantile(const struct wait_histogram *histogram,
                                 unsigned permille)
{
    uint64_t count = get(&histogram->count), longest = get(&histogram->longest);
    /* Split, so that no count overflows. */
    uint64_t wanted = count / 1000 * permille + (count % 1000 * permille + 999) / 1000;
    uint64_t seen = 0;
    for (unsigned i = 0; i < WAIT_BUCKETS && wanted; i++) {
        seen += get(&histogram->buckets[i]);
        if (seen >= wanted)
            return bucket_end(i) < longest ? bucket_end(i) : longest;
    }
    return longest;
}
