#include "memory/dirty_prediction.h"

#include <math.h>

#include "memory/pages.h"

/* Between the samples; nothing is written at 0. */
static double read_off(const struct dirty_sample *samples, unsigned count, double usec)
{
    double before = 0, value_before = 0;
    for (unsigned i = 0; i < count; i++) {
        double at = (double)samples[i].usec, value = (double)samples[i].pages;
        if (usec <= at)
            return at > before ? value_before + (value - value_before) * (usec - before) /
                                                    (at - before)
                               : value;
        before = at;
        value_before = value;
    }
    return value_before;
}

/* Writes that hit one of W pages at random, r of them in a unit of time, leave
 * W (1 - exp(-rt/W)) pages written: each span of time adds the same part of what the
 * span before added. The first fifth is left out, since pages that everybody writes to
 * (tables, the allocator's own) are all written in it. */
static double continue_curve(const struct dirty_sample *samples, unsigned count,
                             double usec, double most)
{
    double end = (double)samples[count - 1].usec, span = end * 2 / 5;
    double value = read_off(samples, count, end);
    double middle = read_off(samples, count, end - span);
    double before = middle - read_off(samples, count, end - 2 * span);
    double added = value - middle;
    double ratio = before > 0 ? added / before : 0;
    double spans = (usec - end) / span;
    if (ratio >= 0.999)
        value += added * spans;
    else if (ratio > 0)
        value += added * ratio * (1 - pow(ratio, spans)) / (1 - ratio);
    return value > most ? most : value;
}

uint64_t dirty_predict(const struct dirty_sample *samples, unsigned count, uint64_t usec,
                       uint64_t heap_bytes)
{
    if (!count)
        return 0;
    uint64_t most = heap_bytes / PAGE_BYTES;
    double value = usec <= samples[count - 1].usec
                       ? read_off(samples, count, (double)usec)
                       : continue_curve(samples, count, (double)usec, (double)most);
    return (uint64_t)(value + 0.5);
}
