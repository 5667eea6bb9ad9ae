/* Tables, frozen: the dict of Redis and Valkey 8.0 (dict.h) or the hashtable of
 * Valkey since 8.1 (hashtable.h), whichever the server has. Iteration is in the
 * order of the server's own iterator. */
#ifndef RDB_UFFD_KEYSPACE_TABLE_H
#define RDB_UFFD_KEYSPACE_TABLE_H

#include "keyspace/frozen.h"

/* What a table holds. Hashtables hold pointers: `key` and `value` are the same
 * one there, and so they are `key` only in a dict without values. */
struct frozen_entry {
    uint64_t key;
    uint64_t value;
    frozen_address next; /* in a dict's chain, with its tag */
};

struct frozen_table {
    frozen_address type; /* of the server's table types */
    frozen_address tables[2];
    uint64_t used[2];
    uint64_t sizes[2]; /* buckets, 0: no table */
    uint64_t first;    /* hashtable: buckets before this one have been moved */
    bool has_values;   /* said by who reads it: a dict whose entries begin with the next
                        * one does not tell */
};

/* An empty one if `address` is 0. 0, -EBADMSG when it cannot be a table, or
 * what the view says. */
int table_read(struct walk *walk, frozen_address address, struct frozen_table *table);
static inline uint64_t table_size(const struct frozen_table *table)
{
    return table->used[0] + table->used[1];
}

#define TABLE_BATCH 64

/* Calls `visit` with up to TABLE_BATCH entries at a time, in order, until it
 * returns other than 0, which is then returned. What keys and values point to
 * has been hinted at. */
typedef int (*table_visit)(struct walk *walk, const struct frozen_entry *entries,
                           size_t count, void *context);
int table_walk(struct walk *walk, const struct frozen_table *table, table_visit visit,
               void *context);

/* Buckets are numbered through both tables of one that is being rehashed. */
static inline uint64_t table_buckets(const struct frozen_table *table)
{
    return table->sizes[0] + table->sizes[1];
}
/* The same for the buckets from `from` to `to` (exclusive). Whether all entries were
 * found is the caller's to count. */
int table_walk_part(struct walk *walk, const struct frozen_table *table, uint64_t from,
                    uint64_t to, table_visit visit, void *context);

/* ---- for the two kinds of table -------------------------------------------------- */

struct table_iteration {
    struct walk *walk;
    table_visit visit;
    void *context;
    uint64_t left; /* entries that may still come: a longer chain is a loop */
    bool has_values;
    size_t count;
    struct frozen_entry entries[TABLE_BATCH];
};

static inline int table_visit_batch(struct table_iteration *iteration)
{
    size_t count = iteration->count;
    iteration->count = 0;
    if (!count)
        return 0;
    view_give_hints(iteration->walk->reader);
    return iteration->visit(iteration->walk, iteration->entries, count,
                            iteration->context);
}

static inline int table_take(struct table_iteration *iteration,
                             const struct frozen_entry *entry)
{
    if (!iteration->left)
        return -EBADMSG;
    iteration->left--;
    view_hint(iteration->walk->reader, entry->key - 1); /* a header, if it is a string */
    if (entry->key % CACHE_LINE == 0)
        view_hint(iteration->walk->reader, entry->key);
    if (entry->value != entry->key)
        view_hint(iteration->walk->reader, entry->value);
    iteration->entries[iteration->count++] = *entry;
    return iteration->count == TABLE_BATCH ? table_visit_batch(iteration) : 0;
}

/* Buckets of the table with this exponent; false when it cannot be one. */
static inline bool table_size_of(int8_t exponent, uint64_t *buckets)
{
    *buckets = exponent < 0 ? 0 : UINT64_C(1) << (exponent & 63);
    return exponent <= 48;
}

#endif
