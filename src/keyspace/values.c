#include "keyspace/values.h"

#include "keyspace/table.h"

/* ---- what a value is written as --------------------------------------------------- */

#define MODULE_TYPE 7

/* Types that walkers do not know, as servers number them, with the encoding they have. */
static const char *newer_type(const struct walk *walk, const struct frozen_object *object)
{
    static const struct {
        uint8_t type, encoding;
        const char *name;
    } newer[] = {
        {7, 13, "an array (ARRAY)"},
        {8, ENCODING_INTEGER, "a rate of requests (GCRA)"},
    };
    for (size_t i = 0; walk->family->newer_types && i < sizeof(newer) / sizeof(newer[0]);
         i++)
        if (object->type == newer[i].type && object->encoding == newer[i].encoding)
            return newer[i].name;
    return NULL;
}

static int rdb_type_of(struct walk *walk, const struct frozen_object *object)
{
    static const struct {
        uint8_t type, encoding;
        int8_t rdb_type;
    } forms[] = {
        {OBJECT_STRING, ENCODING_EMBEDDED, 0},
        {OBJECT_STRING, ENCODING_RAW, 0},
        {OBJECT_STRING, ENCODING_INTEGER, 0},
        {OBJECT_LIST, ENCODING_QUICKLIST, 18},
        {OBJECT_LIST, ENCODING_LISTPACK, 18},
        {OBJECT_SET, ENCODING_TABLE, 2},
        {OBJECT_SET, ENCODING_INTSET, 11},
        {OBJECT_SET, ENCODING_LISTPACK, 20},
        {OBJECT_SORTED_SET, ENCODING_SKIPLIST, 5},
        {OBJECT_SORTED_SET, ENCODING_LISTPACK, 17},
        {OBJECT_HASH, ENCODING_LISTPACK, 16},
    };
    if (object->more)
        return -ENOTSUP;
    if (object->type == OBJECT_MODULE)
        return walk->values ? MODULE_TYPE : -ENOTSUP;
    if (object->type == OBJECT_STREAM && object->encoding == ENCODING_STREAM)
        return walk->family->stream_type;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
        if (object->type == forms[i].type && object->encoding == forms[i].encoding)
            return forms[i].rdb_type;
    const char *newer = newer_type(walk, object);
    if (!newer)
        return -EBADMSG;
    walk->where = newer;
    return KEYSPACE_STRANGER;
}

int object_prepare(struct walk *walk, struct frozen_object *object)
{
    bool listed = object->more || object->type != OBJECT_HASH ||
                  object->encoding == ENCODING_LISTPACK;
    int type = listed ? rdb_type_of(walk, object) : hash_prepare(walk, object);
    object->rdb_type = (uint8_t)type;
    return type;
}

/* ---- blobs that are written as they lie ------------------------------------------ */

/* 0 u32 bytes of an element · 4 u32 elements · elements */
static int intset_save(struct walk *walk, frozen_address address)
{
    unsigned char header[8];
    walk->where = "an intset";
    int error = frozen_read(walk, header, address, sizeof(header));
    if (error)
        return error;
    uint32_t width = half_at(header, 0);
    if (width != 2 && width != 4 && width != 8)
        return -EBADMSG;
    return frozen_blob_save(walk, address, 8 + (uint64_t)width * half_at(header, 4));
}

/* 0 u32 bytes in all, this header included */
int listpack_save(struct walk *walk, frozen_address address)
{
    unsigned char header[4];
    walk->where = "a listpack";
    int error = frozen_read(walk, header, address, sizeof(header));
    if (error)
        return error;
    uint32_t bytes = half_at(header, 0);
    return bytes < 7 ? -EBADMSG : frozen_blob_save(walk, address, bytes);
}

/* ---- lists ----------------------------------------------------------------------- */

/* quicklist: 0 head · 24 nodes
 * node: 8 next · 16 entry · 24 bytes of the entry, uncompressed
 *       · 32 count:16 encoding:2 container:2 */
#define NODE_BYTES  36
#define NODE_LZF    2
#define NODE_PACKED 2 /* container: a listpack */

/* A compressed node: u64 compressed bytes, then these. */
static int lzf_node_save(struct walk *walk, frozen_address entry, uint64_t bytes)
{
    uint64_t compressed;
    int error = frozen_read(walk, &compressed, entry, sizeof(compressed));
    if (error)
        return error;
    if (compressed > bytes)
        return -EBADMSG;
    void *room;
    error = frozen_room(walk, entry + sizeof(compressed), compressed, &room);
    if (!error)
        error = frozen_read(walk, room, entry + sizeof(compressed), compressed);
    return error ? error : rdb_encode_lzf_blob(walk->encoder, room, compressed, bytes);
}

static int node_save(struct walk *walk, const unsigned char *node)
{
    uint32_t bits = half_at(node, 32);
    uint32_t encoding = (bits >> 16) & 3, container = (bits >> 18) & 3;
    uint64_t bytes = word_at(node, 24);
    frozen_address entry = word_at(node, 16);
    if (bytes > FROZEN_LENGTH_MAX || !encoding || !container)
        return -EBADMSG;
    int error = rdb_encode_length(walk->encoder, container);
    if (error)
        return error;
    return encoding == NODE_LZF ? lzf_node_save(walk, entry, bytes)
                                : frozen_blob_save(walk, entry, bytes);
}

/* Written as if it were a list of one node. */
static int listpack_list_save(struct walk *walk, frozen_address address)
{
    int error = rdb_encode_length(walk->encoder, 1);
    if (!error)
        error = rdb_encode_length(walk->encoder, NODE_PACKED);
    return error ? error : listpack_save(walk, address);
}

static int quicklist_save(struct walk *walk, frozen_address address)
{
    unsigned char list[32], node[NODE_BYTES];
    walk->where = "a list";
    int error = frozen_read(walk, list, address, sizeof(list));
    if (error)
        return error;
    uint64_t left = word_at(list, 24);
    error = rdb_encode_length(walk->encoder, left);
    for (frozen_address at = word_at(list, 0); !error && at; left--) {
        if (!left)
            return -EBADMSG;
        error = frozen_read(walk, node, at, sizeof(node));
        if (error)
            break;
        at = word_at(node, 8);
        view_hint(walk->reader, at);
        view_give_hints(walk->reader);
        error = node_save(walk, node);
    }
    return error ? error : left ? -EBADMSG : 0;
}

/* ---- sets in tables -------------------------------------------------------------- */

static int save_members(struct walk *walk, const struct frozen_entry *entries,
                        size_t count, void *context)
{
    (void)context;
    for (size_t i = 0; i < count; i++) {
        int error = frozen_sds_save(walk, entries[i].key);
        if (error)
            return error;
    }
    return walk->observer->progress(walk->observer, walk->keys);
}

static int set_save(struct walk *walk, frozen_address address)
{
    struct frozen_table table;
    walk->where = "a set";
    int error = table_read(walk, address, &table);
    if (!error)
        error = rdb_encode_length(walk->encoder, table_size(&table));
    return error ? error : table_walk(walk, &table, save_members, NULL);
}

/* ---- sorted sets ----------------------------------------------------------------- */

/* zset: 8 skiplist
 *
 *               skiplist             node
 *               8 tail · 16 length   0 element · 8 score · 16 backward
 *   Valkey 9.1  0 length · 8 tail    0 score · 8 backward · 16 levels, each
 *                                    pointer and span; of the first, instead of the
 *                                    span, how many they are · behind the last
 *                                    u8 length of the element's header · the header
 *   Redis 8.6   8 tail · 16 length   as Valkey 9.1, but for the span of the first:
 *                                    24 u16 where in the node the element is
 */
struct skiplist_node {
    frozen_address backward;
    frozen_address element;
    double score;
};

#define LEVELS_MAX 64

static int compact_node_read(struct walk *walk, frozen_address address,
                             struct skiplist_node *node)
{
    unsigned char bytes[32], header = 0;
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    uint64_t levels = error ? 0 : word_at(bytes, 24);
    if (!error && (!levels || levels > LEVELS_MAX))
        error = -EBADMSG;
    address += 16 + 16 * levels;
    if (!error)
        error = frozen_read(walk, &header, address, 1);
    node->backward = error ? 0 : word_at(bytes, 8);
    node->element = address + 1 + header;
    memcpy(&node->score, bytes, sizeof(node->score));
    return error;
}

static int offset_node_read(struct walk *walk, frozen_address address,
                            struct skiplist_node *node)
{
    unsigned char bytes[26];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    if (error)
        return error;
    node->backward = word_at(bytes, 8);
    node->element = address + (bytes[24] | (unsigned)bytes[25] << 8);
    memcpy(&node->score, bytes, sizeof(node->score));
    return 0;
}

static int skiplist_node_read(struct walk *walk, frozen_address address,
                              struct skiplist_node *node)
{
    unsigned char bytes[24];
    if (walk->family->skiplists == SKIPLIST_VALKEY_9_1)
        return compact_node_read(walk, address, node);
    if (walk->family->skiplists == SKIPLIST_REDIS_8_6)
        return offset_node_read(walk, address, node);
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    node->backward = error ? 0 : word_at(bytes, 16);
    node->element = error ? 0 : word_at(bytes, 0);
    memcpy(&node->score, bytes + 8, sizeof(node->score));
    return error;
}

static int skiplist_save(struct walk *walk, frozen_address address)
{
    unsigned char list[24];
    frozen_address skiplist;
    bool compact = walk->family->skiplists == SKIPLIST_VALKEY_9_1;
    walk->where = "a sorted set";
    int error = frozen_read(walk, &skiplist, address + 8, sizeof(skiplist));
    if (!error)
        error = frozen_read(walk, list, skiplist, sizeof(list));
    if (error)
        return error;
    uint64_t left = word_at(list, compact ? 0 : 16);
    error = rdb_encode_length(walk->encoder, left);
    for (frozen_address at = word_at(list, 8); !error && at; left--) {
        struct skiplist_node node;
        if (!left)
            return -EBADMSG;
        error = skiplist_node_read(walk, at, &node);
        if (error)
            break;
        at = node.backward;
        view_hint(walk->reader, at);
        view_give_hints(walk->reader);
        error = frozen_sds_save(walk, node.element);
        if (!error)
            error = rdb_encode_binary_double(walk->encoder, node.score);
        if (!error && left % 1024 == 0)
            error = walk->observer->progress(walk->observer, walk->keys);
    }
    return error ? error : left ? -EBADMSG : 0;
}

/* ---- any value ------------------------------------------------------------------- */

static int string_save(struct walk *walk, const struct frozen_object *object)
{
    walk->where = "a string";
    if (object->encoding == ENCODING_INTEGER)
        return rdb_encode_integer_string(walk->encoder, (int64_t)object->pointer);
    return frozen_sds_save(walk, object->pointer);
}

int object_save(struct walk *walk, const struct frozen_object *object)
{
    switch (object->type) {
    case OBJECT_STRING:
        return string_save(walk, object);
    case OBJECT_LIST:
        return object->encoding == ENCODING_LISTPACK
                   ? listpack_list_save(walk, object->pointer)
                   : quicklist_save(walk, object->pointer);
    case OBJECT_HASH:
        return hash_save(walk, object);
    case OBJECT_STREAM:
        return stream_save(walk, object->pointer);
    case OBJECT_MODULE:
        return module_value_save(walk);
    default:
        break;
    }
    switch (object->encoding) {
    case ENCODING_TABLE:
        return set_save(walk, object->pointer);
    case ENCODING_INTSET:
        return intset_save(walk, object->pointer);
    case ENCODING_SKIPLIST:
        return skiplist_save(walk, object->pointer);
    case ENCODING_LISTPACK:
        return listpack_save(walk, object->pointer);
    default:
        return -EBADMSG;
    }
}
