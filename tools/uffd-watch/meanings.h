/* What the fields of INFO mean, for whoever gets them from Prometheus. */
#ifndef UFFD_WATCH_MEANINGS_H
#define UFFD_WATCH_MEANINGS_H

struct meaning {
    const char *field, *text;
};

/* Ends with one without a name. */
extern const struct meaning meanings[];

#endif
