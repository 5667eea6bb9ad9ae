/* Rewrites of the append-only file are made by the module, and what a server
 * reads back from it is what it had acknowledged: no command lost, none twice. */
#include "counters.h"
#include "fill.h"
#include "replicas.h"
#include "writers.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT       150
#define KEYS        10000
#define CONNECTIONS 3
#define ROUNDS      3
#define SOAK_FACTOR 30
#define SLOW        "100" /* microseconds a key: some seconds */

#define AOF_CONFIG                                                                       \
    FILL_CONFIG "appendonly yes\nappendfsync everysec\nauto-aof-rewrite-percentage 0\n"

static int rounds(void)
{
    return ROUNDS * (test_is_soak() ? SOAK_FACTOR : 1);
}

static void rewrite(struct server *server)
{
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 30);
    CHECK(strcmp(server_info(server, "aof_last_bgrewrite_status"), "ok") == 0,
          "the rewrite failed");
}

/* DEBUG POPULATE writes no commands: a first rewrite brings its keys to the file. */
static struct server *start(const char *config, uint64_t seed)
{
    struct server *server = server_start(&(struct server_options){.config = config});
    server_ok(server, "DEBUG POPULATE %d key 500", KEYS);
    fill(server->connection, FILL_ALL, COUNT, seed);
    if (strcmp(server_config_get(server, "appendonly"), "yes") == 0)
        rewrite(server);
    return server;
}

/* temp-rewriteaof-*, NULL if there is none. */
static const char *temporary_file(struct server *server)
{
    const char *found = NULL;
    DIR *directory = opendir(server->directory);
    CHECK(directory, "no directory");
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strncmp(entry->d_name, "temp-", 5) == 0)
            found = format_text("%s", entry->d_name);
    closedir(directory);
    return found;
}

static void check_nothing_left(struct server *server)
{
    const char *left = temporary_file(server);
    for (int i = 0; left && i < 100; i++) {
        sleep_msec(5);
        left = temporary_file(server);
    }
    CHECK(!left, "left behind: %s", left);
}

static struct server *restart(struct server *server, const char *config)
{
    return server_start(
        &(struct server_options){.config = config, .directory = server->directory});
}

/* The file alone must bring back the data, in a server that has ended well. */
static struct server *check_file(struct server *server, const char *config)
{
    const char *digest = server_digest(server);
    server_stop(server);
    server = restart(server, config);
    const char *read_back = server_digest(server);
    CHECK(strcmp(digest, read_back) == 0, "DEBUG DIGEST was %s, is %s after a restart",
          digest, read_back);
    return server;
}

static void rewrites_under_writes(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(AOF_CONFIG, seed);
    struct counters *counters = counters_start(server, CONNECTIONS);
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, seed);
    double forks = server_info_number(server, "total_forks");
    for (int i = 0; i < rounds(); i++) {
        sleep_msec((long)(random_next(&seed) % 200));
        server_config_set(server, "rdb-key-save-delay", i % 2 ? "0" : "50");
        rewrite(server);
    }
    writers_stop(writers);
    counters_stop(counters);
    CHECK(server_info_number(server, "total_forks") == forks + rounds(), "total_forks");
    check_fork_free(server, 1 + rounds());
    check_nothing_left(server);
    counters_check(counters, server, 0);
    server = check_file(server, AOF_CONFIG);
    counters_check(counters, server, 0);
    server_stop(server);
}

static void automatic_rewrites(void)
{
    static const char *const config =
        FILL_CONFIG "appendonly yes\nauto-aof-rewrite-percentage 50\n"
                    "auto-aof-rewrite-min-size 1mb\n";
    struct server *server = server_start(&(struct server_options){.config = config});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    struct counters *counters = counters_start(server, CONNECTIONS);
    double end = patient_seconds() + 30;
    while (server_info_number(server, "total_forks") < 3) {
        CHECK(patient_seconds() < end, "no third rewrite after 30 seconds");
        server_ok(server, "SETRANGE large 0 %01000d", 7);
        server_ok(server, "SET filler %020000d", 7);
    }
    counters_stop(counters);
    wait_until_no_child(server, 30);
    check_fork_free(server, (int)server_info_number(server, "total_forks"));
    server = check_file(server, config);
    counters_check(counters, server, 0);
    server_stop(server);
}

static void switched_on_at_run_time(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(FILL_CONFIG "appendonly no\n", seed);
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, seed);
    struct counters *counters = counters_start(server, CONNECTIONS);
    server_config_set(server, "rdb-key-save-delay", "50");
    server_config_set(server, "appendonly", "yes");
    wait_until_no_child(server, 30);
    sleep_msec(100);
    writers_stop(writers);
    counters_stop(counters);
    check_fork_free(server, 1);
    check_nothing_left(server);
    server = check_file(server, AOF_CONFIG);
    counters_check(counters, server, 0);
    server_stop(server);
}

static void switched_off_during_rewrite(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(AOF_CONFIG, seed);
    struct counters *counters = counters_start(server, CONNECTIONS);
    for (int i = 0; i < rounds(); i++) {
        server_config_set(server, "rdb-key-save-delay", SLOW);
        server_ok(server, "BGREWRITEAOF");
        sleep_msec((long)(random_next(&seed) % 300));
        CHECK(server_info_number(server, "aof_rewrite_in_progress") == 1,
              "the rewrite is over too soon");
        double began = patient_seconds();
        server_config_set(server, "appendonly", "no");
        /* The saver may be in a system call of a busy disk. */
        CHECK(patient_seconds() - began < 5, "appendonly no took %g seconds",
              patient_seconds() - began);
        wait_for_info(server, "aof_rewrite_in_progress", "0", 0.5);
        check_nothing_left(server);
        server_config_set(server, "rdb-key-save-delay", "0");
        server_config_set(server, "appendonly", "yes");
        wait_until_no_child(server, 10);
    }
    counters_stop(counters);
    server = check_file(server, AOF_CONFIG);
    counters_check(counters, server, 0);
    server_stop(server);
}

/* Whatever was acknowledged is there, and at most the one command more that each
 * connection was waiting for. */
static void killed_at_random(void)
{
    static const char *const config =
        FILL_CONFIG "appendonly yes\nappendfsync always\nauto-aof-rewrite-percentage 0\n"
                    "rdb-key-save-delay 50\n";
    uint64_t seed = test_seed();
    struct server *server = start(config, seed);
    struct counters *counters = counters_start(server, CONNECTIONS);
    for (int i = 0; i < 2 * rounds(); i++) {
        sleep_msec((long)(random_next(&seed) % 100));
        server_ok(server, "BGREWRITEAOF");
        sleep_msec((long)(random_next(&seed) % 900));
        server_kill(server);
        counters_join(counters);
        server = restart(server, config);
        counters_check(counters, server, 1);
        counters_go_on(counters, server);
    }
    counters_stop(counters);
    server_config_set(server, "rdb-key-save-delay", "0");
    rewrite(server);
    server_stop(server);
}

/* Such a file is made of commands, by code that wants the live data. */
static void without_preamble(void)
{
    static const char *const config = AOF_CONFIG "aof-use-rdb-preamble no\n";
    struct server *server = server_start(&(struct server_options){.config = config});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    struct counters *counters = counters_start(server, CONNECTIONS);
    rewrite(server);
    counters_stop(counters);
    if (module_in_use()) {
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "not counted");
        CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "replaced");
        CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "preamble"),
              "the reason given is: %s",
              server_info(server, "uffd_last_fallback_reason"));
    }
    /* No digest: commands bring back the data, not every detail of them. */
    server_stop(server);
    server = restart(server, config);
    counters_check(counters, server, 0);
    server_stop(server);
}

static void save_scheduled_during_rewrite(void)
{
    struct server *server = start(AOF_CONFIG, test_seed());
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_ok(server, "BGREWRITEAOF");
    const char *error = server_error(server, "BGSAVE");
    CHECK(strstr(error, "BGSAVE SCHEDULE"), "%s", error);
    const char *answer = server_text(server, "BGSAVE SCHEDULE");
    CHECK(strcmp(answer, "Background saving scheduled") == 0, "%s", answer);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 0, "begun already");
    server_config_set(server, "rdb-key-save-delay", "0");
    wait_for_info_above(server, "rdb_last_save_time", 0, 30);
    double forks = 3, end = patient_seconds() + 30;
    while (server_info_number(server, "total_forks") < forks)
        CHECK(patient_seconds() < end, "the scheduled save did not come");
    wait_until_no_child(server, 30);
    CHECK(strcmp(server_info(server, "rdb_last_bgsave_status"), "ok") == 0, "it failed");
    check_fork_free(server, 3);
    server_stop(server);
}

static void rewrite_during_save_waits(void)
{
    struct server *server = start(AOF_CONFIG, test_seed());
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_save_start(server);
    const char *answer = server_text(server, "BGREWRITEAOF");
    CHECK(strstr(answer, "scheduled"), "%s", answer);
    server_config_set(server, "rdb-key-save-delay", "0");
    wait_until_no_child(server, 30);
    CHECK(server_info_number(server, "total_forks") == 3, "total_forks");
    check_fork_free(server, 3);
    server = check_file(server, AOF_CONFIG);
    server_stop(server);
}

static void cost_is_reported(void)
{
    struct server *server = start(AOF_CONFIG, test_seed());
    server_config_set(server, "rdb-key-save-delay", "50");
    server_ok(server, "BGREWRITEAOF");
    for (int i = 0; i < 1000; i++)
        server_ok(server, "SETRANGE key:%d 0 x", i * 7 % KEYS);
    server_config_set(server, "rdb-key-save-delay", "0");
    wait_until_no_child(server, 30);
    CHECK(server_info_number(server, "aof_last_cow_size") >= 4096,
          "aof_last_cow_size is %s", server_info(server, "aof_last_cow_size"));
    server_stop(server);
}

int main(int argc, char **argv)
{
    int limit = test_is_soak() ? 1200 : 60;
    const struct test_case cases[] = {
        {"rewrites_under_writes", rewrites_under_writes, limit},
        {"automatic_rewrites", automatic_rewrites, 60},
        {"switched_on_at_run_time", switched_on_at_run_time, 60},
        {"switched_off_during_rewrite", switched_off_during_rewrite, limit},
        {"killed_at_random", killed_at_random, limit},
        {"without_preamble", without_preamble, 60},
        {"save_scheduled_during_rewrite", save_scheduled_during_rewrite, 60},
        {"rewrite_during_save_waits", rewrite_during_save_waits, 60},
        {"cost_is_reported", cost_is_reported, 60},
        {0},
    };
    return test_run("aof", cases, argc, argv);
}
