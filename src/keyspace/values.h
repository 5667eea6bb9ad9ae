/* Values: how each type and encoding is written. */
#ifndef RDB_UFFD_KEYSPACE_VALUES_H
#define RDB_UFFD_KEYSPACE_VALUES_H

#include "keyspace/frozen.h"

enum object_type {
    OBJECT_STRING,
    OBJECT_LIST,
    OBJECT_SET,
    OBJECT_SORTED_SET,
    OBJECT_HASH,
    OBJECT_MODULE,
    OBJECT_STREAM,
};

enum object_encoding {
    ENCODING_RAW = 0,
    ENCODING_INTEGER = 1,
    ENCODING_TABLE = 2,
    ENCODING_INTSET = 6,
    ENCODING_SKIPLIST = 7,
    ENCODING_EMBEDDED = 8,
    ENCODING_QUICKLIST = 9,
    ENCODING_STREAM = 10,
    ENCODING_LISTPACK = 11,
};

/* The server's object, 16 bytes: type:4 encoding:4 lru:24 refcount:32 pointer:64 */
struct frozen_object {
    uint8_t type;
    uint8_t encoding;
    uint32_t lru;
    uint64_t pointer; /* address, or the number itself (ENCODING_INTEGER) */
};

int object_read(struct walk *walk, frozen_address address, struct frozen_object *object);
/* The byte before the key that tells how the value is written; -ENOTSUP for a
 * module's value, -EBADMSG for what cannot be. */
int object_rdb_type(const struct frozen_object *object);
/* Writes the value. 0 or -errno. */
int object_save(struct walk *walk, const struct frozen_object *object);

/* stream.c */
int stream_save(struct walk *walk, frozen_address address);

#endif
