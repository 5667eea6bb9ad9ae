/* Walks a frozen keyspace and tells an encoder what it finds, in the order in
 * which the server's own SAVE would have written it.
 *
 * One walker per layout family lives in this directory. A walker reads the
 * server's memory only through view_read(), and trusts nothing it reads: a
 * length that cannot be, a chain that does not end, an unknown encoding end
 * the walk with -EBADMSG; a pointer out of the frozen regions with -EFAULT.
 */
#ifndef RDB_UFFD_KEYSPACE_H
#define RDB_UFFD_KEYSPACE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keyspace/value_source.h"
#include "rdb/encoder.h"
#include "view/view.h"

/* The server's siphash(): `seed` is 16 bytes. */
typedef uint64_t (*keyspace_hash_function)(const uint8_t *in, size_t length,
                                           const uint8_t *seed);

/* The families of servers, after the first of each: see family.c. Recorded heaps
 * (tests/fuzz/seeds) begin with this number: who puts one in between records them anew. */
enum keyspace_layout {
    KEYSPACE_REDIS_7_0,
    KEYSPACE_REDIS_7_2, /* and Valkey 7.2 */
    KEYSPACE_REDICT_7_3,
    KEYSPACE_REDIS_7_4,
    KEYSPACE_REDIS_8_0,
    KEYSPACE_REDIS_8_2,
    KEYSPACE_REDIS_8_4,
    KEYSPACE_REDIS_8_6,
    KEYSPACE_VALKEY_8_0,
    KEYSPACE_VALKEY_8_1,
    KEYSPACE_VALKEY_9_1,
    KEYSPACE_REDIS_8_8,
    KEYSPACE_OF_FILE, /* as a layout file says (family_define) */
};

/* Parts of a stream that may not be there. */
enum stream_part { STREAM_ENTRIES = 1, STREAM_CONSUMERS = 2, STREAM_PENDING = 4 };
#define STREAM_ALL_PARTS (STREAM_ENTRIES | STREAM_CONSUMERS | STREAM_PENDING)

/* Of which kinds keys were compared with what the server says of them: by type, encoding,
 * and whether it expires; and of streams, which parts. */
struct keyspace_kinds {
    uint8_t seen[16][16][2];
    uint8_t stream_parts;
};

/* What a walk needs to know of the frozen instant; filled by the host part on
 * the main thread inside the freeze. Plain numbers: it may be copied freely. */
struct keyspace_roots {
    enum keyspace_layout layout;
    frozen_address databases; /* server.db */
    int database_count;       /* server.dbnum */
    keyspace_hash_function hash;
    uint8_t hash_seed[16];
    frozen_address expiring_hash_type; /* Redis: of hashes with fields that expire */
    bool cluster;                      /* cluster-enabled */
    bool save_idle_time;               /* maxmemory-policy is an LRU one */
    bool save_frequency;               /* maxmemory-policy is an LFU one */
    uint32_t lru_clock;                /* LRU_CLOCK() at the freeze */
    int64_t unix_time; /* server.unixtime, seconds: LFU decay counts from it */
    /* By it producers' entries (stream.c) expire, and are left out; 0: this server writes
     * all that there are. Milliseconds. */
    uint64_t expiry_clock;
    int lfu_decay_time; /* minutes */
    int key_save_delay; /* rdb-key-save-delay, microseconds; < 0: one in so many keys */
    /* With a layout from a file, a walk that meets a key of another kind ends with -ENODATA;
     * nor is any stream believed before all parts of one have been compared: what is looked
     * for in the wrong place may just seem not to be there. */
    bool only_compared;
    struct keyspace_kinds compared;
};

/* A walk ends with it at a value of a type that no walker knows and newer servers have;
 * what it was reading is then what that is, such as "an array (ARRAY)". */
#define KEYSPACE_STRANGER (-EPROTONOSUPPORT)

/* What expires within so long is not compared with what the server says of it: it may be gone
 * by then, and a server that is asked for a key that has expired deletes it. */
#define KEYSPACE_SOON_MSEC 2000

/* What a server in cluster mode has. */
#define KEYSPACE_SLOTS 16384

struct keyspace_observer {
    /* Called after at most 64 keys, with the number of keys written so far.
     * 0 to go on; a negative errno stops the walk, which returns it. */
    int (*progress)(struct keyspace_observer *observer, uint64_t keys);
    /* Who writes values of modules' types; NULL: nobody, and a walk that meets one ends
     * with -ENOTSUP. */
    struct value_source *values;
    frozen_address
        stranger; /* set by a walk that ends with KEYSPACE_STRANGER: the object */
};

struct worker_pool;

/* Writes every database (SELECTDB, RESIZEDB, keys) to the encoder; header,
 * functions, module data and the end of the file are the caller's. `pool`: begun by
 * worker_pool_begin(), or NULL.
 * Returns 0 or a negative errno; on failure `*where` (if not NULL) is a static
 * string that says what was being read. */
int keyspace_save(const struct keyspace_roots *roots, struct view_reader *reader,
                  struct rdb_encoder *encoder, struct keyspace_observer *observer,
                  struct worker_pool *pool, const char **where);

/* Whether what lies there still looks like such an object. */
bool keyspace_is_stranger(const struct keyspace_roots *roots, struct view_reader *reader,
                          frozen_address object);

/* How many keys the server says it has in one of the first `roots->database_count`
 * databases. 0 or a negative errno. */
int keyspace_count_database(const struct keyspace_roots *roots,
                            struct view_reader *reader, int index, uint64_t *keys);
/* How many a dump has in all; and those of slots that are being imported, which the
 * server does not own up to yet. 0 or a negative errno. */
int keyspace_count(const struct keyspace_roots *roots, struct view_reader *reader,
                   uint64_t *keys, uint64_t *imported);
/* Which slots are being imported, as one database has it. 0; -ENOENT: this database was
 * never used; -errno. */
int keyspace_imported_slots(const struct keyspace_roots *roots,
                            struct view_reader *reader, int index,
                            bool imported[KEYSPACE_SLOTS]);

#endif
