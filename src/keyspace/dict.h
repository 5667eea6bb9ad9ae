/* The dict of Redis, Redict, and Valkey up to 8.0, frozen: see table.h.
 *
 *  dict 56 bytes   0 type · 8 tables[2] · 24 used[2] · 40 rehash index (-1: none)
 *                  · 48 pauses · 50 (Redis 8.4, 8.6: 52) size exponent[2] (-1: no table)
 *  entry 24 bytes  0 key · 8 value · 16 next in the chain
 *        16        0 next · 8 key: Redis 8.4, 8.6, whose values are with their keys
 *        24        0 next · 8 key · 16 value: hashes of Redis 8.4
 *
 *  Since 7.2 the low bits of a pointer to an entry say what it points to; which tags a
 *  server has is in family.h:
 *
 *           7.2 … 7.4      Redis 8.0 … 8.6      Valkey 8.0
 *    000    an entry       an entry             an entry
 *    xx1    a key          a key                a key
 *    010    without value  a key (bit removed)  without value: 0 key · 8 next
 *    100    –              8.0, 8.2: without    around its key: 0 value · 8 next
 *                                               · 16 length of the key's header
 *                                               · 17 the header
 */
#ifndef RDB_UFFD_KEYSPACE_DICT_H
#define RDB_UFFD_KEYSPACE_DICT_H

#include "keyspace/table.h"

int dict_read(struct walk *walk, frozen_address address, struct frozen_table *dict);
/* Takes what is in the buckets from `from` to `to` (exclusive) of one table. */
int dict_walk_buckets(struct table_iteration *iteration, frozen_address table,
                      uint64_t from, uint64_t to);

/* The value of the entry whose key is the very pointer `key`, which hashes to
 * `hash`. 1 when found, 0 when not, or -errno. */
int dict_find(struct walk *walk, const struct frozen_table *dict, uint64_t hash,
              frozen_address key, uint64_t *value);
/* That dict_find() will be asked for this hash: view_hint(). */
void dict_hint(struct walk *walk, const struct frozen_table *dict, uint64_t hash);

#endif
