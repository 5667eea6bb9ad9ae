/* The tables of a database in the order in which they are written: by their slots, but
 * for those of slots that are being imported (Valkey 9.1), which come last, in the order
 * in which the server's set of such slots has them. */
#ifndef RDB_UFFD_KEYSPACE_SLOTS_H
#define RDB_UFFD_KEYSPACE_SLOTS_H

#include <stdbool.h>

#include "keyspace/store.h"

struct slot_order {
    uint32_t count;
    uint16_t slots[STORE_TABLES_MAX];
    bool imported[STORE_TABLES_MAX]; /* by slot */
};

/* 0; -EBADMSG when the set cannot be one of the store's slots, or what the view says. */
int slot_order_read(struct walk *walk, const struct frozen_store *store,
                    struct slot_order *order);

#endif
