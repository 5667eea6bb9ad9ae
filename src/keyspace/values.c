#include "keyspace/values.h"

#include "keyspace/dict.h"

/* ---- objects --------------------------------------------------------------------- */

int object_read(struct walk *walk, frozen_address address, struct frozen_object *object)
{
    unsigned char bytes[16];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    uint32_t word = error ? 0 : half_at(bytes, 0);
    object->type = word & 15;
    object->encoding = (word >> 4) & 15;
    object->lru = word >> 8;
    object->pointer = error ? 0 : word_at(bytes, 8);
    return error;
}

int object_rdb_type(const struct frozen_object *object)
{
    static const struct {
        uint8_t type, encoding;
        int8_t rdb_type;
    } forms[] = {
        {OBJECT_STRING, ENCODING_EMBEDDED, 0},
        {OBJECT_STRING, ENCODING_RAW, 0},
        {OBJECT_STRING, ENCODING_INTEGER, 0},
        {OBJECT_LIST, ENCODING_QUICKLIST, 18},
        {OBJECT_SET, ENCODING_TABLE, 2},
        {OBJECT_SET, ENCODING_INTSET, 11},
        {OBJECT_SORTED_SET, ENCODING_SKIPLIST, 5},
        {OBJECT_SORTED_SET, ENCODING_LISTPACK, 17},
        {OBJECT_HASH, ENCODING_TABLE, 4},
        {OBJECT_HASH, ENCODING_LISTPACK, 16},
        {OBJECT_STREAM, ENCODING_STREAM, 19},
    };
    if (object->type == OBJECT_MODULE)
        return -ENOTSUP;
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++)
        if (object->type == forms[i].type && object->encoding == forms[i].encoding)
            return forms[i].rdb_type;
    return -EBADMSG;
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
static int listpack_save(struct walk *walk, frozen_address address)
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
#define NODE_BYTES 36
#define NODE_LZF   2

/* A compressed node: u64 compressed bytes, then these. */
static int lzf_node_save(struct walk *walk, frozen_address entry, uint64_t bytes)
{
    uint64_t compressed;
    int error = frozen_read(walk, &compressed, entry, sizeof(compressed));
    if (error)
        return error;
    if (compressed > bytes)
        return -EBADMSG;
    void *room = rdb_encoder_room(walk->encoder, compressed);
    if (!room)
        return rdb_encoder_error(walk->encoder);
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
        view_prefetch(at);
        error = node_save(walk, node);
    }
    return error ? error : left ? -EBADMSG : 0;
}

/* ---- sets and hashes in tables --------------------------------------------------- */

static int save_members(struct walk *walk, const struct frozen_entry *entries,
                        size_t count, void *context)
{
    bool with_values = *(bool *)context;
    for (size_t i = 0; i < count; i++) {
        int error = frozen_sds_save(walk, entries[i].key);
        if (!error && with_values)
            error = frozen_sds_save(walk, entries[i].value);
        if (error)
            return error;
    }
    return walk->observer->progress(walk->observer, walk->keys);
}

static int table_save(struct walk *walk, frozen_address address, bool with_values)
{
    struct frozen_dict dict;
    walk->where = with_values ? "a hash" : "a set";
    int error = dict_read(walk, address, &dict);
    if (!error)
        error = rdb_encode_length(walk->encoder, dict_size(&dict));
    if (!error)
        error = dict_walk(walk, &dict, save_members, &with_values);
    return error;
}

/* ---- sorted sets ----------------------------------------------------------------- */

/* zset: 8 skiplist; skiplist: 8 tail · 16 length
 * node: 0 element · 8 score · 16 backward */
static int skiplist_save(struct walk *walk, frozen_address address)
{
    unsigned char list[24], node[24];
    frozen_address skiplist;
    walk->where = "a sorted set";
    int error = frozen_read(walk, &skiplist, address + 8, sizeof(skiplist));
    if (!error)
        error = frozen_read(walk, list, skiplist, sizeof(list));
    if (error)
        return error;
    uint64_t left = word_at(list, 16);
    error = rdb_encode_length(walk->encoder, left);
    for (frozen_address at = word_at(list, 8); !error && at; left--) {
        double score;
        if (!left)
            return -EBADMSG;
        error = frozen_read(walk, node, at, sizeof(node));
        if (error)
            break;
        at = word_at(node, 16);
        view_prefetch(at);
        memcpy(&score, node + 8, sizeof(score));
        error = frozen_sds_save(walk, word_at(node, 0));
        if (!error)
            error = rdb_encode_binary_double(walk->encoder, score);
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
        return quicklist_save(walk, object->pointer);
    case OBJECT_STREAM:
        return stream_save(walk, object->pointer);
    default:
        break;
    }
    switch (object->encoding) {
    case ENCODING_TABLE:
        return table_save(walk, object->pointer, object->type == OBJECT_HASH);
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
