/* Hashes in tables, and those whose fields may expire.
 *
 *  A field is, with its value
 *    7.0, Valkey 8.0  key and value of the entry, both strings
 *    Redis 8.0 … 8.4  as above, but the key is no sds: struct field_redis
 *    Valkey 8.1, 9.1, Redis 8.6
 *                     one string with more around it: save_packed_field(),
 *                     save_entry()
 */
#include "keyspace/table.h"
#include "keyspace/values.h"

/* In the dump. */
#define HASH_PLAIN             4
#define HASH_EXPIRING_VALKEY   22
#define HASH_EXPIRING_REDIS    24
#define HASH_EXPIRING_LISTPACK 25

#define NEVER UINT64_MAX

/* ---- Redis 8.0 to 8.4 ------------------------------------------------------------ */

/* Redis 8.0 has the time when something expires in 16 bytes:
 *   0 u32 low · 4 u16 high · 6 u16 bits, 256: not valid · 8 pointer */
#define EXPIRY_BYTES   16
#define EXPIRY_INVALID 256u

static uint64_t expiry_at(const unsigned char *bytes)
{
    unsigned high = bytes[4] | (unsigned)bytes[5] << 8;
    unsigned bits = bytes[6] | (unsigned)bytes[7] << 8;
    return bits & EXPIRY_INVALID ? NEVER : half_at(bytes, 0) | (uint64_t)high << 32;
}

/* Its fields have a header like an sds:
 *
 *   type  header (before the address)   length
 *   0     info                          info >> 3
 *   1     unused8  len8  info
 *   2     len16  info
 *   3     len64  info
 *
 * The type is info & 3. With info & 4 there are two bytes of flags before the
 * header, and with their lowest bit an expiry before these. */
struct field_redis {
    frozen_address address;
    uint64_t length;
    uint64_t expire;
};

#define INFO_MORE         4
#define FLAG_EXPIRES      1
#define FIELD_HEADER_MAX  9
#define FIELD_WINDOW_MAX  (EXPIRY_BYTES + 2 + FIELD_HEADER_MAX)
#define FIELD_SHORT_SHIFT 3

static uint64_t field_length(const unsigned char *end)
{
    switch (end[-1] & 3) {
    case 0:
        return end[-1] >> FIELD_SHORT_SHIFT;
    case 1:
        return end[-2];
    case 2:
        return (uint64_t)end[-3] | (uint64_t)end[-2] << 8;
    default:
        return word_at(end - FIELD_HEADER_MAX, 0);
    }
}

static int field_read(struct walk *walk, frozen_address address,
                      struct field_redis *field)
{
    static const uint8_t header_bytes[] = {1, 3, 3, 9};
    unsigned char window[FIELD_WINDOW_MAX], *end = window + sizeof(window);
    int error = frozen_read(walk, end - 1, address - 1, 1);
    if (error)
        return error;
    size_t header = header_bytes[end[-1] & 3];
    size_t bytes = header + (end[-1] & INFO_MORE ? 2 : 0);
    error = frozen_read(walk, end - bytes, address - bytes, bytes);
    if (error)
        return error;
    field->address = address;
    field->length = field_length(end);
    field->expire = NEVER;
    if (!(end[-1] & INFO_MORE) || !(end[-(ptrdiff_t)bytes] & FLAG_EXPIRES))
        return 0;
    error = frozen_read(walk, window, address - bytes - EXPIRY_BYTES, EXPIRY_BYTES);
    field->expire = error ? NEVER : expiry_at(window);
    return error;
}

/* ---- Redis 8.6 ------------------------------------------------------------------- */

/* The flags above the type in the header of a field, if its type has room. */
#define FLAG_8_6_EXPIRE  1u
#define FLAG_8_6_POINTER 2u

/*  [expiry 16] [pointer to the value 8] header · field · 0 [header 3 · value · 0] */
struct field_entry {
    struct frozen_string field;
    frozen_address value;
    uint64_t expire;
};

static int entry_read(struct walk *walk, frozen_address address,
                      struct field_entry *entry)
{
    int error = frozen_string_read(walk, address, &entry->field);
    unsigned flags = error ? 0 : frozen_string_flags(&entry->field);
    frozen_address before = address - frozen_string_header(&entry->field);
    unsigned char expiry[EXPIRY_BYTES];
    entry->expire = NEVER;
    entry->value = string_behind(address, entry->field.length);
    if (!error && flags & FLAG_8_6_POINTER) {
        before -= 8;
        error = frozen_read(walk, &entry->value, before, sizeof(entry->value));
    }
    if (error || !(flags & FLAG_8_6_EXPIRE))
        return error;
    error = frozen_read(walk, expiry, before - EXPIRY_BYTES, EXPIRY_BYTES);
    entry->expire = error ? NEVER : expiry_at(expiry);
    return error;
}

static int save_time(struct walk *walk, const struct frozen_object *object,
                     uint64_t expire)
{
    uint64_t least = object->least_field_expire;
    if (least == NEVER)
        return 0;
    return rdb_encode_length(walk->encoder, expire == NEVER ? 0 : expire - least + 1);
}

static int save_entry(struct walk *walk, frozen_address address,
                      const struct frozen_object *object)
{
    struct field_entry entry;
    int error = entry_read(walk, address, &entry);
    if (!error)
        error = save_time(walk, object, entry.expire);
    if (!error)
        error = frozen_string_save(walk, &entry.field);
    return error ? error : frozen_sds_save(walk, entry.value);
}

/* ---- Redis, both ----------------------------------------------------------------- */

static int read_expiry(struct walk *walk, frozen_address address, uint64_t *expire)
{
    struct field_entry entry;
    struct field_redis field;
    int error;
    if (walk->family->fields == FIELD_REDIS_8_6) {
        error = entry_read(walk, address, &entry);
        *expire = error ? NEVER : entry.expire;
    } else {
        error = field_read(walk, address, &field);
        *expire = error ? NEVER : field.expire;
    }
    return error;
}

static int find_least_expiry(struct walk *walk, const struct frozen_entry *entries,
                             size_t count, void *context)
{
    uint64_t *least = context, expire;
    for (size_t i = 0; i < count; i++) {
        int error = read_expiry(walk, entries[i].key, &expire);
        if (error)
            return error;
        if (expire < *least)
            *least = expire;
    }
    return walk->observer->progress(walk->observer, walk->keys);
}

static int prepare_redis(struct walk *walk, struct frozen_object *object)
{
    struct frozen_table table;
    object->least_field_expire = NEVER;
    int error = table_read(walk, object->pointer, &table);
    if (!error && table.type == walk->roots->expiring_hash_type)
        error = table_walk(walk, &table, find_least_expiry, &object->least_field_expire);
    if (error)
        return error;
    return object->least_field_expire == NEVER ? HASH_PLAIN : HASH_EXPIRING_REDIS;
}

static int save_field_redis(struct walk *walk, const struct frozen_entry *entry,
                            const struct frozen_object *object)
{
    struct field_redis field;
    int error = field_read(walk, entry->key, &field);
    if (!error)
        error = save_time(walk, object, field.expire);
    if (!error)
        error = frozen_blob_save(walk, field.address, field.length);
    return error ? error : frozen_sds_save(walk, entry->value);
}

/* 0 expiry · up to 8.0: 16 key · listpack of fields, values and times: the family says where */
static int expiring_listpack_save(struct walk *walk, frozen_address address)
{
    unsigned char bytes[32];
    uint8_t listpack = walk->family->expiring_listpack;
    int error = frozen_read(walk, bytes, address, listpack + 8u);
    if (error)
        return error;
    uint64_t least = expiry_at(bytes);
    error = rdb_encode_milliseconds(walk->encoder, least == NEVER ? 0 : (int64_t)least);
    return error ? error : listpack_save(walk, word_at(bytes, listpack));
}

/* ---- Valkey 8.1, 9.1 ------------------------------------------------------------- */

/* The table's first word of metadata: a set of the fields that expire. */
#define VOLATILE_SET   80
#define VOLATILE_EMPTY UINT64_MAX

static int prepare_valkey_9_1(struct walk *walk, const struct frozen_object *object)
{
    uint64_t set;
    int error = frozen_read(walk, &set, object->pointer + VOLATILE_SET, sizeof(set));
    if (error)
        return error;
    return set && set != VOLATILE_EMPTY ? HASH_EXPIRING_VALKEY : HASH_PLAIN;
}

/* The flags above the type in the header of a field, if its type has room. */
#define FLAG_8_1_POINTER   1u
#define FLAG_9_1_EXPIRE    1u
#define FLAG_9_1_POINTER   2u
#define FLAG_9_1_REFERENCE 4u

/* A value elsewhere: an sds, or (`reference`) pointer and length of a module's
 * buffer. */
static int save_value_elsewhere(struct walk *walk, frozen_address from, bool reference)
{
    uint64_t target, buffer[2];
    int error = frozen_read(walk, &target, from, sizeof(target));
    if (error || !reference)
        return error ? error : frozen_sds_save(walk, target);
    error = frozen_read(walk, buffer, target, sizeof(buffer));
    return error ? error : frozen_blob_save(walk, buffer[0], buffer[1]);
}

/*  [expiry 8] [pointer to the value 8] header · field · 0 [header 3 · value · 0] */
static int save_packed_field(struct walk *walk, frozen_address address, bool with_expiry)
{
    bool newer = walk->family->fields == FIELD_VALKEY_9_1;
    struct frozen_string field;
    int error = frozen_string_read(walk, address, &field);
    if (!error)
        error = frozen_string_save(walk, &field);
    if (error)
        return error;
    unsigned flags = frozen_string_flags(&field);
    bool elsewhere = flags & (newer ? FLAG_9_1_POINTER : FLAG_8_1_POINTER);
    frozen_address before = address - frozen_string_header(&field);
    if (elsewhere) {
        before -= 8;
        error = save_value_elsewhere(walk, before, newer && flags & FLAG_9_1_REFERENCE);
    } else {
        error = frozen_sds_save(walk, string_behind(address, field.length));
    }
    if (error || !with_expiry)
        return error;
    int64_t expire = NO_EXPIRE;
    if (flags & FLAG_9_1_EXPIRE)
        error = frozen_read(walk, &expire, before - 8, sizeof(expire));
    return error ? error : rdb_encode_milliseconds(walk->encoder, expire);
}

/* ---- any ------------------------------------------------------------------------- */

int hash_prepare(struct walk *walk, struct frozen_object *object)
{
    enum field_form form = walk->family->fields;
    bool redis = form == FIELD_REDIS_8_0 || form == FIELD_REDIS_8_6;
    if (object->encoding == ENCODING_LISTPACK_EXPIRING && redis)
        return HASH_EXPIRING_LISTPACK;
    if (object->encoding != ENCODING_TABLE)
        return -EBADMSG;
    if (redis)
        return prepare_redis(walk, object);
    if (form == FIELD_VALKEY_9_1)
        return prepare_valkey_9_1(walk, object);
    return HASH_PLAIN;
}

static int save_field(struct walk *walk, const struct frozen_entry *entry,
                      const struct frozen_object *object)
{
    switch (walk->family->fields) {
    case FIELD_REDIS_8_0:
        return save_field_redis(walk, entry, object);
    case FIELD_REDIS_8_6:
        return save_entry(walk, entry->key, object);
    case FIELD_VALKEY_8_1:
    case FIELD_VALKEY_9_1:
        return save_packed_field(walk, entry->key,
                                 object->rdb_type == HASH_EXPIRING_VALKEY);
    default:
        break;
    }
    int error = frozen_sds_save(walk, entry->key);
    return error ? error : frozen_sds_save(walk, entry->value);
}

static int save_fields(struct walk *walk, const struct frozen_entry *entries,
                       size_t count, void *context)
{
    for (size_t i = 0; i < count; i++) {
        int error = save_field(walk, &entries[i], context);
        if (error)
            return error;
    }
    return walk->observer->progress(walk->observer, walk->keys);
}

static int table_hash_save(struct walk *walk, const struct frozen_object *object)
{
    struct frozen_table table;
    int error = table_read(walk, object->pointer, &table);
    table.has_values = walk->family->fields == FIELD_REDIS_8_0;
    if (!error && object->rdb_type == HASH_EXPIRING_REDIS)
        error =
            rdb_encode_milliseconds(walk->encoder, (int64_t)object->least_field_expire);
    if (!error)
        error = rdb_encode_length(walk->encoder, table_size(&table));
    if (!error)
        error = table_walk(walk, &table, save_fields, (void *)(uintptr_t)object);
    return error;
}

int hash_save(struct walk *walk, const struct frozen_object *object)
{
    walk->where = "a hash";
    switch (object->encoding) {
    case ENCODING_LISTPACK:
        return listpack_save(walk, object->pointer);
    case ENCODING_LISTPACK_EXPIRING:
        return expiring_listpack_save(walk, object->pointer);
    default:
        return table_hash_save(walk, object);
    }
}
