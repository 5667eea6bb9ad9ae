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

int table_walk(struct walk *walk, const struct frozen_table *table, table_visit visit,
               void *context)
{
    return walk->family->tables == TABLE_HASHTABLE
               ? hashtable_walk(walk, table, visit, context)
               : dict_walk(walk, table, visit, context);
}
