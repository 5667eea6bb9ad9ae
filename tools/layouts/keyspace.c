/* Compiled, never run, against a server's own sources by `generate`: the assembly has a
 * line for every number that src/keyspace takes for granted and that is another one
 * there. What a server keeps to one of its files is seen by including that file. */
#include <stddef.h>

#include "keyspace/family.c"

#include "server.h"
#include "stream.h"
#ifdef PROBE_MODULE_HEADER
#include "module.h"
#endif
#ifdef PROBE_HASHTABLE
#include "hashtable.c"
#elif defined(PROBE_DICT_IS_PRIVATE)
#include "dict.c"
#endif
#ifdef PROBE_STORE
#include "kvstore.c"
#endif
#ifdef PROBE_FIELD_ENTRY
#include "entry.c"
#endif

#define SAME(what, found, taken)                                                         \
    do {                                                                                 \
        if ((long)(found) != (long)(taken))                                              \
            __asm__ volatile("#differs " what " %0 %1"                                   \
                             :                                                           \
                             : "i"((long)(found)), "i"((long)(taken)));                  \
    } while (0)
#define AT(type, field, taken) SAME(#type "." #field, offsetof(type, field), taken)
#define BYTES(type, taken)     SAME(#type, sizeof(type), taken)
/* The bits of a 32-bit word that a bit field has. */
#define BITS(type, field, word, taken)                                                   \
    do {                                                                                 \
        union {                                                                          \
            type whole;                                                                  \
            uint32_t words[16];                                                          \
        } image = {.words = {0}};                                                        \
        image.whole.field = -1;                                                          \
        SAME(#type "." #field ".bits", image.words[word], taken);                        \
    } while (0)
#define FAMILY(member)            (families[PROBE_KEYSPACE].member)
#define AT_FAMILY(type, field, m) AT(type, field, FAMILY(m))

void databases(void);
void databases(void)
{
    AT(PROBE_DATABASE, PROBE_DATABASE_KEYS, 0);
    AT(PROBE_DATABASE, expires, 8);
#ifdef PROBE_VOLATILE_KEYS
    AT_FAMILY(PROBE_DATABASE, keys_with_volatile_items, volatile_keys);
#endif
    BYTES(PROBE_DATABASE, FAMILY(database_bytes));
    SAME("server.db.is.pointers", sizeof(*((struct PROBE_SERVER *)0)->db) == 8,
         FAMILY(database_pointers));
#ifdef PROBE_STORE
    AT_FAMILY(struct _kvstore, PROBE_STORE_TABLES, store_tables);
    AT_FAMILY(struct _kvstore, PROBE_STORE_COUNT, store_count);
    AT_FAMILY(struct _kvstore, key_count, store_keys);
#ifdef PROBE_STORE_IMPORTING
    AT_FAMILY(struct _kvstore, importing, store_importing);
    AT_FAMILY(struct _kvstore, importing_key_count, store_imported_keys);
#else
    SAME("store.importing", 0, FAMILY(store_importing));
#endif
#endif
}

void tables(void);
void tables(void)
{
#ifdef PROBE_HASHTABLE
    AT(struct hashtable, type, 0);
    AT(struct hashtable, rehash_idx, 8);
    AT(struct hashtable, tables, 16);
    AT(struct hashtable, used, 32);
    AT(struct hashtable, bucket_exp, 48);
#ifdef PROBE_VOLATILE_KEYS
    AT(struct hashtable, metadata, 80);
#endif
    AT(bucket, hashes, 1);
    AT(bucket, entries, 8);
    BYTES(bucket, 64);
    BITS(bucket, chained, 0, 0x01);
    BITS(bucket, presence, 0, 0xfe);
    SAME("entries.per.bucket", ENTRIES_PER_BUCKET, 7);
#else
    AT(struct dict, type, 0);
    AT(struct dict, ht_table, 8);
    AT(struct dict, ht_used, 24);
    AT(struct dict, rehashidx, 40);
    AT_FAMILY(struct dict, ht_size_exp, dict_exponents);
    BYTES(struct dict, 56);
    const bool next_first = FAMILY(next_first);
    AT(PROBE_DICT_ENTRY, key, next_first ? 8 : 0);
    AT(PROBE_DICT_ENTRY, v, next_first ? 16 : 8);
    AT(PROBE_DICT_ENTRY, next, next_first ? 0 : 16);
#ifdef PROBE_DICT_IS_PRIVATE
    AT(dictEntryNoValue, key, next_first ? 8 : 0);
    AT(dictEntryNoValue, next, next_first ? 0 : 8);
#endif
#ifdef ENTRY_PTR_NO_VALUE
    SAME("no.value", ENTRY_PTR_NO_VALUE, FAMILY(dict_tags.without_value));
#endif
#ifdef PROBE_ENTRY_IS_KEY
    SAME("is.key", PROBE_ENTRY_IS_KEY, FAMILY(dict_tags.key));
#endif
#ifdef ENTRY_PTR_IS_EVEN_KEY
    SAME("is.even.key", ENTRY_PTR_IS_EVEN_KEY, FAMILY(dict_tags.even_key));
#endif
#ifdef ENTRY_PTR_EMBEDDED
    SAME("embedded", ENTRY_PTR_EMBEDDED, FAMILY(dict_tags.around_key));
    AT(dictEntryEmbedded, v, 0);
    AT(dictEntryEmbedded, next, 8);
    AT(dictEntryEmbedded, key_header_size, 16);
    AT(dictEntryEmbedded, key_buf, 17);
#endif
#endif
}

static void strings(void)
{
    SAME("sds.type.bits", SDS_TYPE_BITS, 3);
    SAME("sds.64", SDS_TYPE_64, 4);
    BYTES(struct sdshdr8, 3);
    BYTES(struct sdshdr16, 5);
    BYTES(struct sdshdr32, 9);
    BYTES(struct sdshdr64, 17);
#ifdef PROBE_FIELD_POINTER
    SAME("field.pointer", 1 << PROBE_FIELD_POINTER, 1);
#endif
#ifdef PROBE_FIELD_ENTRY
    SAME("field.expiry", 1 << FIELD_SDS_AUX_BIT_ENTRY_HAS_EXPIRY, 1);
    SAME("field.pointer", 1 << FIELD_SDS_AUX_BIT_ENTRY_HAS_VALUE_PTR, 2);
#ifdef PROBE_FIELD_REFERENCE
    SAME("field.reference", 1 << FIELD_SDS_AUX_BIT_ENTRY_HAS_STRING_REF, 4);
#endif
#endif
}

void values(void);
void values(void)
{
    BYTES(robj, 16);
    AT(robj, PROBE_OBJECT_VALUE, 8);
    BITS(robj, type, 0, 0x0f);
    BITS(robj, encoding, 0, 0xf0);
#ifdef PROBE_OBJECT_METADATA
    SAME("object.metadata", OBJECT_REDIS_8_6, FAMILY(objects));
    BITS(robj, iskvobj, 0, 0x80000000u);
    BITS(robj, metabits, 1, 0xff);
    BITS(robj, lru, 1, 0xffffff00u);
#else
    BITS(robj, lru, 0, 0xffffff00);
#endif
#ifdef PROBE_OBJECT_EXPIRABLE
    SAME("object.expirable", OBJECT_REDIS_8_2, FAMILY(objects));
    BITS(robj, iskvobj, 1, 1);
    BITS(robj, expirable, 1, 2);
#endif
#ifdef PROBE_OBJECT_EXPIRE
    BITS(robj, hasexpire, 1, 1);
    BITS(robj, hasembkey, 1, 2);
#endif
#ifdef PROBE_OBJECT_INSIDE
    BITS(robj, hasembval, 1, 4);
#endif
    strings();
    AT(quicklist, head, 0);
    AT(quicklist, len, 24);
    AT(quicklistNode, next, 8);
    AT(quicklistNode, entry, 16);
    AT(quicklistNode, sz, 24);
    BITS(quicklistNode, encoding, 8, 3 << 16);
    BITS(quicklistNode, container, 8, 3 << 18);
    AT(quicklistLZF, sz, 0);
    AT(quicklistLZF, compressed, 8);
    SAME("node.lzf", QUICKLIST_NODE_ENCODING_LZF, 2);
    SAME("node.packed", QUICKLIST_NODE_CONTAINER_PACKED, 2);
    AT(zset, zsl, 8);
#ifdef PROBE_SKIPLIST_COMPACT
    SAME("skiplist", SKIPLIST_VALKEY_9_1, FAMILY(skiplists));
    AT(zskiplist, header.length, 0);
    AT(zskiplist, header.tail, 8);
    AT(zskiplistNode, score, 0);
    AT(zskiplistNode, backward, 8);
    AT(zskiplistNode, level, 16);
    AT(struct zskiplistLevel, span, 8);
    BYTES(struct zskiplistLevel, 16);
#elif defined(PROBE_SKIPLIST_OFFSETS)
    SAME("skiplist", SKIPLIST_REDIS_8_6, FAMILY(skiplists));
    AT(zskiplist, tail, 8);
    AT(zskiplist, length, 16);
    AT(zskiplistNode, score, 0);
    AT(zskiplistNode, backward, 8);
    AT(zskiplistNode, level, 16);
    AT(struct zskiplistLevel, span, 8);
    AT(zskiplistNodeInfo, sdsoffset, 0);
    SAME("offset.bytes", sizeof(((zskiplistNodeInfo *)0)->sdsoffset), 2);
#else
    SAME("skiplist", SKIPLIST_POINTERS, FAMILY(skiplists));
    AT(zskiplist, tail, 8);
    AT(zskiplist, length, 16);
    AT(zskiplistNode, ele, 0);
    AT(zskiplistNode, score, 8);
    AT(zskiplistNode, backward, 16);
#endif
#ifdef PROBE_LISTPACK_EXPIRING
    BYTES(ExpireMeta, 16);
    AT(ExpireMeta, expireTimeLo, 0);
    AT(ExpireMeta, expireTimeHi, 4);
    BITS(ExpireMeta, trash, 1, 256 << 16);
#ifdef PROBE_MSTR
    SAME("mstr.types", MSTR_TYPE_MASK, 3);
    SAME("mstr.more", MSTR_META_MASK, 4);
    SAME("mstr.shift", MSTR_TYPE_BITS + MSTR_META_BITS, 3);
    BYTES(struct mstrhdr5, 1);
    BYTES(struct mstrhdr8, 3);
    BYTES(struct mstrhdr16, 3);
    BYTES(struct mstrhdr64, 9);
#endif
    AT(listpackEx, meta, 0);
    AT_FAMILY(listpackEx, lp, expiring_listpack);
#endif
}

void streams(void);
void streams(void)
{
    const long numbers = offsetof(stream, length);
    AT_FAMILY(stream, rax, stream_rax);
    AT_FAMILY(stream, cgroups, stream_groups);
    AT_FAMILY(stream, length, stream_numbers);
    AT(stream, last_id, numbers + 8);
    AT(stream, first_id, numbers + 24);
    AT(stream, max_deleted_entry_id, numbers + 40);
    AT(stream, entries_added, numbers + 56);
    AT(streamCG, last_id, 0);
    AT(streamCG, entries_read, 16);
    AT(streamCG, pel, 24);
    AT_FAMILY(streamCG, consumers, group_consumers);
#ifdef PROBE_GROUP_NACKED
    AT_FAMILY(streamCG, pel_nack_tail, group_nacked);
    AT(streamCG, pel_time_head, 32);
    AT(streamNACK, id, 32);
    AT(streamNACK, pel_next, 56);
#else
    SAME("group.nacked", 0, FAMILY(group_nacked));
#endif
#ifdef PROBE_STREAM_PRODUCERS
    AT_FAMILY(stream, idmp_duration, stream_producers);
    AT(stream, idmp_max_entries, FAMILY(stream_producers) + 8);
    AT(stream, idmp_producers, FAMILY(stream_producers) + 16);
    AT(stream, iids_added, FAMILY(stream_producers) + 24);
    AT(stream, iids_duplicates, FAMILY(stream_producers) + 32);
    AT(idmpProducer, idmp_dict, 0);
    AT(idmpProducer, idmp_head, 8);
    AT(idmpEntry, next, 0);
    AT(idmpEntry, id, 8);
    AT(idmpEntry, iid_len, 24);
    AT(idmpEntry, iid, 32);
#else
    SAME("stream.producers", 0, FAMILY(stream_producers));
#endif
    AT(streamConsumer, seen_time, 0);
#ifdef PROBE_CONSUMER_ACTIVITY
    SAME("consumer.activity", 1, FAMILY(consumer_activity));
    AT(streamConsumer, active_time, 8);
    AT(streamConsumer, name, 16);
    AT(streamConsumer, pel, 24);
#else
    SAME("consumer.activity", 0, FAMILY(consumer_activity));
    AT(streamConsumer, name, 8);
    AT(streamConsumer, pel, 16);
#endif
    AT(streamNACK, delivery_time, 0);
    AT(streamNACK, delivery_count, 8);
    AT(rax, head, 0);
    AT(rax, numele, 8);
    AT(raxNode, data, 4);
    BITS(raxNode, iskey, 0, 1);
    BITS(raxNode, isnull, 0, 2);
    BITS(raxNode, iscompr, 0, 4);
    BITS(raxNode, size, 0, 0xfffffff8);
}
