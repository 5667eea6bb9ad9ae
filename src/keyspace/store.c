#include "keyspace/store.h"

static int read_pointer(struct walk *walk, frozen_address from, frozen_address *pointer)
{
    return frozen_read(walk, pointer, from, sizeof(*pointer));
}

static int read_only_table(struct walk *walk, struct frozen_store *store)
{
    frozen_address table;
    int error = read_pointer(walk, store->tables, &table);
    if (!error)
        error = table_read(walk, table, &store->only);
    store->keys = table_size(&store->only);
    return error;
}

/* Only a cluster's nodes import. */
static int read_key_counts(struct walk *walk, frozen_address address,
                           struct frozen_store *store)
{
    const struct family *family = walk->family;
    int error = read_pointer(walk, address + family->store_keys, &store->keys);
    if (error || !family->store_importing)
        return error;
    error = read_pointer(walk, address + family->store_importing, &store->importing);
    return error ? error
                 : read_pointer(walk, address + family->store_imported_keys,
                                &store->imported_keys);
}

int store_read(struct walk *walk, frozen_address address, struct frozen_store *store)
{
    const struct family *family = walk->family;
    uint32_t count = 0;
    memset(store, 0, sizeof(*store));
    if (!family->store_tables) {
        store->count = 1;
        int error = table_read(walk, address, &store->only);
        store->keys = table_size(&store->only);
        return error;
    }
    int error = read_pointer(walk, address + family->store_tables, &store->tables);
    if (!error)
        error = frozen_read(walk, &count, address + family->store_count, sizeof(count));
    if (error)
        return error;
    if (!count || count > STORE_TABLES_MAX)
        return -EBADMSG;
    store->count = count;
    if (count == 1)
        return read_only_table(walk, store);
    return read_key_counts(walk, address, store);
}

int store_table(struct walk *walk, const struct frozen_store *store, uint64_t slot,
                struct frozen_table *table)
{
    if (store->count == 1 && slot == 0) {
        *table = store->only;
        return 0;
    }
    frozen_address address;
    if (slot >= store->count)
        return -EBADMSG;
    int error = read_pointer(walk, store->tables + slot * sizeof(address), &address);
    return error ? error : table_read(walk, address, table);
}
