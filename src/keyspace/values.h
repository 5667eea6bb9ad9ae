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
    ENCODING_LISTPACK_EXPIRING = 12,
};

#define NO_EXPIRE (-1)

/* The server's object: type:4 encoding:4 lru:24 refcount:32 pointer:64.
 *
 * Valkey 8.1 and later take bits of the count away, and put behind the pointer
 * (9.1: in its place, if the value is there too) what the bits announce:
 *
 *   1: i64 expiry · 2: u8 length of the key's header, the header, the key, 0
 *   · 9.1, 4: the value, a string with a header of three bytes
 *
 * Redis 8.2 and 8.4 do as 8.1 does, with 1 for the key and 2 for the expiry, in the same
 * order behind the pointer.
 *
 * Redis 8.6: type:4 encoding:4 refcount:23 key:1 metadata:8 lru:24 pointer:64, and behind
 * that the key as above. Before the object, 8 bytes for every bit of the metadata: the
 * expiry for the lowest, right before it, modules' own data for the others. */
struct frozen_object {
    uint8_t type;
    uint8_t encoding;
    bool more;         /* modules have data of their own at this key */
    bool value_inside; /* `pointer` is known when the key's length is */
    uint32_t lru;
    uint64_t pointer; /* address, or the number itself (ENCODING_INTEGER) */
    /* If the family has them in the object, else 0 and NO_EXPIRE: */
    frozen_address key;
    int64_t expire;
    /* object_prepare(): */
    uint8_t rdb_type;
    uint64_t least_field_expire;
};

/* Where a string with a header of three bytes starts that lies behind a string
 * and its final 0. */
static inline frozen_address string_behind(frozen_address address, uint64_t length)
{
    return address + length + 1 + 3;
}

/* object.c */
int object_read(struct walk *walk, frozen_address address, struct frozen_object *object);
/* The byte before the key that tells how the value is written, also put into
 * the object; -ENOTSUP for what only a module can write, if it is not to be asked (no
 * walk->values, or data of its own at the key); KEYSPACE_STRANGER; -EBADMSG for what
 * cannot be. */
int object_prepare(struct walk *walk, struct frozen_object *object);
/* Writes the value. 0 or -errno. */
int object_save(struct walk *walk, const struct frozen_object *object);

/* values.c */
int listpack_save(struct walk *walk, frozen_address address);
/* hash.c: hashes that are not just a listpack. What is called a hash's type
 * here may depend on its fields. */
int hash_prepare(struct walk *walk, struct frozen_object *object);
int hash_save(struct walk *walk, const struct frozen_object *object);
/* stream.c */
int stream_save(struct walk *walk, frozen_address address);
/* module_value.c: says that the value of the object at `address`, whose type is
 * OBJECT_MODULE, will be wanted. 0; -ENOTSUP: nobody can be asked; -errno. */
int module_value_ask(struct walk *walk, frozen_address address,
                     const struct frozen_object *object,
                     const struct frozen_string *name);
/* Writes the first that was asked for and not written yet. */
int module_value_save(struct walk *walk);

#endif
