/* A few keys at once: what their table's entries lead to, read so that the misses
 * overlap. */
#ifndef RDB_UFFD_KEYSPACE_BATCH_H
#define RDB_UFFD_KEYSPACE_BATCH_H

#include "keyspace/table.h"
#include "keyspace/values.h"

/* In the order of the entries. */
struct batch {
    struct frozen_object objects[TABLE_BATCH];
    struct frozen_string names[TABLE_BATCH];
    uint64_t hashes[TABLE_BATCH];
    int64_t expires[TABLE_BATCH];
};

/* Reads objects, names and expiries (NO_EXPIRE: none) of at most TABLE_BATCH entries of
 * a database's table of keys into walk->batch. 0 or -errno. */
int batch_read(struct walk *walk, const struct frozen_entry *entries, size_t count,
               const struct frozen_table *expires);

#endif
