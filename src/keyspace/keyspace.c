/* Databases and keys: what stands around the values. */
#include "keyspace/keyspace.h"

#include <stdio.h>

#include "kernel/thread.h"
#include "keyspace/batch.h"
#include "keyspace/database.h"
#include "keyspace/slots.h"
#include "keyspace/worker_pool.h"

enum opcode {
    OPCODE_SLOT = 244,
    OPCODE_IDLE = 248,
    OPCODE_FREQUENCY = 249,
    OPCODE_AUX = 250,
    OPCODE_RESIZE = 251,
    OPCODE_EXPIRE = 252,
    OPCODE_SELECT = 254,
};

#define LRU_CLOCK_MAX    ((1u << 24) - 1)
#define SLEEP_PIECE_USEC 50000
#define BUCKETS_AT_FIRST 256

/* ---- around a key ---------------------------------------------------------------- */

static int save_idle_time(struct walk *walk, const struct frozen_object *object)
{
    uint32_t now = walk->roots->lru_clock;
    uint64_t seconds = now >= object->lru
                           ? now - object->lru
                           : (uint64_t)now + (LRU_CLOCK_MAX - object->lru) +
                                 walk->family->modular_clocks;
    int error = rdb_encode_byte(walk->encoder, OPCODE_IDLE);
    return error ? error : rdb_encode_length(walk->encoder, seconds);
}

/* The counter (low byte) loses one for every decay period since its minute (16
 * bits above). */
static int save_frequency(struct walk *walk, const struct frozen_object *object)
{
    unsigned minute = object->lru >> 8, counter = object->lru & 255;
    unsigned now = (unsigned)(walk->roots->unix_time / 60) & 65535;
    unsigned elapsed = now >= minute
                           ? now - minute
                           : 65535 - minute + now + walk->family->modular_clocks;
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

static bool is_compared(struct walk *walk, const struct frozen_object *object,
                        int64_t expire)
{
    const struct keyspace_kinds *compared = &walk->roots->compared;
    if (!walk->roots->only_compared)
        return true;
    if (object->type == OBJECT_STREAM && compared->stream_parts != STREAM_ALL_PARTS) {
        walk->where = "a stream";
        return false;
    }
    return compared->seen[object->type][object->encoding][expire != NO_EXPIRE];
}

static int save_key(struct walk *walk, struct frozen_object *object,
                    const struct frozen_string *name, int64_t expire)
{
    int type = object_prepare(walk, object);
    if (type != KEYSPACE_STRANGER)
        walk->where = type == -ENOTSUP ? "a module's value" : "a key";
    int error = type < 0 ? type : is_compared(walk, object, expire) ? 0 : -ENODATA;
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

static int ask_for_values(struct walk *walk, const struct frozen_entry *entries,
                          size_t count)
{
    struct batch *batch = walk->batch;
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        if (batch->objects[i].type == OBJECT_MODULE)
            error = module_value_ask(walk, entries[i].value, &batch->objects[i],
                                     &batch->names[i]);
    return error;
}

static int save_keys(struct walk *walk, const struct frozen_entry *entries, size_t count,
                     void *context)
{
    int error = batch_read(walk, entries, count, context);
    struct batch *batch = walk->batch;
    if (!error)
        error = ask_for_values(walk, entries, count);
    for (size_t i = 0; i < count && !error; i++) {
        error = save_key(walk, &batch->objects[i], &batch->names[i], batch->expires[i]);
        if (error == KEYSPACE_STRANGER)
            walk->stranger = entries[i].value;
        walk->keys++;
        walk->expiring += batch->expires[i] != NO_EXPIRE;
        if (!error && walk->roots->key_save_delay)
            error = delay(walk);
    }
    if (!error)
        error = rdb_encoder_error(walk->encoder);
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

/* ---- databases ------------------------------------------------------------------- */

static int save_slot_lengths(struct walk *walk, const uint64_t *numbers)
{
    int error = rdb_encode_byte(walk->encoder, OPCODE_SLOT);
    for (int i = 0; i < 3 && !error; i++)
        error = rdb_encode_length(walk->encoder, numbers[i]);
    return error;
}

static int save_slot_text(struct walk *walk, const uint64_t *numbers, size_t count)
{
    static const char name[] = "slot-info";
    char text[96];
    size_t length = 0;
    for (size_t i = 0; i < count; i++)
        length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%llu",
                                   i ? "," : "", (unsigned long long)numbers[i]);
    int error = rdb_encode_byte(walk->encoder, OPCODE_AUX);
    if (!error)
        error = rdb_encode_string(walk->encoder, name, sizeof(name) - 1);
    return error ? error : rdb_encode_string(walk->encoder, text, length);
}

/* What a cluster's server writes before the keys of a slot. */
static int save_slot(struct walk *walk, const struct database *database, uint64_t slot,
                     uint64_t keys, uint64_t expires)
{
    enum slot_form form = walk->family->slots;
    struct frozen_table volatile_keys = {0};
    if (!walk->roots->cluster || form == SLOT_NOTHING)
        return 0;
    int error = 0;
    if (form == SLOT_TEXT_VOLATILE)
        error = store_table(walk, &database->volatile_keys, slot, &volatile_keys);
    uint64_t numbers[] = {slot, keys, expires, table_size(&volatile_keys)};
    if (error)
        return error;
    return form == SLOT_OPCODE
               ? save_slot_lengths(walk, numbers)
               : save_slot_text(walk, numbers, form == SLOT_TEXT_VOLATILE ? 4 : 3);
}

/* Of a table whose keys are shared out. */
struct table_share {
    const struct frozen_table *keys;
    const struct frozen_table *expires;
};

static int save_buckets(struct walk *walk, uint64_t from, uint64_t to,
                        const void *context)
{
    const struct table_share *share = context;
    return table_walk_part(walk, share->keys, from, to, save_keys,
                           (void *)(uintptr_t)share->expires);
}

static int save_table(struct walk *walk, const struct frozen_table *keys,
                      const struct frozen_table *expires)
{
    struct table_share share = {keys, expires};
    uint64_t before = walk->keys, expiring_before = walk->expiring;
    int error = worker_pool_walk(walk, table_buckets(keys), BUCKETS_AT_FIRST,
                                 save_buckets, &share);
    if (error)
        return error;
    /* The dump has promised so many; and a key that was not found among those that
     * expire, but is one, would have been written as if it lasted. */
    if (walk->keys - before != table_size(keys))
        error = -EBADMSG;
    else if (walk->expiring - expiring_before != table_size(expires)) {
        walk->where = "the keys that expire";
        error = -EBADMSG;
    }
    return error;
}

/* Of a database whose slots are shared out. */
struct slots_share {
    const struct database *database;
    const struct slot_order *order;
};

static int save_slots(struct walk *walk, uint64_t from, uint64_t to, const void *context)
{
    const struct slots_share *share = context;
    const struct database *database = share->database;
    for (uint64_t i = from; i < to; i++) {
        struct frozen_table keys, expires;
        uint64_t slot = share->order->slots[i];
        int error = store_table(walk, &database->keys, slot, &keys);
        uint64_t size = error ? 0 : table_size(&keys);
        if (!error && !size)
            continue;
        if (!error)
            error = store_table(walk, &database->expires, slot, &expires);
        if (!error)
            error = save_slot(walk, database, slot, size, table_size(&expires));
        if (!error)
            error = save_table(walk, &keys, &expires);
        if (error)
            return error;
    }
    return 0;
}

/* A cluster's slots are shared out; where there is one table, its buckets are. */
static int save_tables(struct walk *walk, const struct database *database)
{
    struct slot_order order;
    struct slots_share share = {database, &order};
    uint64_t before = walk->keys, expiring_before = walk->expiring;
    int error = slot_order_read(walk, &database->keys, &order);
    if (!error)
        error = worker_pool_walk(walk, order.count, 1, save_slots, &share);
    /* The dump has promised so many. */
    if (!error &&
        (walk->keys - before != store_all_keys(&database->keys) ||
         walk->expiring - expiring_before != store_all_keys(&database->expires)))
        error = -EBADMSG;
    return error;
}

static int save_database(struct walk *walk, int index)
{
    struct database database;
    int error = database_read(walk, index, &database);
    if (error || !store_all_keys(&database.keys))
        return error;
    walk->database = index;
    error = rdb_encode_byte(walk->encoder, OPCODE_SELECT);
    if (!error)
        error = rdb_encode_length(walk->encoder, (uint64_t)index);
    if (!error)
        error = rdb_encode_byte(walk->encoder, OPCODE_RESIZE);
    if (!error)
        error = rdb_encode_length(walk->encoder, store_all_keys(&database.keys));
    if (!error)
        error = rdb_encode_length(walk->encoder, store_all_keys(&database.expires));
    return error ? error : save_tables(walk, &database);
}

/* ---- numbers --------------------------------------------------------------------- */

static struct walk looking_walk(const struct keyspace_roots *roots,
                                struct view_reader *reader)
{
    return (struct walk){
        .roots = roots,
        .family = family_of(roots->layout),
        .reader = reader,
    };
}

int keyspace_count_database(const struct keyspace_roots *roots,
                            struct view_reader *reader, int index, uint64_t *keys)
{
    struct walk walk = looking_walk(roots, reader);
    struct database database;
    int error = database_read(&walk, index, &database);
    *keys = error ? 0 : database.keys.keys;
    return error;
}

int keyspace_count(const struct keyspace_roots *roots, struct view_reader *reader,
                   uint64_t *keys, uint64_t *imported)
{
    struct walk walk = looking_walk(roots, reader);
    *keys = *imported = 0;
    for (int i = 0; i < roots->database_count; i++) {
        struct database database;
        int error = database_read(&walk, i, &database);
        if (error)
            return error;
        *keys += store_all_keys(&database.keys);
        *imported += database.keys.imported_keys;
    }
    return 0;
}

int keyspace_imported_slots(const struct keyspace_roots *roots,
                            struct view_reader *reader, int index,
                            bool imported[KEYSPACE_SLOTS])
{
    struct walk walk = looking_walk(roots, reader);
    struct database database;
    struct slot_order order;
    int error = database_read(&walk, index, &database);
    if (!error && !database.address)
        return -ENOENT;
    if (!error)
        error = slot_order_read(&walk, &database.keys, &order);
    if (!error)
        memcpy(imported, order.imported, sizeof(order.imported));
    return error;
}

bool keyspace_is_stranger(const struct keyspace_roots *roots, struct view_reader *reader,
                          frozen_address address)
{
    struct walk walk = looking_walk(roots, reader);
    struct frozen_object object;
    return object_read(&walk, address, &object) == 0 &&
           object_prepare(&walk, &object) == KEYSPACE_STRANGER;
}

/* ---- all of it ------------------------------------------------------------------- */

int keyspace_save(const struct keyspace_roots *roots, struct view_reader *reader,
                  struct rdb_encoder *encoder, struct keyspace_observer *observer,
                  struct worker_pool *pool, const char **where)
{
    struct walk walk = {
        .roots = roots,
        .family = family_of(roots->layout),
        .reader = reader,
        .encoder = encoder,
        .observer = observer,
        .values = observer->values,
        .pool = roots->key_save_delay ? NULL : pool,
    };
    int error = 0;
    for (int i = 0; i < roots->database_count && !error; i++)
        error = save_database(&walk, i);
    if (error && where)
        *where = walk.where;
    observer->stranger = walk.stranger;
    walk_release(&walk);
    return error;
}
