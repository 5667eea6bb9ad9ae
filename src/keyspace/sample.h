/* A few keys of a live keyspace, as a walk sees them: to be compared with what the
 * server says of them, before a walk is trusted.
 *
 * Looks at a bounded number of keys, all over the tables, and takes of each kind only
 * one. */
#ifndef RDB_UFFD_KEYSPACE_SAMPLE_H
#define RDB_UFFD_KEYSPACE_SAMPLE_H

#include "keyspace/keyspace.h"
#include "keyspace/values.h"

#define SAMPLES_MAX      32
#define SAMPLE_BYTES_MAX 65536 /* of a name, and of a value as it is written */

struct keyspace_sample {
    int database;
    uint8_t *seen; /* of its kind, in the caller's kinds */
    uint8_t parts; /* of a stream: which of its parts it has */
    enum object_type type;
    int64_t expire; /* NO_EXPIRE, or milliseconds since 1970 */
    size_t name_length;
    size_t value_length; /* 0: too long to be compared, or a module's */
    unsigned char name[SAMPLE_BYTES_MAX];
    /* As DUMP has it, but for its last ten bytes: type and value; nothing that is not
     * compressed in memory is compressed here. */
    unsigned char value[SAMPLE_BYTES_MAX];
};

/* In memory from memory_map(). */
struct keyspace_samples {
    bool imported; /* wanted are keys of slots that are being imported, else others */
    bool thorough; /* look at many more keys: tens of milliseconds */
    struct keyspace_kinds met; /* of all keys that were looked at and that walkers know */
    /* One of those that they do not, which are left out: what it is, NULL: there was none. */
    const char *stranger_name;
    frozen_address stranger;
    size_t count;
    struct keyspace_sample samples[SAMPLES_MAX];
};

/* Fills `samples` with keys of kinds that `kinds` has not seen; keys that expire before
 * `not_before` are left out, since the server may deny that it has them. 0, or -errno and
 * `*where` as keyspace_save(). Main thread, with a reader of live memory. */
int keyspace_sample(const struct keyspace_roots *roots, struct view_reader *reader,
                    int64_t not_before, struct keyspace_kinds *kinds,
                    struct keyspace_samples *samples, const char **where);

#endif
