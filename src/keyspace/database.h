/* The tables of one database. */
#ifndef RDB_UFFD_KEYSPACE_DATABASE_H
#define RDB_UFFD_KEYSPACE_DATABASE_H

#include "keyspace/store.h"

struct database {
    frozen_address address; /* 0: never used */
    struct frozen_store keys;
    struct frozen_store expires;
    struct frozen_store volatile_keys;
};

/* 0 or -errno. */
int database_read(struct walk *walk, int index, struct database *database);

#endif
