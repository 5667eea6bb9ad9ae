#include "keyspace/sample.h"

#include "keyspace/batch.h"
#include "keyspace/database.h"
#include "keyspace/slots.h"

/* A table is looked into at so many places ... */
#define SPOTS          16
#define SPOTS_THOROUGH 64
/* ... for so many keys each, in so many buckets at most. */
#define SPOT_KEYS          8
#define SPOT_KEYS_THOROUGH 64
#define SPOT_BUCKETS       4096
#define SPOT_BYTES         (UINT64_C(1) << 20)
/* What may be read of one key and its value. */
#define KEY_BYTES (UINT64_C(256) << 10)
/* Databases and a cluster's slots that are looked into, those without keys aside. */
#define DATABASES_MOST 8
#define SLOTS_MOST     32
#define SLOTS_AT_ONCE  512
/* Of one kind, until one had all parts. */
#define STREAMS_MOST 8
/* Values of one kind that are read and turn out to be too long: some milliseconds each. */
#define TOO_LONG_MOST    16
#define BUCKET_KEYS_MOST 64

struct sampling {
    struct keyspace_samples *samples;
    struct rdb_sink sink;
    struct keyspace_sample *sample; /* that is being taken */
    struct frozen_table expires;    /* of the database, or of the slot */
    int64_t not_before;
    int database;
    struct keyspace_kinds *kinds; /* the caller's */
    struct keyspace_kinds taken;  /* and those that were taken now */
    struct keyspace_kinds too_long;
};

static int never_stops(struct keyspace_observer *observer, uint64_t keys)
{
    (void)observer, (void)keys;
    return 0;
}

static int keep_bytes(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct keyspace_sample *sample =
        ((struct sampling *)((char *)sink - offsetof(struct sampling, sink)))->sample;
    if (length > SAMPLE_BYTES_MAX - sample->value_length)
        return -E2BIG;
    memcpy(sample->value + sample->value_length, bytes, length);
    sample->value_length += length;
    return 0;
}

static bool is_full(const struct sampling *sampling)
{
    return sampling->samples->count == SAMPLES_MAX;
}

/* ---- one key --------------------------------------------------------------------- */

static int take_name(struct walk *walk, const struct frozen_string *name,
                     struct keyspace_sample *sample)
{
    if (name->length > SAMPLE_BYTES_MAX)
        return -E2BIG;
    sample->name_length = name->length;
    return frozen_read(walk, sample->name, name->address, name->length);
}

static int take_value(struct walk *walk, const struct frozen_object *object,
                      struct keyspace_sample *sample)
{
    sample->value_length = 0;
    walk->stream_parts = 0;
    int error = rdb_encode_byte(walk->encoder, object->rdb_type);
    if (!error)
        error = object_save(walk, object);
    if (!error)
        error = rdb_encoder_flush(walk->encoder);
    if (error == -E2BIG)
        sample->value_length = error = 0;
    sample->parts = walk->stream_parts;
    rdb_encoder_reset(walk->encoder);
    return error;
}

static uint8_t *count_of(struct keyspace_kinds *kinds, const struct frozen_object *object,
                         int64_t expire)
{
    return &kinds->seen[object->type][object->encoding][expire != NO_EXPIRE];
}

static int take_key(struct walk *walk, struct sampling *sampling)
{
    struct frozen_object *object = &walk->batch->objects[0];
    struct keyspace_sample *sample =
        &sampling->samples->samples[sampling->samples->count];
    int type = object_prepare(walk, object);
    if (type == KEYSPACE_STRANGER) {
        *count_of(&sampling->samples->met, object, walk->batch->expires[0]) = 0;
        sampling->samples->stranger_name = walk->where;
        sampling->samples->stranger = walk->stranger;
        return 0;
    }
    /* A module's: only the module can write it, so name, type and expiry are all there is. */
    bool opaque = type == -ENOTSUP && object->type == OBJECT_MODULE;
    if (type < 0 && !opaque)
        return type == -ENOTSUP ? 0 : type;
    sampling->sample = sample;
    sample->database = sampling->database;
    sample->type = object->type;
    sample->expire = walk->batch->expires[0];
    sample->seen = count_of(sampling->kinds, object, sample->expire);
    int error = take_name(walk, &walk->batch->names[0], sample);
    sample->value_length = 0;
    if (!error && !opaque)
        error = take_value(walk, object, sample);
    /* Of a value that is too long only type and expiry could be compared. */
    bool is_too_long = error == -E2BIG ||
                       (!error && sampling->samples->thorough && !sample->value_length);
    if (is_too_long)
        ++*count_of(&sampling->too_long, object, sample->expire);
    if (error || is_too_long)
        return error;
    sampling->samples->count++;
    ++*count_of(&sampling->taken, object, sample->expire);
    return 0;
}

static bool may_be_asked(const struct sampling *sampling, int64_t expire)
{
    return expire == NO_EXPIRE || expire >= sampling->not_before;
}

static bool is_kind_wanted(struct sampling *sampling, const struct frozen_object *object,
                           int64_t expire)
{
    uint8_t seen = *count_of(sampling->kinds, object, expire);
    uint8_t taken = *count_of(&sampling->taken, object, expire);
    if (*count_of(&sampling->too_long, object, expire) >= TOO_LONG_MOST)
        return false;
    /* The next one may have what was missing in the last. */
    bool more = object->type == OBJECT_STREAM && taken < STREAMS_MOST &&
                sampling->kinds->stream_parts != STREAM_ALL_PARTS;
    return seen + taken == 0 || more;
}

static int look_at_key(struct walk *walk, const struct frozen_entry *entry,
                       struct sampling *sampling)
{
    int error = batch_read(walk, entry, 1, &sampling->expires);
    walk->stranger = entry->value;
    const struct frozen_object *object = &walk->batch->objects[0];
    int64_t expire = walk->batch->expires[0];
    if (!error && may_be_asked(sampling, expire)) {
        *count_of(&sampling->samples->met, object, expire) = 1;
        if (is_kind_wanted(sampling, object, expire))
            error = take_key(walk, sampling);
    }
    return error == -E2BIG ? 0 : error;
}

/* ---- tables ---------------------------------------------------------------------- */

/* Returns 1 when it has seen enough of this place. */
static int look_at_keys(struct walk *walk, const struct frozen_entry *entries,
                        size_t count, void *context)
{
    struct sampling *sampling = context;
    struct checked_reader *live = walk->reader->live;
    size_t most = sampling->samples->thorough ? SPOT_KEYS_THOROUGH : SPOT_KEYS;
    for (size_t i = 0; i < count && i < most; i++) {
        uint64_t allowed = live->allowed;
        live->allowed = KEY_BYTES;
        int error = look_at_key(walk, &entries[i], sampling);
        live->allowed = allowed;
        if (error)
            return error;
        if (is_full(sampling))
            break;
    }
    return 1;
}

static int sample_table(struct walk *walk, const struct frozen_table *table,
                        struct sampling *sampling)
{
    /* No server lets so many keys share a bucket: the size is another number. */
    if (sampling->samples->thorough &&
        table_size(table) / BUCKET_KEYS_MOST > table_buckets(table))
        return -EBADMSG;
    unsigned spots = sampling->samples->thorough ? SPOTS_THOROUGH : SPOTS;
    uint64_t buckets = table_buckets(table), step = buckets / spots + 1;
    uint64_t width = step < SPOT_BUCKETS ? step : SPOT_BUCKETS;
    /* Not the same places every time, but all of a table that can be looked through. */
    uint64_t first = (uint64_t)sampling->not_before % (step - width + 1);
    int result = 0;
    for (uint64_t at = first; at < buckets && result >= 0; at += step) {
        if (is_full(sampling))
            break;
        walk->reader->live->allowed = SPOT_BYTES;
        result = table_walk_part(walk, table, at, at + width, look_at_keys, sampling);
    }
    walk->reader->live->allowed = UINT64_MAX;
    return result < 0 ? result : 0;
}

static int sample_slot(struct walk *walk, const struct database *database, uint64_t slot,
                       struct sampling *sampling)
{
    struct frozen_table keys;
    int error = store_table(walk, &database->keys, slot, &keys);
    if (!error)
        error = store_table(walk, &database->expires, slot, &sampling->expires);
    return error ? error : sample_table(walk, &keys, sampling);
}

/* Those slots of [from, from + count) that have a table and are wanted. */
static int sample_slots(struct walk *walk, const struct database *database,
                        const struct slot_order *order, uint64_t from, unsigned *left,
                        struct sampling *sampling)
{
    uint64_t rest = order->count - from;
    size_t count = rest < SLOTS_AT_ONCE ? (size_t)rest : SLOTS_AT_ONCE;
    frozen_address tables[SLOTS_AT_ONCE];
    int error = frozen_read(walk, tables, database->keys.tables + from * sizeof(*tables),
                            count * sizeof(*tables));
    for (size_t i = 0; i < count && *left && !error; i++) {
        if (!tables[i] || order->imported[from + i] != sampling->samples->imported)
            continue;
        --*left;
        error = sample_slot(walk, database, from + i, sampling);
    }
    return error;
}

static int sample_database(struct walk *walk, const struct database *database,
                           struct sampling *sampling)
{
    unsigned left = SLOTS_MOST;
    struct slot_order order;
    if (database->keys.count == 1)
        return sample_slot(walk, database, 0, sampling);
    int error = slot_order_read(walk, &database->keys, &order);
    for (uint64_t at = 0; at < order.count && left && !error; at += SLOTS_AT_ONCE)
        error = sample_slots(walk, database, &order, at, &left, sampling);
    return error;
}

static int sample_databases(struct walk *walk, struct sampling *sampling)
{
    int error = 0;
    unsigned left = DATABASES_MOST;
    for (int i = 0; i < walk->roots->database_count && left && !error; i++) {
        struct database database;
        error = database_read(walk, i, &database);
        if (error || !(sampling->samples->imported ? database.keys.imported_keys
                                                   : database.keys.keys))
            continue;
        left--;
        sampling->database = i;
        error = sample_database(walk, &database, sampling);
    }
    return error;
}

int keyspace_sample(const struct keyspace_roots *roots, struct view_reader *reader,
                    int64_t not_before, struct keyspace_kinds *kinds,
                    struct keyspace_samples *samples, const char **where)
{
    struct keyspace_observer observer = {.progress = never_stops};
    struct sampling sampling = {
        .samples = samples,
        .sink.write = keep_bytes,
        .not_before = not_before,
        .kinds = kinds,
    };
    struct walk walk = {
        .roots = roots,
        .family = family_of(roots->layout),
        .reader = reader,
        .encoder = rdb_encoder_create(&sampling.sink, NULL),
        .observer = &observer,
    };
    samples->count = 0;
    samples->stranger_name = NULL;
    memset(&samples->met, 0, sizeof(samples->met));
    int error = walk.encoder ? sample_databases(&walk, &sampling) : -ENOMEM;
    *where = walk.where;
    rdb_encoder_destroy(walk.encoder);
    walk_release(&walk);
    return error;
}
