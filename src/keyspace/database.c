#include "keyspace/database.h"

#include "kernel/fault_points.h"

/* What all databases begin with. */
#define DATABASE_KEYS    0
#define DATABASE_EXPIRES 8

static int read_store(struct walk *walk, const struct database *database, uint16_t offset,
                      struct frozen_store *store)
{
    frozen_address address;
    int error = frozen_read(walk, &address, database->address + offset, sizeof(address));
    return error ? error : store_read(walk, address, store);
}

int database_read(struct walk *walk, int index, struct database *database)
{
    const struct family *family = walk->family;
    walk->where = "a database";
    memset(database, 0, sizeof(*database));
    int error = 0;
    if (family->database_pointers)
        error = frozen_read(walk, &database->address,
                            walk->roots->databases + (uint64_t)index * 8, 8);
    else
        database->address =
            walk->roots->databases + (uint64_t)index * family->database_bytes;
    if (error || !database->address)
        return error;
    uint16_t keys_at =
        fault_point(FAULT_MOVED_KEYSPACE) ? DATABASE_KEYS + 8 : DATABASE_KEYS;
    error = read_store(walk, database, keys_at, &database->keys);
    if (!error)
        error = read_store(walk, database, DATABASE_EXPIRES, &database->expires);
    if (!error && family->volatile_keys)
        error =
            read_store(walk, database, family->volatile_keys, &database->volatile_keys);
    return error;
}
