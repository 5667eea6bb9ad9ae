/* The keys, or the expiries, of one database: a table, or since Redis 7.4 and
 * Valkey 8.0 a store of tables, one for every slot of a cluster, else one. */
#ifndef RDB_UFFD_KEYSPACE_STORE_H
#define RDB_UFFD_KEYSPACE_STORE_H

#include "keyspace/table.h"

#define STORE_TABLES_MAX KEYSPACE_SLOTS

struct frozen_store {
    frozen_address tables; /* array of pointers to tables, may be 0 each */
    uint64_t count;        /* of tables */
    uint64_t keys;         /* but for those of slots that are being imported: */
    uint64_t imported_keys;
    frozen_address importing; /* set of such slots, 0: there are none */
    struct frozen_table only; /* if there is one table */
};

static inline uint64_t store_all_keys(const struct frozen_store *store)
{
    return store->keys + store->imported_keys;
}

/* 0, -EBADMSG or what the view says. */
int store_read(struct walk *walk, frozen_address address, struct frozen_store *store);
/* The table of a slot: an empty one if there is none. */
int store_table(struct walk *walk, const struct frozen_store *store, uint64_t slot,
                struct frozen_table *table);

#endif
