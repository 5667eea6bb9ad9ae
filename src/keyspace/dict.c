#include "keyspace/dict.h"

#define DICT_BYTES  56
#define DICT_TABLES 8
#define DICT_USED   24
#define DICT_REHASH 40
#define BUCKETS     64

int dict_read(struct walk *walk, frozen_address address, struct frozen_table *dict)
{
    unsigned char bytes[DICT_BYTES];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    if (error)
        return error;
    bool rehashing = (int64_t)word_at(bytes, DICT_REHASH) != -1;
    memset(dict, 0, sizeof(*dict));
    dict->type = word_at(bytes, 0);
    for (size_t i = 0; i < (rehashing ? 2 : 1); i++) {
        if (!table_size_of((int8_t)bytes[walk->family->dict_exponents + i],
                           &dict->sizes[i]))
            return -EBADMSG;
        dict->tables[i] = word_at(bytes, DICT_TABLES + 8 * i);
        dict->used[i] = word_at(bytes, DICT_USED + 8 * i);
        if (dict->used[i] && (!dict->sizes[i] || !dict->tables[i]))
            return -EBADMSG;
    }
    return 0;
}

/* ---- entries --------------------------------------------------------------------- */

#define TAG_MASK 7u
#define TAG_KEY  1u

#define EMBEDDED_HEADER 16
#define EMBEDDED_KEY    17

/* Who asks for the value of what is a key alone gets the key. */
static int read_without_value(struct walk *walk, frozen_address address,
                              struct frozen_entry *entry)
{
    uint64_t words[2] = {0, 0};
    int error = frozen_read(walk, words, address, sizeof(words));
    bool next_first = walk->family->next_first;
    uint64_t key = words[next_first];
    *entry = (struct frozen_entry){.key = key, .value = key, .next = words[!next_first]};
    return error;
}

static int read_with_value_last(struct walk *walk, frozen_address address,
                                struct frozen_entry *entry)
{
    uint64_t words[3] = {0, 0, 0};
    int error = frozen_read(walk, words, address, sizeof(words));
    *entry = (struct frozen_entry){.next = words[0], .key = words[1], .value = words[2]};
    return error;
}

static int read_around_key(struct walk *walk, frozen_address address,
                           struct frozen_entry *entry)
{
    unsigned char bytes[EMBEDDED_KEY];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    if (error)
        return error;
    entry->key = address + EMBEDDED_KEY + bytes[EMBEDDED_HEADER];
    entry->value = word_at(bytes, 0);
    entry->next = word_at(bytes, 8);
    return 0;
}

static int read_tagged_entry(struct walk *walk, frozen_address address,
                             struct frozen_entry *entry)
{
    const struct dict_tags *tags = &walk->family->dict_tags;
    frozen_address target = address & ~(frozen_address)TAG_MASK;
    unsigned tag = address & TAG_MASK;
    if (tags->key && (tag & TAG_KEY)) {
        *entry = (struct frozen_entry){.key = address, .value = address};
        return 0;
    }
    if (tag == tags->even_key) {
        *entry = (struct frozen_entry){.key = target, .value = target};
        return 0;
    }
    if (tag == tags->without_value)
        return read_without_value(walk, target, entry);
    return tag == tags->around_key ? read_around_key(walk, target, entry) : -EBADMSG;
}

static inline int read_entry(struct walk *walk, frozen_address address, bool has_value,
                             struct frozen_entry *entry)
{
    if (__builtin_expect((address & TAG_MASK) != 0, 0))
        return read_tagged_entry(walk, address, entry);
    if (walk->family->next_first)
        return has_value ? read_with_value_last(walk, address, entry)
                         : read_without_value(walk, address, entry);
    return frozen_read(walk, entry, address, sizeof(*entry));
}

/* ---- iteration ------------------------------------------------------------------- */

/* A run of buckets. Each step of the chain was prefetched by the step before,
 * for all buckets of the run, so that the misses overlap. */
static int walk_run(struct table_iteration *iteration, const frozen_address *buckets,
                    size_t count)
{
    struct walk *walk = iteration->walk;
    struct frozen_entry heads[BUCKETS];
    for (size_t i = 0; i < count; i++)
        if (buckets[i])
            view_hint(walk->reader, buckets[i]);
    view_give_hints(walk->reader);
    for (size_t i = 0; i < count; i++) {
        if (!buckets[i])
            continue;
        int error = read_entry(walk, buckets[i], iteration->has_values, &heads[i]);
        if (error)
            return error;
        if (heads[i].next)
            view_hint(walk->reader, heads[i].next);
    }
    view_give_hints(walk->reader);
    for (size_t i = 0; i < count; i++) {
        if (!buckets[i])
            continue;
        struct frozen_entry entry = heads[i];
        for (;;) {
            int error = table_take(iteration, &entry);
            if (error)
                return error;
            if (!entry.next)
                break;
            error = read_entry(walk, entry.next, iteration->has_values, &entry);
            if (error)
                return error;
        }
    }
    return 0;
}

int dict_walk_buckets(struct table_iteration *iteration, frozen_address table,
                      uint64_t from, uint64_t to)
{
    frozen_address buckets[BUCKETS];
    for (uint64_t at = from; at < to; at += BUCKETS) {
        size_t count = to - at < BUCKETS ? (size_t)(to - at) : BUCKETS;
        int error = frozen_read(iteration->walk, buckets, table + at * sizeof(*buckets),
                                count * sizeof(*buckets));
        if (!error) {
            view_hint(iteration->walk->reader, table + (at + BUCKETS) * sizeof(*buckets));
            error = walk_run(iteration, buckets, count);
        }
        if (error)
            return error;
    }
    return 0;
}

/* ---- lookup ---------------------------------------------------------------------- */

static frozen_address bucket_of(const struct frozen_table *dict, int table, uint64_t hash)
{
    return dict->tables[table] + (hash & (dict->sizes[table] - 1)) * sizeof(uint64_t);
}

void dict_hint(struct walk *walk, const struct frozen_table *dict, uint64_t hash)
{
    for (int i = 0; i < 2; i++)
        if (dict->used[i])
            view_hint(walk->reader, bucket_of(dict, i, hash));
}

static int find_in_table(struct walk *walk, const struct frozen_table *dict, int table,
                         uint64_t hash, frozen_address key, uint64_t *value)
{
    frozen_address at;
    int error = frozen_read(walk, &at, bucket_of(dict, table, hash), sizeof(at));
    for (uint64_t steps = 0; !error && at; steps++) {
        struct frozen_entry entry;
        if (steps > dict->used[table])
            return -EBADMSG;
        error = read_entry(walk, at, dict->has_values, &entry);
        if (error)
            break;
        if (entry.key == key) {
            *value = entry.value;
            return 1;
        }
        at = entry.next;
    }
    return error;
}

int dict_find(struct walk *walk, const struct frozen_table *dict, uint64_t hash,
              frozen_address key, uint64_t *value)
{
    for (int i = 0; i < 2; i++) {
        if (!dict->used[i])
            continue;
        int found = find_in_table(walk, dict, i, hash, key, value);
        if (found)
            return found;
    }
    return 0;
}
