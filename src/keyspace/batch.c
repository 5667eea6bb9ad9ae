#include "keyspace/batch.h"

#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "keyspace/dict.h"

#define LINES_AHEAD 6

static int read_objects(struct walk *walk, const struct frozen_entry *entries,
                        size_t count)
{
    struct batch *batch = walk->batch;
    for (size_t i = 0; i < count; i++) {
        int error = object_read(walk, entries[i].value, &batch->objects[i]);
        if (error)
            return error;
        if (batch->objects[i].encoding != ENCODING_INTEGER)
            view_hint(walk->reader, batch->objects[i].pointer - 1);
    }
    view_give_hints(walk->reader);
    return 0;
}

/* At what is behind a value's first line, if that says how long it is and asking costs next
 * to nothing; of what is longer than LINES_AHEAD the CPU itself sees what comes. */
static void hint_at_rest(struct walk *walk, const struct frozen_object *object)
{
    uint64_t length = CACHE_LINE;
    if (object->encoding == ENCODING_INTEGER ||
        !view_is_memory(walk->reader, object->pointer))
        return;
    if (object->type == OBJECT_STRING &&
        frozen_string_length(walk, object->pointer, &length))
        return; /* who writes it will say so */
    uint64_t lines =
        (object->pointer % CACHE_LINE + length + CACHE_LINE - 1) / CACHE_LINE;
    frozen_address first = object->pointer / CACHE_LINE * CACHE_LINE;
    for (uint64_t i = 1; i < lines && i <= LINES_AHEAD; i++)
        view_hint(walk->reader, first + i * CACHE_LINE);
}

static int read_names(struct walk *walk, const struct frozen_entry *entries, size_t count)
{
    bool inside = walk->family->objects != OBJECT_BARE;
    frozen_address shift = fault_point(FAULT_SHIFTED_KEYS) ? 4 : 0;
    for (size_t i = 0; i < count; i++) {
        struct frozen_object *object = &walk->batch->objects[i];
        struct frozen_string *name = &walk->batch->names[i];
        frozen_address key = (inside ? object->key : entries[i].key) + shift;
        int error = frozen_string_read(walk, key, name);
        if (error)
            return error;
        if (object->value_inside)
            object->pointer = string_behind(name->address, name->length);
        hint_at_rest(walk, object);
    }
    view_give_hints(walk->reader);
    return 0;
}

static int hash_name(struct walk *walk, const struct frozen_string *name, uint64_t *hash)
{
    const struct keyspace_roots *roots = walk->roots;
    const unsigned char *bytes = name->window + SDS_HEADER_MAX;
    if (!frozen_string_is_inline(name)) {
        void *room;
        int error = frozen_room(walk, name->address, name->length, &room);
        if (!error)
            error = frozen_read(walk, room, name->address, name->length);
        if (error)
            return error;
        bytes = room;
    }
    *hash = roots->hash(bytes, name->length, roots->hash_seed);
    return 0;
}

static int find_expires(struct walk *walk, const struct frozen_entry *entries,
                        size_t count, const struct frozen_table *expires)
{
    struct batch *batch = walk->batch;
    for (size_t i = 0; i < count; i++)
        batch->expires[i] = batch->objects[i].expire;
    if (walk->family->objects != OBJECT_BARE || !table_size(expires))
        return 0;
    for (size_t i = 0; i < count; i++) {
        int error = hash_name(walk, &batch->names[i], &batch->hashes[i]);
        if (error)
            return error;
        dict_hint(walk, expires, batch->hashes[i]);
    }
    view_give_hints(walk->reader);
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

static struct batch *batch_of(struct walk *walk)
{
    if (!walk->batch) {
        walk->batch = memory_map(sizeof(*walk->batch));
        walk->batch_bytes = sizeof(*walk->batch);
    }
    return walk->batch;
}

int batch_read(struct walk *walk, const struct frozen_entry *entries, size_t count,
               const struct frozen_table *expires)
{
    walk->where = "a key";
    if (!batch_of(walk))
        return -ENOMEM;
    int error = read_objects(walk, entries, count);
    if (!error)
        error = read_names(walk, entries, count);
    return error ? error : find_expires(walk, entries, count, expires);
}
