/* Snapshots of a server under mixed writes are those of their instant. */
#include "fill.h"
#include "snapshot.h"
#include "writers.h"

#include <stdlib.h>
#include <string.h>

#define COUNT       400
#define CONNECTIONS 5
#define SOAK_FACTOR 100

static struct server *start_filled(const char *config, const char *fault, uint64_t seed)
{
    struct server *server =
        server_start(&(struct server_options){.config = config, .fault = fault});
    server_ok(server, "DEBUG POPULATE 20000 key 1000");
    fill(server->connection, FILL_ALL, COUNT, seed);
    server_ok(server, "SELECT 1");
    fill(server->connection, FILL_ALL - FILL_FUNCTIONS, COUNT, seed + 1);
    server_ok(server, "SELECT 0");
    return server;
}

/* The first of three saves is slowed down, so that most of the data change under it: what
 * makes one only, on a busy machine, would else be over before a thousand writes. */
static void set_pace(struct server *server, int iteration)
{
    server_config_set(server, "rdb-key-save-delay", iteration % 3 == 0 ? "3" : "0");
}

/* Where fields can have times, the writers gave them some. */
static void check_field_times(struct server *server)
{
    if (!server_knows(server, "hpexpire"))
        return;
    static const char *const commands[] = {"hpexpire", "hexpire", "hsetex", "hpersist"};
    for (int i = 0; i < 4; i++) {
        const char *calls = server_info(server, format_text("cmdstat_%s", commands[i]));
        CHECK(calls && strstr(calls, "rejected_calls=0"), "%s: %s", commands[i],
              calls ? calls : "never called");
    }
}

static void check_loop(const char *config, int iterations)
{
    uint64_t seed = test_seed();
    struct server *server = start_filled(config, NULL, seed);
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, seed + 2);
    iterations *= test_is_soak() ? SOAK_FACTOR : 1;
    long during = 0;
    for (int i = 0; i < iterations; i++) {
        set_pace(server, i);
        sleep_msec((long)(random_next(&seed) % 200));
        struct snapshot snapshot = snapshot_begin(server);
        long before = writers_commands(writers);
        bool saved = server_save_wait(server);
        during += writers_commands(writers) - before;
        CHECK(saved, "save %d failed", i);
        const char *wrong = snapshot_fault(&snapshot, config);
        CHECK(!wrong, "save %d: %s", i, wrong);
        check_fork_free(server, i + 1);
    }
    long commands = writers_stop(writers);
    test_note("%d saves, %ld commands, %ld of them during saves", iterations, commands,
              during);
    CHECK(during > 1000, "hardly anything was written during the saves");
    check_field_times(server);
    server_stop(server);
}

static void mixed_writes(void)
{
    check_loop(FILL_CONFIG, 4);
}

static void io_threads(void)
{
    check_loop(FILL_CONFIG "io-threads 3\nio-threads-do-reads yes\n", 2);
}

/* Memory is freed by threads of the server. */
static void lazy_freeing(void)
{
    check_loop(FILL_CONFIG "lazyfree-lazy-user-del yes\nlazyfree-lazy-server-del yes\n"
                           "lazyfree-lazy-user-flush yes\n",
               test_is_repeated() ? 1 : 2);
}

/* Tables grow and shrink all the time, moved on by the server's clock too. */
static void active_rehashing(void)
{
    check_loop(FILL_CONFIG "activerehashing yes\nhz 100\n", 2);
}

/* The test of the test: with this switched on the snapshots are found wrong. */
static void check_found(const char *fault)
{
    needs_module();
    uint64_t seed = test_seed();
    struct server *server = start_filled(FILL_CONFIG, fault, seed);
    struct snapshot quiet = snapshot_begin(server);
    const char *wrong = snapshot_fault(&quiet, FILL_CONFIG);
    CHECK(!wrong, "wrong even without writers: %s", wrong);
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, seed + 2);
    for (int i = 0; i < 10 && !wrong; i++) {
        set_pace(server, i);
        struct snapshot snapshot = snapshot_begin(server);
        wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    }
    CHECK(wrong, "nothing was found wrong with %s", fault);
    test_note("found: %.120s", wrong);
    CHECK(server_is_alive(server), "the server died");
    server->stopped = true; /* what it does without protection is its own affair */
    writers_stop(writers);
}

static void found_without_protection(void)
{
    check_found("skip_protect,no_audit");
}

static void found_without_preserving(void)
{
    check_found("skip_preserve,no_audit");
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"mixed_writes", mixed_writes, 150},
        {"io_threads", io_threads, 90},
        {"lazy_freeing", lazy_freeing, 90},
        {"active_rehashing", active_rehashing, 90},
        {"found_without_protection", found_without_protection, 90},
        {"found_without_preserving", found_without_preserving, 90},
        {0},
    };
    return test_run("busy", cases, argc, argv);
}
