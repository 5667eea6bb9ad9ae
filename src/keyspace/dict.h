/* The dict of Redis 7.0, frozen: iteration in the order of the server's own
 * iterator, and lookup.
 *
 *  dict 56 bytes   0 type · 8 tables[2] · 24 used[2] · 40 rehash index (-1: none)
 *                  · 48 pauses · 50 size exponent[2] (-1: no table)
 *  entry 24 bytes  0 key · 8 value · 16 next in the chain
 */
#ifndef RDB_UFFD_KEYSPACE_DICT_H
#define RDB_UFFD_KEYSPACE_DICT_H

#include "keyspace/frozen.h"

struct frozen_dict {
    frozen_address tables[2];
    uint64_t used[2];
    uint64_t sizes[2]; /* buckets, 0: no table */
};

struct frozen_entry {
    uint64_t key;
    uint64_t value;
    frozen_address next;
};

/* 0, -EBADMSG when it cannot be a dict, or what the view says. */
int dict_read(struct walk *walk, frozen_address address, struct frozen_dict *dict);
static inline uint64_t dict_size(const struct frozen_dict *dict)
{
    return dict->used[0] + dict->used[1];
}

#define DICT_BATCH 64

/* Calls `visit` with up to DICT_BATCH entries at a time, in order, until it
 * returns other than 0, which is then returned. The entries' keys and values
 * have been prefetched. */
typedef int (*dict_visit)(struct walk *walk, const struct frozen_entry *entries,
                          size_t count, void *context);
int dict_walk(struct walk *walk, const struct frozen_dict *dict, dict_visit visit,
              void *context);

/* The value of the entry whose key is the very pointer `key`, which hashes to
 * `hash`. 1 when found, 0 when not, or -errno. */
int dict_find(struct walk *walk, const struct frozen_dict *dict, uint64_t hash,
              frozen_address key, uint64_t *value);
/* A hint that dict_find() will be asked for this hash soon. */
void dict_prefetch(struct walk *walk, const struct frozen_dict *dict, uint64_t hash);

#endif
