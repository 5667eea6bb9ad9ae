/* A server that takes a few seconds to save and is overwritten meanwhile, and what is
 * asked of it: for tests of the buffer and of memory. */
#ifndef RDB_UFFD_TESTS_BUFFERED_H
#define RDB_UFFD_TESTS_BUFFERED_H

#include "overwriter.h"
#include "snapshot.h"

#define MEGABYTE (1024.0 * 1024.0)
#define KEYS     24000
#define BYTES    1000
#define LIMIT    "6mb"

struct buffered_options {
    const char *arguments; /* of the module */
    const char *fault;
    int delay; /* usec a key, 0: 10 */
};

/* With KEYS values of BYTES and some of every kind. */
struct server *buffered_start(uint64_t seed, struct buffered_options options);
struct overwriter *buffered_overwrite(struct server *server, uint64_t seed);

bool saving(struct server *server);
/* A field of INFO without its "uffd_". */
double number(struct server *server, const char *field);
/* Until it is from `least` to `most`. */
void wait_for_number(struct server *server, const char *field, double least, double most,
                     double seconds);
/* Waits for the end of the save; the dump must be what it has to be. */
void check_exact(struct snapshot *snapshot);
/* The most that the process held while the save ran, above what it held before
 * and above what the dataset grew meanwhile. Bytes. */
double most_resident_above(struct server *server, double before, double dataset);
void note_result(struct server *server, long commands);

#endif
