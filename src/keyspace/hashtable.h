/* The hashtable of Valkey 8.1 and later, frozen.
 *
 *  hashtable        0 type · 8 rehash index (-1: none) · 16 tables[2] · 32 used[2]
 *                   · 48 size exponent[2] (-1: no table)
 *  bucket 64 bytes  0 chained:1 present:7 · 1 hashes[7] · 8 entries[7]
 *
 *  A chained bucket has six entries, and in the place of the seventh the
 *  bucket that goes on with it.
 */
#ifndef RDB_UFFD_KEYSPACE_HASHTABLE_H
#define RDB_UFFD_KEYSPACE_HASHTABLE_H

#include "keyspace/table.h"

int hashtable_read(struct walk *walk, frozen_address address, struct frozen_table *table);
/* Takes what is in the buckets from `from` to `to` (exclusive) of one table. */
int hashtable_walk_buckets(struct table_iteration *iteration, frozen_address buckets,
                           uint64_t from, uint64_t to);

#endif
