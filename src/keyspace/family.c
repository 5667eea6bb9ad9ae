#include "keyspace/family.h"

#include <string.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"

#define STREAM_REDIS                                                                     \
    .stream_rax = 0, .stream_numbers = 8, .stream_groups = 72, .group_consumers = 32
#define STORE(tables)                                                                    \
    .store_tables = (tables), .store_count = (tables) + 8, .store_keys = (tables) + 48
#define TAGS_REDIS_7_2                                                                   \
    .dict_exponents = 50, .dict_tags = {.key = true, .without_value = 2}
#define TAGS_REDIS_8_0                                                                   \
    .dict_exponents = 50, .dict_tags = {.key = true, .even_key = 2, .without_value = 4}
#define TAGS_VALKEY_8_0                                                                  \
    .dict_exponents = 50, .dict_tags = {.key = true, .without_value = 2, .around_key = 4}
/* What those that came after have too; of the rest, some. */
#define REDIS_8_4                                                                        \
    .dict_exponents = 52, .dict_tags = {.key = true, .even_key = 2}, .next_first = true, \
    .expiring_listpack = 16, .slots = SLOT_OPCODE, .consumer_activity = true,            \
    .stream_rax = 0, .stream_numbers = 8, .stream_groups = 80
#define REDIS_8_6                                                                        \
    REDIS_8_4, .objects = OBJECT_REDIS_8_6, .fields = FIELD_REDIS_8_6,                   \
               .database_bytes = 96, .stream_producers = 120,                            \
               .skiplists = SKIPLIST_REDIS_8_6

static const struct family families[] = {
    [KEYSPACE_REDIS_7_0] =
        {
            .name = "redis-7.0",
            .dict_exponents = 50,
            .database_bytes = 80,
            .stream_type = 19,
            STREAM_REDIS,
        },
    [KEYSPACE_REDIS_7_2] =
        {
            .name = "redis-7.2",
            TAGS_REDIS_7_2,
            .database_bytes = 88,
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_REDICT_7_3] =
        {
            .name = "redict-7.3",
            TAGS_REDIS_7_2,
            .slots = SLOT_OPCODE,
            .database_bytes = 80,
            STORE(104),
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_REDIS_7_4] =
        {
            .name = "redis-7.4",
            TAGS_REDIS_7_2,
            .fields = FIELD_REDIS_8_0,
            .expiring_listpack = 24,
            .slots = SLOT_OPCODE,
            .database_bytes = 88,
            STORE(128),
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_REDIS_8_0] =
        {
            .name = "redis-8.0",
            TAGS_REDIS_8_0,
            .fields = FIELD_REDIS_8_0,
            .expiring_listpack = 24,
            .slots = SLOT_OPCODE,
            .database_bytes = 80,
            STORE(144),
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_REDIS_8_2] =
        {
            .name = "redis-8.2",
            TAGS_REDIS_8_0,
            .objects = OBJECT_REDIS_8_2,
            .fields = FIELD_REDIS_8_0,
            .expiring_listpack = 16,
            .slots = SLOT_OPCODE,
            .database_bytes = 80,
            STORE(136),
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_REDIS_8_4] =
        {
            .name = "redis-8.4",
            REDIS_8_4,
            STORE(136),
            .objects = OBJECT_REDIS_8_2,
            .fields = FIELD_REDIS_8_0,
            .database_bytes = 88,
            .stream_type = 21,
            .group_consumers = 40,
        },
    [KEYSPACE_REDIS_8_6] =
        {
            .name = "redis-8.6",
            REDIS_8_6,
            STORE(136),
            .stream_type = 26,
            .group_consumers = 48,
        },
    [KEYSPACE_REDIS_8_8] =
        {
            .name = "redis-8.8",
            REDIS_8_6,
            STORE(152),
            .newer_types = true,
            .stream_type = 27,
            .group_nacked = 48,
            .group_consumers = 56,
        },
    [KEYSPACE_VALKEY_8_0] =
        {
            .name = "valkey-8.0",
            TAGS_VALKEY_8_0,
            .slots = SLOT_TEXT,
            .database_bytes = 80,
            STORE(16),
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_VALKEY_8_1] =
        {
            .name = "valkey-8.1",
            .tables = TABLE_HASHTABLE,
            .objects = OBJECT_VALKEY_8_1,
            .fields = FIELD_VALKEY_8_1,
            .slots = SLOT_TEXT,
            .database_bytes = 72,
            .store_tables = 16,
            .store_count = 24,
            .store_keys = 56,
            .stream_type = 21,
            .consumer_activity = true,
            STREAM_REDIS,
        },
    [KEYSPACE_VALKEY_9_1] =
        {
            .name = "valkey-9.1",
            .tables = TABLE_HASHTABLE,
            .objects = OBJECT_VALKEY_9_1,
            .fields = FIELD_VALKEY_9_1,
            .slots = SLOT_TEXT_VOLATILE,
            .database_bytes = 96,
            .database_pointers = true,
            .volatile_keys = 16,
            .store_tables = 16,
            .store_count = 24,
            .store_keys = 56,
            .store_importing = 96,
            .store_imported_keys = 104,
            .stream_type = 21,
            .consumer_activity = true,
            .stream_rax = 8,
            .stream_numbers = 16,
            .stream_groups = 0,
            .group_consumers = 32,
            .skiplists = SKIPLIST_VALKEY_9_1,
            .modular_clocks = true,
        },
};

static struct family of_file;

const struct family *family_named(const char *name)
{
    for (size_t i = 0; i < sizeof(families) / sizeof(families[0]); i++)
        if (strcmp(name, families[i].name) == 0)
            return &families[i];
    return NULL;
}

/* Where a stream's numbers end, and the most of a group that is read. */
static bool fits_walkers(const struct family *family)
{
    return family->database_bytes >= 16 && family->database_bytes % 8 == 0 &&
           family->stream_numbers + 64u <= 88 && family->group_consumers >= 32;
}

const char *family_unfit(const struct family *family, const struct family *like)
{
    if (!fits_walkers(family))
        return "the size of a database or of a stream's parts";
        /* What a family does not have is 0. */
#define SAME_ABSENCE(name, most)                                                         \
    if (!family->name != !like->name)                                                    \
        return #name;
    FAMILY_OPTIONAL_NUMBERS(SAME_ABSENCE)
#undef SAME_ABSENCE
    return family->dict_exponents == like->dict_exponents || family->dict_exponents >= 48
               ? NULL
               : "dict_exponents";
}

void family_define(const struct family *family)
{
    DEMAND_MAIN_THREAD();
    of_file = *family;
}

const struct family *family_of(enum keyspace_layout layout)
{
    static struct family lying;
    const struct family *family =
        layout == KEYSPACE_OF_FILE ? &of_file : &families[layout];
    if (!fault_point(FAULT_MOVED_STREAMS))
        return family;
    lying = *family;
    lying.stream_numbers += 8;
    return &lying;
}
