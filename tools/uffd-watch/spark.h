/* The last figures of something as one line of a terminal: ▁▂▅█▇▃▁. */
#ifndef UFFD_WATCH_SPARK_H
#define UFFD_WATCH_SPARK_H

#include <stdbool.h>

#define LOOKS_KEPT 160

struct looks {
    double values[LOOKS_KEPT]; /* the last one first */
    int count;
};

/* How the terminal is to be drawn on. */
struct screen {
    int columns;
    bool unicode; /* otherwise plain letters */
    bool colour;
};

/* Of the terminal on standard output, as it is now: ask before each drawing. */
struct screen screen_look(void);

void looks_add(struct looks *looks, double value);
/* The last figures, the newest on the right, in at most `columns` columns. The highest line
 * is `most`, or the largest of those shown if that is more. Returns the largest shown. */
double spark_show(const struct looks *looks, double most, int columns, bool unicode);

#endif
