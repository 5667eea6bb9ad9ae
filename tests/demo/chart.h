/* Waits over time as a picture of letters: one column for each moment, its height the worst
 * wait in it, on a logarithmic scale.
 *
 *    50 ms │        █
 *    20    │        █
 *    10    │        █▂▁
 *          └────────┴───┬────
 *                   0   1 s
 */
#ifndef RDB_UFFD_DEMO_CHART_H
#define RDB_UFFD_DEMO_CHART_H

#include <stdbool.h>
#include <stddef.h>

#include "load.h"

struct chart_frame {
    double before, after; /* seconds shown on both sides of `begin` */
    double most_msec;     /* of all charts that are to be compared */
    int columns;
    bool unicode; /* otherwise plain letters */
};

/* `begin` is the moment called 0, `end` is marked; CLOCK_REALTIME, seconds. To standard
 * output. */
void chart_print(const struct chart_frame *frame, const struct load_sample *samples,
                 size_t count, double begin, double end);

#endif
