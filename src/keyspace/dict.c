#include "keyspace/dict.h"

#define DICT_BYTES     56
#define DICT_TABLES    8
#define DICT_USED      24
#define DICT_REHASH    40
#define DICT_EXPONENTS 50
#define EXPONENT_MAX   48
#define BUCKETS        64

int dict_read(struct walk *walk, frozen_address address, struct frozen_dict *dict)
{
    unsigned char bytes[DICT_BYTES];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    if (error)
        return error;
    bool rehashing = (int64_t)word_at(bytes, DICT_REHASH) != -1;
    memset(dict, 0, sizeof(*dict));
    for (int i = 0; i < (rehashing ? 2 : 1); i++) {
        int8_t exponent = (int8_t)bytes[DICT_EXPONENTS + i];
        if (exponent > EXPONENT_MAX)
            return -EBADMSG;
        dict->tables[i] = word_at(bytes, DICT_TABLES + 8 * (size_t)i);
        dict->used[i] = word_at(bytes, DICT_USED + 8 * (size_t)i);
        dict->sizes[i] = exponent < 0 ? 0 : UINT64_C(1) << exponent;
        if (dict->used[i] && (!dict->sizes[i] || !dict->tables[i]))
            return -EBADMSG;
    }
    return 0;
}

/* ---- iteration ------------------------------------------------------------------- */

struct iteration {
    struct walk *walk;
    dict_visit visit;
    void *context;
    uint64_t left; /* entries that may still come: a longer chain is a loop */
    size_t count;
    struct frozen_entry entries[DICT_BATCH];
};

static int visit_batch(struct iteration *iteration)
{
    size_t count = iteration->count;
    iteration->count = 0;
    if (!count)
        return 0;
    return iteration->visit(iteration->walk, iteration->entries, count,
                            iteration->context);
}

static int take(struct iteration *iteration, const struct frozen_entry *entry)
{
    if (!iteration->left)
        return -EBADMSG;
    iteration->left--;
    view_prefetch(entry->key - 1);
    view_prefetch(entry->value);
    iteration->entries[iteration->count++] = *entry;
    return iteration->count == DICT_BATCH ? visit_batch(iteration) : 0;
}

static int read_entry(struct walk *walk, frozen_address address,
                      struct frozen_entry *entry)
{
    return frozen_read(walk, entry, address, sizeof(*entry));
}

/* A run of buckets. Each step of the chain was prefetched by the step before,
 * for all buckets of the run, so that the misses overlap. */
static int walk_buckets(struct iteration *iteration, const frozen_address *buckets,
                        size_t count)
{
    struct walk *walk = iteration->walk;
    struct frozen_entry heads[BUCKETS];
    for (size_t i = 0; i < count; i++)
        if (buckets[i])
            view_prefetch(buckets[i]);
    for (size_t i = 0; i < count; i++) {
        if (!buckets[i])
            continue;
        int error = read_entry(walk, buckets[i], &heads[i]);
        if (error)
            return error;
        if (heads[i].next)
            view_prefetch(heads[i].next);
    }
    for (size_t i = 0; i < count; i++) {
        if (!buckets[i])
            continue;
        struct frozen_entry entry = heads[i];
        for (;;) {
            int error = take(iteration, &entry);
            if (error)
                return error;
            if (!entry.next)
                break;
            error = read_entry(walk, entry.next, &entry);
            if (error)
                return error;
        }
    }
    return 0;
}

static int walk_table(struct iteration *iteration, frozen_address table, uint64_t size)
{
    frozen_address buckets[BUCKETS];
    for (uint64_t at = 0; at < size; at += BUCKETS) {
        size_t count = size - at < BUCKETS ? (size_t)(size - at) : BUCKETS;
        int error = frozen_read(iteration->walk, buckets, table + at * sizeof(*buckets),
                                count * sizeof(*buckets));
        if (!error) {
            view_prefetch(table + (at + BUCKETS) * sizeof(*buckets));
            error = walk_buckets(iteration, buckets, count);
        }
        if (error)
            return error;
    }
    return 0;
}

int dict_walk(struct walk *walk, const struct frozen_dict *dict, dict_visit visit,
              void *context)
{
    struct iteration iteration = {.walk = walk, .visit = visit, .context = context};
    for (int i = 0; i < 2; i++) {
        iteration.left = dict->used[i];
        if (!dict->used[i])
            continue;
        int error = walk_table(&iteration, dict->tables[i], dict->sizes[i]);
        if (error)
            return error;
        /* The dump has promised so many. */
        if (iteration.left)
            return -EBADMSG;
    }
    return visit_batch(&iteration);
}

/* ---- lookup ---------------------------------------------------------------------- */

static frozen_address bucket_of(const struct frozen_dict *dict, int table, uint64_t hash)
{
    return dict->tables[table] + (hash & (dict->sizes[table] - 1)) * sizeof(uint64_t);
}

void dict_prefetch(struct walk *walk, const struct frozen_dict *dict, uint64_t hash)
{
    (void)walk;
    for (int i = 0; i < 2; i++)
        if (dict->used[i])
            view_prefetch(bucket_of(dict, i, hash));
}

static int find_in_table(struct walk *walk, const struct frozen_dict *dict, int table,
                         uint64_t hash, frozen_address key, uint64_t *value)
{
    frozen_address at;
    int error = frozen_read(walk, &at, bucket_of(dict, table, hash), sizeof(at));
    for (uint64_t steps = 0; !error && at; steps++) {
        struct frozen_entry entry;
        if (steps > dict->used[table])
            return -EBADMSG;
        error = read_entry(walk, at, &entry);
        if (!error && entry.key == key) {
            *value = entry.value;
            return 1;
        }
        at = entry.next;
    }
    return error;
}

int dict_find(struct walk *walk, const struct frozen_dict *dict, uint64_t hash,
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
