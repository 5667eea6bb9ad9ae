/* What differs between servers in how a keyspace lies in memory and is written,
 * as data: one constant table for every enum keyspace_layout. */
#ifndef RDB_UFFD_KEYSPACE_FAMILY_H
#define RDB_UFFD_KEYSPACE_FAMILY_H

#include <stdbool.h>
#include <stdint.h>

#include "keyspace/keyspace.h"

enum table_form { TABLE_DICT, TABLE_HASHTABLE };

/* What the low bits of a pointer to an entry of a dict say it points to, besides 0: an
 * entry; dict.h has the picture. A tag of 0 does not occur in this family. */
struct dict_tags {
    bool key;              /* an odd pointer is the key itself */
    uint8_t even_key;      /* the key, once these bits are removed */
    uint8_t without_value; /* an entry of key and next */
    uint8_t around_key;    /* an entry that ends with its key */
};

/* Where key and expiry are: in tables around the object, or in it. */
enum object_form {
    OBJECT_BARE,
    OBJECT_VALKEY_8_1,
    OBJECT_VALKEY_9_1,
    OBJECT_REDIS_8_2,
    OBJECT_REDIS_8_6,
};

/* A hash in a table: what stands for a field. */
enum field_form {
    FIELD_STRING,
    FIELD_REDIS_8_0,
    FIELD_REDIS_8_6,
    FIELD_VALKEY_8_1,
    FIELD_VALKEY_9_1,
};

/* A sorted set in a skiplist: where the elements are. */
enum skiplist_form { SKIPLIST_POINTERS, SKIPLIST_VALKEY_9_1, SKIPLIST_REDIS_8_6 };

/* What is written before the keys of a cluster's slot. */
enum slot_form { SLOT_NOTHING, SLOT_OPCODE, SLOT_TEXT, SLOT_TEXT_VOLATILE };

struct family {
    const char *name; /* as layout files have it (host/layout_file.h) */
    enum table_form tables;
    uint16_t dict_exponents; /* in a dict: of the sizes of its tables */
    struct dict_tags dict_tags;
    /* An entry begins with the pointer to the next one; only those of hashes may have a
     * value, if fields and values are apart. */
    bool next_first;
    enum object_form objects;
    enum field_form fields;
    enum slot_form slots;

    uint16_t database_bytes;
    bool database_pointers; /* an array of pointers, 0: never used */
    uint16_t volatile_keys; /* in a database: keys with fields that expire */

    /* The tables of a database lie in a store of one table for every slot; 0:
     * the database points to the table itself. */
    uint16_t store_tables, store_count, store_keys;
    /* The set of slots that are being imported, 0: unknown to this server; and how many
     * keys they have, which are not among the store's. */
    uint16_t store_importing, store_imported_keys;

    uint8_t stream_type;    /* in the dump */
    bool consumer_activity; /* consumers have a second time, when they were active */
    uint16_t stream_rax, stream_numbers, stream_groups;
    uint16_t group_nacked; /* the last entry that was given back; 0: none can be */
    uint16_t group_consumers;
    uint16_t stream_producers; /* what is kept to tell repeated entries; 0: nothing */
    enum skiplist_form skiplists;
    uint16_t expiring_listpack; /* in what a hash of this form points to */

    bool newer_types;    /* there are values that no walker knows: values.c */
    bool modular_clocks; /* idle times wrap as numbers do, not one short */
};

/* The members that are numbers, in the order in which layout files have them, and the most
 * that each may be: walkers have no more room. Those of the first list are 0 where a family
 * does not have what they are about, and never where it has. */
#define FAMILY_OPTIONAL_NUMBERS(NUMBER)                                                  \
    NUMBER(dict_exponents, 54)                                                           \
    NUMBER(volatile_keys, 4088)                                                          \
    NUMBER(store_tables, 4088)                                                           \
    NUMBER(store_count, 4088)                                                            \
    NUMBER(store_keys, 4088)                                                             \
    NUMBER(store_importing, 4088)                                                        \
    NUMBER(store_imported_keys, 4088)                                                    \
    NUMBER(group_nacked, 48)                                                             \
    NUMBER(stream_producers, 4088)                                                       \
    NUMBER(expiring_listpack, 24)
#define FAMILY_NUMBERS(NUMBER)                                                           \
    FAMILY_OPTIONAL_NUMBERS(NUMBER)                                                      \
    NUMBER(database_bytes, 4096)                                                         \
    NUMBER(stream_rax, 80)                                                               \
    NUMBER(stream_numbers, 24)                                                           \
    NUMBER(stream_groups, 80)                                                            \
    NUMBER(group_consumers, 56)

const struct family *family_of(enum keyspace_layout layout);
/* The one of that name, NULL: none. */
const struct family *family_named(const char *name);
/* The first number that walkers of the forms of `like` could not do with, NULL: none. */
const char *family_unfit(const struct family *family, const struct family *like);
/* What KEYSPACE_OF_FILE stands for from now on. Main thread, nothing frozen. */
void family_define(const struct family *family);

#endif
