/* Large values that are overwritten during a save leave memory, kept in the spool. */
#include "buffered.h"
#include "fill.h"

#include <string.h>

#define LARGE_KEYS     14000
#define LARGE_BYTES    7000
#define LARGER_KEYS    20
#define LARGER_BYTES   1000000
#define EVICTION_LIMIT "16mb"
#define MOST_ABOVE     ((16 + 64) * MEGABYTE)

static struct server *start_with_large_values(uint64_t seed, const char *arguments,
                                              const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .module_arguments = arguments, .fault = fault});
    fill(server->connection, FILL_ALL, 50, seed);
    json_fill(server->connection, LARGE_KEYS, LARGE_BYTES, seed);
    for (int i = 0; i < LARGER_KEYS; i++)
        fill_large(server->connection, format_text("larger:%d", i), LARGER_BYTES, true,
                   seed + (uint64_t)i);
    server_config_set(server, "rdb-key-save-delay", "200");
    return server;
}

/* Some 16 MB a second: what a writer without pause does is more than can be evicted. */
#define AT_ONCE    20
#define PAUSE_MSEC 10

static void overwrite_some(struct server *server, int first, uint64_t *seed)
{
    char record[LARGE_BYTES];
    for (int i = 0; i < AT_ONCE; i++) {
        size_t length = json_record(seed, record, sizeof(record));
        redisAppendCommand(server->connection, "SET json:%d %b", (first + i) % LARGE_KEYS,
                           record, length);
    }
    take_replies(server->connection, AT_ONCE);
    sleep_msec(PAUSE_MSEC);
}

/* All values are overwritten, as long as the save runs. Returns the most that the
 * process held meanwhile above what it held at first. Bytes. */
static double overwrite_while_saving(struct server *server, uint64_t seed)
{
    double before = (double)process_resident(server), most = 0;
    int next = 0;
    for (; saving(server) && next < 2 * LARGE_KEYS; next += AT_ONCE) {
        overwrite_some(server, next, &seed);
        if (next / AT_ONCE < LARGER_KEYS)
            fill_large(server->connection, format_text("larger:%d", next / AT_ONCE),
                       LARGER_BYTES, true, seed);
        double now = (double)process_resident(server) - before;
        most = now > most ? now : most;
    }
    note_result(server, next);
    test_note("%.1f MB evicted, at most %.1f MB more than before",
              number(server, "evicted_bytes") / MEGABYTE, most / MEGABYTE);
    return most;
}

/* Memory that had been given back too much would read as zeros. */
static void check_values(struct server *server)
{
    wait_for_number(server, "deferred_free_bytes", 0, 0, 20);
    for (int i = 0; i < LARGE_KEYS; i++)
        redisAppendCommand(server->connection, "GET json:%d", i);
    for (int i = 0; i < LARGE_KEYS; i++) {
        redisReply *value = NULL;
        CHECK(redisGetReply(server->connection, (void **)&value) == REDIS_OK &&
                  value->type == REDIS_REPLY_STRING,
              "GET json:%d", i);
        CHECK(value->len > LARGE_BYTES / 2 && strlen(value->str) == value->len,
              "json:%d has %zu bytes of %zu", i, strlen(value->str), value->len);
        freeReplyObject(value);
    }
    /* What becomes of memory does not depend on the server. */
    if (test_is_repeated())
        return;
    const char *before = server_digest(server);
    const char *delay = server_config_get(server, "rdb-key-save-delay");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "DEBUG RELOAD");
    server_config_set(server, "rdb-key-save-delay", delay);
    CHECK(strcmp(server_digest(server), before) == 0, "the digest changes by a reload");
}

#define TRIES 4

static bool much_is_evicted(uint64_t seed)
{
    struct server *server =
        start_with_large_values(seed, "buffer-limit " EVICTION_LIMIT, NULL);
    int rounds = test_is_soak() ? 30 : test_is_repeated() ? 1 : 2;
    bool much = false;
    for (int round = 0; round < rounds; round++) {
        struct snapshot snapshot = snapshot_begin(server);
        double most = overwrite_while_saving(server, seed + (uint64_t)round);
        check_exact(&snapshot);
        CHECK(most < MOST_ABOVE, "%.1f MB: more than the limit and 64 MB",
              most / MEGABYTE);
        much |= number(server, "evicted_bytes") > 10 * MEGABYTE;
        check_values(server);
    }
    server_stop(server);
    return much;
}

/* On a busy machine nothing may be evicted in a save, or too little in time. Then another
 * server has to show it: the saves that follow on the same one have less to evict. */
static bool is_seen_once(bool (*is_seen)(uint64_t seed))
{
    uint64_t seed = test_seed();
    for (int i = 0; i < TRIES; i++)
        if (is_seen(seed + (uint64_t)i))
            return true;
    return false;
}

static void evicted_values_are_saved(void)
{
    CHECK(is_seen_once(much_is_evicted), "hardly any was evicted, in any save");
}

/* Pages in the spool are no sign of the limit having been reached. The other way round:
 * limit/spool. */
static bool limit_is_told_apart(uint64_t seed)
{
    struct server *server = start_with_large_values(seed, "buffer-limit 48mb", NULL);
    server_save_start(server);
    overwrite_while_saving(server, seed);
    CHECK(server_save_wait(server), "the save failed");
    double counted = number(server, "new_values_peak_bytes"),
           least = number(server, "limit_least_bytes"),
           spooled = number(server, "limit_spooled_pages"),
           peak = number(server, "last_spool_peak_bytes");
    test_note("new values %.1f MB, which left %.1f MB; %.0f pages by the limit",
              counted / MEGABYTE, least / MEGABYTE, spooled);
    CHECK(counted + least >= 47.9 * MEGABYTE, "they do not make the limit");
    server_stop(server);
    return peak > MEGABYTE && counted > 0 && spooled == 0;
}

static void eviction_is_not_the_limit(void)
{
    CHECK(is_seen_once(limit_is_told_apart),
          "no save had values evicted without the limit being reached");
}

/* The test of the test. */
static void unkept_values_are_found(void)
{
    uint64_t seed = test_seed();
    struct server *server = start_with_large_values(seed, "buffer-limit " EVICTION_LIMIT,
                                                    "evict_unkept,no_audit");
    const char *wrong = NULL;
    /* On a busy machine nothing may be evicted in a save. */
    for (int round = 0; round < 5 && !wrong; round++) {
        struct snapshot snapshot = snapshot_begin(server);
        overwrite_while_saving(server, seed + (uint64_t)round);
        wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    }
    CHECK(wrong, "nothing was found wrong with values that nobody kept");
    test_note("found: %.120s", wrong);
    check_values(server);
    server_stop(server);
}

/* Where there is no spool, nothing can leave. */
static void nothing_without_spool(void)
{
    uint64_t seed = test_seed();
    struct server *server = start_with_large_values(
        seed, "buffer-limit " EVICTION_LIMIT " buffer-policy block", NULL);
    struct snapshot snapshot = snapshot_begin(server);
    overwrite_while_saving(server, seed);
    check_exact(&snapshot);
    CHECK(number(server, "evicted_bytes") == 0, "something was evicted");
    check_values(server);
    server_stop(server);
}

/* Ended by a kill or by a broken spool. */
static void end_save(struct server *server, bool by_kill)
{
    if (by_kill)
        server_ok(server, "FLUSHALL");
    else
        server_ok(server, "UFFD.FAULT spool_write on");
    server_save_wait(server);
    server_ok(server, "UFFD.FAULT spool_write off");
}

static void ended_in_the_middle(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start_with_large_values(seed, "buffer-limit " EVICTION_LIMIT, "");
    for (int round = 0; round < (test_is_soak() ? 100 : 2); round++) {
        server_save_start(server);
        for (int next = 0;
             number(server, "evicted_bytes") == 0 || random_next(&seed) % 20 != 0;
             next += AT_ONCE) {
            CHECK(saving(server), "the save was over too soon");
            overwrite_some(server, next, &seed);
        }
        end_save(server, round % 2);
        if (round % 2)
            json_fill(server->connection, LARGE_KEYS, LARGE_BYTES, seed);
        check_values(server);
    }
    struct snapshot snapshot = snapshot_begin(server);
    check_exact(&snapshot);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"evicted_values_are_saved", evicted_values_are_saved, 180},
        {"eviction_is_not_the_limit", eviction_is_not_the_limit, 180},
        {"unkept_values_are_found", unkept_values_are_found, 120},
        {"nothing_without_spool", nothing_without_spool, 120},
        {"ended_in_the_middle", ended_in_the_middle, 240},
        {0},
    };
    return test_run("eviction", cases, argc, argv);
}
