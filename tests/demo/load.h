/* Clients that read and then write at a fixed rate, and how long each of their batches
 * waited for its replies. A wait is counted from the moment at which the batch was due, not
 * from when it could be sent: a server that stands still for 50 ms makes all those wait
 * that come meanwhile. */
#ifndef RDB_UFFD_DEMO_LOAD_H
#define RDB_UFFD_DEMO_LOAD_H

#include <stddef.h>

#include "server.h"

#define LOAD_BATCH      10   /* commands */
#define LOAD_PER_SECOND 1000 /* batches */

struct load_sample {
    double seconds; /* CLOCK_REALTIME, when it was due */
    double msec;    /* until the last reply */
};

/* CLOCK_REALTIME. */
double now_seconds(void);

struct load;

/* GETs of "key:0" to "key:KEYS-1" at random, which change nothing. */
struct load *load_start(struct server *server, long keys, size_t value_bytes,
                        uint64_t seed);
/* From the next batch on SETs. */
void load_write(struct load *load);
/* Ends it. The samples in the order in which they were due; they live as long as the case. */
struct load_sample *load_stop(struct load *load, size_t *count);

#endif
