/* On a quiet server BGSAVE writes byte for byte what SAVE writes right before:
 * for every type and encoding, and for the settings that change the file. */
#include "fill.h"
#include "rdbfile.h"
#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT    200
#define MEGABYTE ((size_t)1 << 20)

static const char *config;

static struct server *start(const char *more_config)
{
    config = format_text("%s%s", FILL_CONFIG, more_config);
    return server_start(&(struct server_options){.config = config});
}

static void check_identity(struct server *server, bool has_checksum)
{
    const char *background;
    const char *difference = save_both_ways(server, &background);
    check_dump(background, has_checksum);
    const char *digest = dump_digest(background, config);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0,
          "the loaded data differ: %s", digest ? digest : "the file was refused");
    CHECK(!difference, "SAVE and BGSAVE, whose data are the same: %s", difference);
    check_fork_free(server, 1);
    server_stop(server);
}

static void identity_of(unsigned kinds, const char *more_config)
{
    struct server *server = start(more_config);
    fill(server->connection, kinds, COUNT, test_seed());
    check_identity(server, true);
}

static void empty_server(void)
{
    check_identity(start(""), true);
}

static void strings(void)
{
    identity_of(FILL_STRINGS, "");
}

static void lists(void)
{
    identity_of(FILL_LISTS, "");
}

/* What is compressed must be there: else the case shows nothing. */
static void lists_compressed(void)
{
    struct server *server = start("list-max-listpack-size 4096\nlist-compress-depth 1\n");
    fill(server->connection, FILL_LISTS, COUNT, test_seed());
    for (int i = 0; i < 3000; i++)
        server_ok(server, "RPUSH list-long:%d compressible compressible %d", i % 3, i);
    const char *object = server_text(server, "DEBUG OBJECT list-long:0");
    CHECK(strstr(object, "ql_compressed:1"), "no compressed nodes: %s", object);
    check_identity(server, true);
}

/* Elements that have a node of their own, compressed in the middle of the list. Older
 * servers do that from a gigabyte on, unless they are told otherwise. */
static void plain_list_nodes(void)
{
    struct server *server = start("list-compress-depth 1\n");
    uint64_t seed = test_seed();
    static char element[5000];
    server_ok(server, "DEBUG QUICKLIST-PACKED-THRESHOLD 100b");
    for (int i = 0; i < 600; i++) {
        size_t length = random_next(&seed) % (i % 10 ? 300 : sizeof element);
        if (i % 3)
            random_text(&seed, element, length);
        else
            random_bytes(&seed, element, length);
        server_ok(server, "%s list:%d %b", i % 4 ? "RPUSH" : "LPUSH", i % 6, element,
                  length);
    }
    server_ok(server, "DEBUG QUICKLIST list:0");
    check_identity(server, true);
    /* Written to the server's output, which is seen when it ends. */
    CHECK(server_log_count(server, "container : PLAIN") > 3, "no plain nodes");
}

static void sets(void)
{
    identity_of(FILL_SETS, "");
}

static void hashes(void)
{
    identity_of(FILL_HASHES, "");
}

static void sorted_sets(void)
{
    identity_of(FILL_SORTED_SETS, "");
}

static void streams(void)
{
    identity_of(FILL_STREAMS, "");
}

/* Of what tells entries that are sent twice some has expired, some has not. */
static void expired_producers(void)
{
    struct server *server = start("");
    server_ok(server, "XADD stream:0 1-1 f v");
    redisReply *reply =
        redisCommand(server->connection, "XCFGSET stream:0 IDMP-DURATION 3");
    bool is_known = reply && reply->type != REDIS_REPLY_ERROR;
    freeReplyObject(reply);
    if (!is_known)
        not_applicable("this server does not tell entries that are sent twice");
    for (int i = 0; i < 200; i++) {
        /* Nothing expires between the one save and the other. */
        if (i == 150)
            sleep_msec(3100);
        server_ok(server, "XADD stream:0 IDMP producer-%d %d-name * f v",
                  i % 3 + (i < 150 ? 0 : 3), i);
    }
    check_identity(server, true);
}

static void expiries(void)
{
    identity_of(FILL_ALL - FILL_FUNCTIONS, "");
}

static void binary_keys(void)
{
    identity_of(FILL_BINARY_KEYS, "");
}

static void functions(void)
{
    identity_of(FILL_FUNCTIONS | FILL_STRINGS, "");
}

static void default_settings(void)
{
    identity_of(FILL_ALL, "list-max-listpack-size -2\nlist-compress-depth 0\n"
                          "hash-max-listpack-entries 512\nset-max-intset-entries 512\n"
                          "zset-max-listpack-entries 128\n");
}

/* Every encoding at its other extreme: nothing small is packed. */
static void nothing_packed(void)
{
    identity_of(FILL_ALL, "list-max-listpack-size 1\nhash-max-listpack-entries 0\n"
                          "set-max-intset-entries 0\nzset-max-listpack-entries 0\n");
}

static void without_compression(void)
{
    identity_of(FILL_ALL, "rdbcompression no\n");
}

static void without_checksum(void)
{
    struct server *server = start("rdbchecksum no\n");
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    check_identity(server, false);
}

static void several_databases(void)
{
    struct server *server = start("databases 20\n");
    uint64_t seed = test_seed();
    static const int used[] = {0, 1, 3, 4, 15, 19};
    for (int i = 0; i < 6; i++) {
        server_ok(server, "SELECT %d", used[i]);
        fill(server->connection, FILL_ALL - FILL_FUNCTIONS, 20 + i, seed + i);
    }
    server_ok(server, "SWAPDB 0 1");
    server_ok(server, "SWAPDB 3 17");
    server_ok(server, "SWAPDB 19 2");
    server_ok(server, "SELECT 4");
    server_ok(server, "FLUSHDB");
    check_identity(server, true);
}

/* The table of a database and that of a hash, stopped halfway. */
static void tables_in_rehash(void)
{
    struct server *server = start("activerehashing no\nhash-max-listpack-entries 0\n");
    for (int i = 0; i <= 8192; i++)
        redisAppendCommand(server->connection, "SET key:%d %d", i, i);
    for (int i = 0; i <= 1024; i++)
        redisAppendCommand(server->connection, "HSET hash f%d %d", i, i);
    for (int i = 0; i < 8193 + 1025; i++) {
        void *reply;
        CHECK(redisGetReply(server->connection, &reply) == REDIS_OK, "filling failed");
        freeReplyObject(reply);
    }
    /* Where a table grows depends on the server. */
    for (int i = 1025;
         !strstr(server_text(server, "DEBUG HTSTATS-KEY hash"), "rehashing target");
         i++) {
        CHECK(i < 20000, "the hash is never rehashed");
        server_ok(server, "HSET hash f%d %d", i, i);
    }
    check_identity(server, true);
}

/* It stays in rehash: no clock goes on with it, and the keys are compared, which moves
 * some, before both files are written. */
static void rehash_of_database(void)
{
    struct server *server = start("activerehashing no\n");
    int keys = 0;
    server_ok(server, "DEBUG POPULATE 16384 key 20");
    while (!strstr(server_text(server, "DEBUG HTSTATS 0"), "rehashing target")) {
        server_ok(server, "SET more:%d v", keys++);
        CHECK(keys < 100000, "the table is never rehashed");
    }
    server_ok(server, "SET another 1");
    check_identity(server, true);
}

/* The keys lie in a table for each slot, on newer servers; those write how many. */
static void cluster_mode(void)
{
    struct server *server = start("cluster-enabled yes\n");
    server_ok(server, "CLUSTER ADDSLOTSRANGE 0 16383");
    WAIT_UNTIL(strstr(server_text(server, "CLUSTER INFO"), "cluster_state:ok"), 20,
               "the cluster is not ready");
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    check_identity(server, true);
}

/* Values whose idle time is known, so that each length of it is written. */
static void restore_with(struct server *server, const char *option, int i, int value)
{
    redisReply *payload = server_ok(server, "DUMP string:%d", i);
    server_ok(server, "RESTORE restored:%d 0 %b %s %d", i, payload->str,
              (size_t)payload->len, option, value);
    freeReplyObject(payload);
}

/* Idle times and frequencies age: the two files are compared only if the clock
 * behind them (seconds or minutes) stood still in between. */
static void identity_with_clock(struct server *server, int seconds)
{
    const char *background = NULL;
    const char *difference = NULL;
    int saves = 0;
    long before, after;
    do {
        before = (long)server_info_number(server, "lru_clock") / seconds;
        double start_usec = server_info_number(server, "server_time_usec");
        difference = save_both_ways(server, &background);
        saves++;
        double end_usec = server_info_number(server, "server_time_usec");
        after = (long)server_info_number(server, "lru_clock") / seconds;
        if ((long)(start_usec / 1e6) / seconds != (long)(end_usec / 1e6) / seconds)
            after = before + 1;
    } while (before != after && saves < 20);
    CHECK(before == after, "the saves never fell into one tick of the clock");
    CHECK(!difference, "BGSAVE and SAVE: %s", difference);
    check_dump(background, true);
    check_fork_free(server, saves);
    server_stop(server);
}

static void idle_times(void)
{
    static const int idle[] = {0,     1,     62,    63,     64,     255,
                               16382, 16383, 16384, 100000, 3000000};
    struct server *server = start("maxmemory 1gb\nmaxmemory-policy allkeys-lru\n");
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    for (int i = 0; i < 11; i++)
        restore_with(server, "IDLETIME", i, idle[i]);
    identity_with_clock(server, 1);
}

static void frequencies(void)
{
    static const int frequency[] = {0, 1, 5, 63, 64, 127, 128, 200, 254, 255};
    struct server *server = start("maxmemory 1gb\nmaxmemory-policy allkeys-lfu\n");
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    for (int i = 0; i < 10; i++)
        restore_with(server, "FREQ", i, frequency[i]);
    identity_with_clock(server, 60);
}

static void large_strings(void)
{
    struct server *server = start("");
    uint64_t seed = test_seed();
    size_t size = (test_is_soak() ? 512 : test_is_repeated() ? 16 : 64) * MEGABYTE;
    fill_large(server->connection, "large-text", size, true, seed);
    fill_large(server->connection, "large-noise", size, false, seed + 1);
    fill_large(server->connection, "large-odd", 8 * MEGABYTE + 4097, false, seed + 2);
    check_identity(server, true);
}

static void large_values(void)
{
    struct server *server = start("hash-max-listpack-entries 10\n");
    uint64_t seed = test_seed();
    char *element = malloc(MEGABYTE);
    random_text(&seed, element, MEGABYTE);
    for (int i = 0; i < 20000; i++)
        redisAppendCommand(server->connection, "HSET big-hash field-%d %b", i,
                           element + i, (size_t)(i % 100));
    for (int i = 0; i < 20000; i++)
        redisAppendCommand(server->connection, "ZADD big-zset %d %d", i * 7919 % 10007,
                           i);
    for (int i = 0; i < 40000; i++) {
        void *reply;
        CHECK(redisGetReply(server->connection, &reply) == REDIS_OK, "filling failed");
        freeReplyObject(reply);
    }
    server_ok(server, "RPUSH big-list a %b b %b c", element, MEGABYTE, element,
              MEGABYTE / 2);
    server_ok(server, "SADD big-set %b small", element, MEGABYTE);
    server_ok(server, "XADD big-stream 1-1 field %b", element, MEGABYTE);
    check_identity(server, true);
}

/* Saving again and again, each time after changes. */
static void save_after_save(void)
{
    struct server *server = start("");
    uint64_t seed = test_seed();
    for (int round = 1; round <= 10; round++) {
        /* The IDs of streams can be given only once. */
        fill(server->connection, round == 1 ? FILL_ALL : FILL_ALL - FILL_STREAMS, 30,
             seed + (uint64_t)round);
        const char *background;
        const char *difference = save_both_ways(server, &background);
        CHECK(!difference, "round %d: %s", round, difference);
        check_fork_free(server, round);
    }
    server_stop(server);
}

static struct server *start_with_field_times(void)
{
    struct server *server = start("");
    if (!server_knows(server, "hpexpire"))
        not_applicable("fields have no times on this server");
    return server;
}

/* Fields of hashes with times of their own, in both encodings, all fields and some. */
static void expiring_fields(void)
{
    struct server *server = start_with_field_times();
    for (int hash = 0; hash < 60; hash++) {
        int fields = hash % 3 == 0 ? 300 : 1 + hash % 20;
        for (int field = 0; field < fields; field++) {
            server_ok(server, "HSET hash:%d field-%d value-%d", hash, field, field);
            if (hash % 4 == 0 || field % 3 == 0)
                server_ok(server, "HPEXPIRE hash:%d %d FIELDS 1 field-%d", hash,
                          600000 + field * 1000 + hash, field);
        }
        if (hash % 5 == 0)
            server_ok(server, "PEXPIRE hash:%d 900000", hash);
    }
    check_identity(server, true);
}

/* Names and values of fields around the lengths at which strings change their form. */
static void long_expiring_fields(void)
{
    static const size_t lengths[] = {1,   31,  32,  44,   45,    63,    64,    65,   127,
                                     128, 255, 256, 4096, 16383, 16384, 65535, 70000};
    const size_t count = sizeof lengths / sizeof lengths[0], most = 70000;
    struct server *server = start_with_field_times();
    uint64_t seed = test_seed();
    char *text = malloc(2 * most);
    CHECK(text, "no memory");
    random_bytes(&seed, text, most);
    random_text(&seed, text + most, most);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < count; j++) {
            /* One long field makes a hash a table: some hashes have short ones only. */
            size_t hash = lengths[i] > lengths[j] ? i : j;
            const char *value = text + (j % 2 ? most : 0);
            server_ok(server, "HSET hash:%d %b %b", (int)hash, text, lengths[i], value,
                      lengths[j]);
            if ((i + j) % 3)
                server_ok(server, "HPEXPIRE hash:%d %d FIELDS 1 %b", (int)hash,
                          600000 + (int)(i * 1000 + j), text, lengths[i]);
        }
    check_identity(server, true);
}

/* ---- what ends while it is being saved -------------------------------------------- */

#define SHORT_LIVED 300

static void fill_short_lived(struct server *server, bool fields)
{
    for (int i = 0; i < SHORT_LIVED; i++) {
        server_ok(server, "SET short:%d value PX %d", i, 700 + i);
        server_ok(server, "RPUSH short-list:%d a b c", i);
        server_ok(server, "PEXPIRE short-list:%d %d", i, 700 + i);
        server_ok(server, "HSET short-hash:%d f 1 g 2", i);
        if (fields)
            server_ok(server, "HPEXPIRE short-hash:%d %d FIELDS 1 f", i, 700 + i);
    }
}

/* As Redis calls them, and as Valkey does. */
static double expired_fields(struct server *server)
{
    bool redis = server_info(server, "expired_subkeys");
    return server_info_number(server, redis ? "expired_subkeys" : "expired_fields");
}

/* Keys and fields that go while the save runs are in the file, with their time. */
static void expired_while_saving(void)
{
    struct server *server = start("hz 100\n");
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    bool fields = server_knows(server, "hpexpire");
    double expired = server_info_number(server, "expired_keys");
    fill_short_lived(server, fields);
    server_config_set(server, "rdb-key-save-delay", "400");
    struct snapshot snapshot = snapshot_begin(server);
    WAIT_UNTIL(server_info_number(server, "expired_keys") >= expired + 2 * SHORT_LIVED, 2,
               "not all keys have expired");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
    CHECK(!fields || expired_fields(server) > 0, "no field has expired");
    snapshot_check_file(&snapshot);
    check_fork_free(server, 1);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"empty_server", empty_server, 20},
        {"strings", strings, 20},
        {"lists", lists, 20},
        {"lists_compressed", lists_compressed, 20},
        {"plain_list_nodes", plain_list_nodes, 20},
        {"sets", sets, 20},
        {"hashes", hashes, 20},
        {"sorted_sets", sorted_sets, 20},
        {"streams", streams, 20},
        {"expired_producers", expired_producers, 20},
        {"expiries", expiries, 20},
        {"binary_keys", binary_keys, 20},
        {"functions", functions, 20},
        {"default_settings", default_settings, 20},
        {"nothing_packed", nothing_packed, 20},
        {"without_compression", without_compression, 20},
        {"without_checksum", without_checksum, 20},
        {"several_databases", several_databases, 30},
        {"tables_in_rehash", tables_in_rehash, 20},
        {"rehash_of_database", rehash_of_database, 20},
        {"cluster_mode", cluster_mode, 60},
        {"idle_times", idle_times, 60},
        {"frequencies", frequencies, 60},
        {"large_strings", large_strings, 60},
        {"large_values", large_values, 30},
        {"save_after_save", save_after_save, 60},
        {"expiring_fields", expiring_fields, 30},
        {"expired_while_saving", expired_while_saving, 30},
        {"long_expiring_fields", long_expiring_fields, 30},
        {0},
    };
    return test_run("identity", cases, argc, argv);
}
