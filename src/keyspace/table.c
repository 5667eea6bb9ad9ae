#include "keyspace/table.h"

#include "keyspace/dict.h"
#include "keyspace/hashtable.h"

int table_read(struct walk *walk, frozen_address address, struct frozen_table *table)
{
    if (!address) {
        memset(table, 0, sizeof(*table));
        return 0;
    }
    return walk->family->tables == TABLE_HASHTABLE ? hashtable_read(walk, address, table)
                                                   : dict_read(walk, address, table);
}

static int walk_buckets(struct table_iteration *iteration, frozen_address buckets,
                        uint64_t from, uint64_t to)
{
    return iteration->walk->family->tables == TABLE_HASHTABLE
               ? hashtable_walk_buckets(iteration, buckets, from, to)
               : dict_walk_buckets(iteration, buckets, from, to);
}

static uint64_t later(uint64_t one, uint64_t other)
{
    return one > other ? one : other;
}

/* What of [from, to) lies in the table `i`. */
static int walk_one(struct table_iteration *iteration, const struct frozen_table *table,
                    int i, uint64_t from, uint64_t to)
{
    uint64_t begin = i ? table->sizes[0] : 0, end = begin + table->sizes[i];
    if (!table->used[i])
        return 0;
    from = later(from, i ? begin : table->first);
    if (to > end)
        to = end;
    return from < to ? walk_buckets(iteration, table->tables[i], from - begin, to - begin)
                     : 0;
}

static int walk_part(struct table_iteration *iteration, const struct frozen_table *table,
                     uint64_t from, uint64_t to)
{
    int error = 0;
    iteration->left = table_size(table);
    iteration->has_values = table->has_values;
    for (int i = 0; i < 2 && !error; i++)
        error = walk_one(iteration, table, i, from, to);
    return error ? error : table_visit_batch(iteration);
}

int table_walk_part(struct walk *walk, const struct frozen_table *table, uint64_t from,
                    uint64_t to, table_visit visit, void *context)
{
    struct table_iteration iteration = {.walk = walk, .visit = visit, .context = context};
    return walk_part(&iteration, table, from, to);
}

int table_walk(struct walk *walk, const struct frozen_table *table, table_visit visit,
               void *context)
{
    struct table_iteration iteration = {.walk = walk, .visit = visit, .context = context};
    int error = walk_part(&iteration, table, 0, table_buckets(table));
    /* The dump has promised so many. */
    return !error && iteration.left ? -EBADMSG : error;
}
