#include "keyspace/hashtable.h"

#define HASHTABLE_BYTES 56
#define REHASH          8
#define TABLES          16
#define USED            32
#define EXPONENTS       48

#define BUCKET_BYTES   64
#define BUCKET_ENTRIES 7
#define BUCKET_FIRST   8 /* the first entry */
#define CHAINED        1
#define RUN            16

int hashtable_read(struct walk *walk, frozen_address address, struct frozen_table *table)
{
    unsigned char bytes[HASHTABLE_BYTES];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    if (error)
        return error;
    int64_t rehash = (int64_t)word_at(bytes, REHASH);
    memset(table, 0, sizeof(*table));
    table->type = word_at(bytes, 0);
    for (size_t i = 0; i < (rehash >= 0 ? 2 : 1); i++) {
        if (!table_size_of((int8_t)bytes[EXPONENTS + i], &table->sizes[i]))
            return -EBADMSG;
        table->tables[i] = word_at(bytes, TABLES + 8 * i);
        table->used[i] = word_at(bytes, USED + 8 * i);
        if (table->used[i] && (!table->sizes[i] || !table->tables[i]))
            return -EBADMSG;
    }
    /* What lies before may be left over from when it was moved. */
    if (rehash > 0)
        table->first = (uint64_t)rehash;
    return table->first > table->sizes[0] ? -EBADMSG : 0;
}

/* The entries of one bucket, and the bucket that goes on with it, else 0. */
static int take_bucket(struct table_iteration *iteration, const unsigned char *bucket,
                       frozen_address *child)
{
    unsigned present = bucket[0] >> 1;
    bool chained = bucket[0] & CHAINED;
    size_t count = chained ? BUCKET_ENTRIES - 1 : BUCKET_ENTRIES;
    *child = chained ? word_at(bucket, BUCKET_FIRST + 8 * count) : 0;
    for (size_t i = 0; i < count; i++) {
        if (!(present & 1u << i))
            continue;
        uint64_t pointer = word_at(bucket, BUCKET_FIRST + 8 * i);
        struct frozen_entry entry = {.key = pointer, .value = pointer};
        int error = table_take(iteration, &entry);
        if (error)
            return error;
    }
    return 0;
}

static int take_chain(struct table_iteration *iteration, const unsigned char *bucket)
{
    unsigned char further[BUCKET_BYTES];
    frozen_address child;
    int error = take_bucket(iteration, bucket, &child);
    /* Chains may have empty buckets, but never more buckets than entries. */
    for (uint64_t steps = iteration->left + 1; !error && child;) {
        if (!steps--)
            return -EBADMSG;
        error = frozen_read(iteration->walk, further, child, sizeof(further));
        if (!error)
            error = take_bucket(iteration, further, &child);
    }
    return error;
}

int hashtable_walk_buckets(struct table_iteration *iteration, frozen_address buckets,
                           uint64_t from, uint64_t to)
{
    unsigned char run[RUN * BUCKET_BYTES];
    for (uint64_t at = from; at < to; at += RUN) {
        size_t count = to - at < RUN ? (size_t)(to - at) : RUN;
        int error = frozen_read(iteration->walk, run, buckets + at * BUCKET_BYTES,
                                count * BUCKET_BYTES);
        for (size_t i = 0; i < count && !error; i++)
            if (run[i * BUCKET_BYTES] & CHAINED)
                view_hint(iteration->walk->reader,
                          word_at(run, (i + 1) * BUCKET_BYTES - 8));
        view_give_hints(iteration->walk->reader);
        for (size_t i = 0; i < count && !error; i++)
            error = take_chain(iteration, run + i * BUCKET_BYTES);
        if (error)
            return error;
    }
    return 0;
}
