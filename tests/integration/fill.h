/* Data of every type and encoding, the same for the same seed.
 *
 * Keys are named "type:number", so that writers find them. Which encoding a
 * value gets depends on the server's settings; FILL_CONFIG makes every one of
 * them appear at modest sizes.
 */
#ifndef RDB_UFFD_TESTS_FILL_H
#define RDB_UFFD_TESTS_FILL_H

#include "server.h"

#define FILL_CONFIG                                                                      \
    "activerehashing no\nlist-max-listpack-size 64\nlist-compress-depth 1\n"             \
    "hash-max-listpack-entries 64\nset-max-intset-entries 128\n"                         \
    "zset-max-listpack-entries 64\nstream-node-max-entries 20\n"

enum fill_kind {
    FILL_STRINGS = 1,
    FILL_LISTS = 2,
    FILL_SETS = 4,
    FILL_HASHES = 8,
    FILL_SORTED_SETS = 16,
    FILL_STREAMS = 32,
    FILL_EXPIRIES = 64, /* long TTLs on keys of all the other kinds */
    FILL_BINARY_KEYS = 128,
    FILL_FUNCTIONS = 256,
    FILL_ALL = 511,
};

/* Fills the database selected on the connection: `count` keys of each kind,
 * about a kilobyte each on average. */
void fill(redisContext *connection, unsigned kinds, int count, uint64_t seed);
/* A string key of `length` bytes; `compressible` or random. */
void fill_large(redisContext *connection, const char *key, size_t length,
                bool compressible, uint64_t seed);
/* Random bytes, or text that compresses to about a third. */
void random_bytes(uint64_t *random, char *bytes, size_t length);
void random_text(uint64_t *random, char *text, size_t length);

#endif
