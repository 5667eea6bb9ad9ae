/* Databases and keys: what stands around the values. */
#include "keyspace/keyspace.h"

#include "kernel/memory.h"
#include "kernel/thread.h"
#include "keyspace/dict.h"
#include "keyspace/frozen.h"
#include "keyspace/rax.h"
#include "keyspace/values.h"

enum opcode {
    OPCODE_IDLE = 248,
    OPCODE_FREQUENCY = 249,
    OPCODE_RESIZE = 251,
    OPCODE_EXPIRE = 252,
    OPCODE_SELECT = 254,
};

#define NO_EXPIRE        (-1)
#define LRU_CLOCK_MAX    ((1u << 24) - 1)
#define SLEEP_PIECE_USEC 50000

/* redisDb of 7.0: 80 bytes, 0 keys · 8 expires · 40 number */
#define DATABASE_BYTES 80

/* The keys that are on their way together, so that their misses overlap. */
struct batch {
    struct frozen_object objects[DICT_BATCH];
    struct frozen_string names[DICT_BATCH];
    uint64_t hashes[DICT_BATCH];
    int64_t expires[DICT_BATCH];
};

/* ---- around a key ---------------------------------------------------------------- */

static int save_idle_time(struct walk *walk, const struct frozen_object *object)
{
    uint32_t now = walk->roots->lru_clock;
    uint64_t seconds = now >= object->lru ? now - object->lru
                                          : (uint64_t)now + (LRU_CLOCK_MAX - object->lru);
    int error = rdb_encode_byte(walk->encoder, OPCODE_IDLE);
    return error ? error : rdb_encode_length(walk->encoder, seconds);
}

/* The counter (low byte) loses one for every decay period since its minute (16
 * bits above). */
static int save_frequency(struct walk *walk, const struct frozen_object *object)
{
    unsigned minute = object->lru >> 8, counter = object->lru & 255;
    unsigned now = (unsigned)(walk->roots->unix_time / 60) & 65535;
    unsigned elapsed = now >= minute ? now - minute : 65535 - minute + now;
    int decay = walk->roots->lfu_decay_time;
    unsigned periods = decay > 0 ? elapsed / (unsigned)decay : 0;
    counter = periods > counter ? 0 : counter - periods;
    int error = rdb_encode_byte(walk->encoder, OPCODE_FREQUENCY);
    return error ? error : rdb_encode_byte(walk->encoder, (uint8_t)counter);
}

static int save_expire(struct walk *walk, int64_t expire)
{
    int error = rdb_encode_byte(walk->encoder, OPCODE_EXPIRE);
    return error ? error : rdb_encode_milliseconds(walk->encoder, expire);
}

static int save_key(struct walk *walk, const struct frozen_object *object,
                    const struct frozen_string *name, int64_t expire)
{
    int type = object_rdb_type(object);
    walk->where = type == -ENOTSUP ? "a module's value" : "a key";
    int error = type < 0 ? type : 0;
    if (!error && expire != NO_EXPIRE)
        error = save_expire(walk, expire);
    if (!error && walk->roots->save_idle_time)
        error = save_idle_time(walk, object);
    if (!error && walk->roots->save_frequency)
        error = save_frequency(walk, object);
    if (!error)
        error = rdb_encode_byte(walk->encoder, (uint8_t)type);
    if (!error)
        error = frozen_string_save(walk, name);
    return error ? error : object_save(walk, object);
}

/* rdb-key-save-delay, in pieces so that a kill is heard. */
static int delay(struct walk *walk)
{
    int64_t usec = walk->roots->key_save_delay;
    if (usec < 0)
        usec = walk->keys % (uint64_t)-usec == 0;
    while (usec > 0) {
        int64_t piece = usec < SLEEP_PIECE_USEC ? usec : SLEEP_PIECE_USEC;
        sleep_usec((uint64_t)piece);
        usec -= piece;
        int error = walk->observer->progress(walk->observer, walk->keys);
        if (error)
            return error;
    }
    return 0;
}

/* ---- a batch of keys ------------------------------------------------------------- */

static int read_objects(struct walk *walk, const struct frozen_entry *entries,
                        size_t count)
{
    struct batch *batch = walk->batch;
    for (size_t i = 0; i < count; i++) {
        int error = object_read(walk, entries[i].value, &batch->objects[i]);
        if (error)
            return error;
        if (batch->objects[i].encoding != ENCODING_INTEGER)
            view_prefetch(batch->objects[i].pointer - 1);
    }
    return 0;
}

static int read_names(struct walk *walk, const struct frozen_entry *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int error = frozen_string_read(walk, entries[i].key, &walk->batch->names[i]);
        if (error)
            return error;
        /* The second line of a value that is longer than what is left of its
         * first. */
        view_prefetch(walk->batch->objects[i].pointer + 64);
    }
    return 0;
}

static int hash_name(struct walk *walk, const struct frozen_string *name, uint64_t *hash)
{
    const struct keyspace_roots *roots = walk->roots;
    const unsigned char *bytes = name->window + SDS_HEADER_MAX;
    if (!frozen_string_is_inline(name)) {
        unsigned char *room = rdb_encoder_room(walk->encoder, name->length);
        if (!room)
            return rdb_encoder_error(walk->encoder);
        int error = frozen_read(walk, room, name->address, name->length);
        if (error)
            return error;
        bytes = room;
    }
    *hash = roots->hash(bytes, name->length, roots->hash_seed);
    return 0;
}

static int find_expires(struct walk *walk, const struct frozen_entry *entries,
                        size_t count, const struct frozen_dict *expires)
{
    struct batch *batch = walk->batch;
    for (size_t i = 0; i < count; i++)
        batch->expires[i] = NO_EXPIRE;
    if (!dict_size(expires))
        return 0;
    for (size_t i = 0; i < count; i++) {
        int error = hash_name(walk, &batch->names[i], &batch->hashes[i]);
        if (error)
            return error;
        dict_prefetch(walk, expires, batch->hashes[i]);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t value;
        int found = dict_find(walk, expires, batch->hashes[i], entries[i].key, &value);
        if (found < 0)
            return found;
        if (found)
            batch->expires[i] = (int64_t)value;
    }
    return 0;
}

static int save_keys(struct walk *walk, const struct frozen_entry *entries, size_t count,
                     void *context)
{
    struct batch *batch = walk->batch;
    walk->where = "a key";
    int error = read_objects(walk, entries, count);
    if (!error)
        error = read_names(walk, entries, count);
    if (!error)
        error = find_expires(walk, entries, count, context);
    for (size_t i = 0; i < count && !error; i++) {
        error = save_key(walk, &batch->objects[i], &batch->names[i], batch->expires[i]);
        walk->keys++;
        if (!error && walk->roots->key_save_delay)
            error = delay(walk);
    }
    if (!error)
        error = rdb_encoder_error(walk->encoder);
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

/* ---- databases ------------------------------------------------------------------- */

struct database {
    struct frozen_dict keys;
    struct frozen_dict expires;
};

static int read_database(struct walk *walk, int index, struct database *database)
{
    unsigned char bytes[16];
    walk->where = "a database";
    int error = frozen_read(walk, bytes,
                            walk->roots->databases + (uint64_t)index * DATABASE_BYTES,
                            sizeof(bytes));
    if (!error)
        error = dict_read(walk, word_at(bytes, 0), &database->keys);
    if (!error)
        error = dict_read(walk, word_at(bytes, 8), &database->expires);
    return error;
}

static int save_database(struct walk *walk, int index)
{
    struct database database;
    int error = read_database(walk, index, &database);
    if (error || !dict_size(&database.keys))
        return error;
    error = rdb_encode_byte(walk->encoder, OPCODE_SELECT);
    if (!error)
        error = rdb_encode_length(walk->encoder, (uint64_t)index);
    if (!error)
        error = rdb_encode_byte(walk->encoder, OPCODE_RESIZE);
    if (!error)
        error = rdb_encode_length(walk->encoder, dict_size(&database.keys));
    if (!error)
        error = rdb_encode_length(walk->encoder, dict_size(&database.expires));
    if (!error)
        error = dict_walk(walk, &database.keys, save_keys, &database.expires);
    return error;
}

int keyspace_count(const struct keyspace_roots *roots, struct view_reader *reader,
                   uint64_t *keys)
{
    struct walk walk = {.roots = roots, .reader = reader};
    struct database database;
    *keys = 0;
    for (int i = 0; i < roots->database_count; i++) {
        int error = read_database(&walk, i, &database);
        if (error)
            return error;
        *keys += dict_size(&database.keys);
    }
    return 0;
}

int keyspace_save(const struct keyspace_roots *roots, struct view_reader *reader,
                  struct rdb_encoder *encoder, struct keyspace_observer *observer,
                  const char **where)
{
    struct walk walk = {
        .roots = roots,
        .reader = reader,
        .encoder = encoder,
        .observer = observer,
        .batch = memory_map(sizeof(struct batch)),
    };
    int error = walk.batch ? 0 : -ENOMEM;
    for (int i = 0; i < roots->database_count && !error; i++)
        error = save_database(&walk, i);
    if (error && where)
        *where = walk.where;
    rax_free_scratch(&walk);
    memory_unmap(walk.batch, sizeof(struct batch));
    return error;
}
