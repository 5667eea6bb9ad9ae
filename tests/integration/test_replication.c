/* Replicas get the master's data through saves that the module makes, from a
 * file and through the pipe, while the master is being written to. */
#include "counters.h"
#include "masters.h"
#include "rdbfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SOAK_FACTOR 40
#define CONNECTIONS 3

/* ---- a full synchronization, again and again ---- */

static void full_syncs(const char *config, const struct server_options *options)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(config, seed);
    struct server *replica = server_start(options);
    int rounds = 2 * (test_is_soak() ? SOAK_FACTOR : 1);
    for (int i = 0; i < rounds; i++) {
        struct writers *writers = master_write(master, seed + i * 9);
        server_config_set(master, "rdb-key-save-delay", i % 2 ? "20" : "0");
        sleep_msec((long)(random_next(&seed) % 100));
        replica_follow(replica, master);
        replica_wait_link(replica);
        sleep_msec((long)(random_next(&seed) % 100));
        long commands = writers_stop(writers);
        CHECK(commands > 50, "hardly anything was written: %ld commands", commands);
        check_same_data(master, replica);
        CHECK(server_info_number(master, "sync_full") == i + 1, "sync_full is %s",
              server_info(master, "sync_full"));
        check_fork_free(master, i + 1);
        server_ok(replica, "REPLICAOF NO ONE");
        /* Its own history: the next synchronization is full. */
        server_ok(replica, "SET own %d", i);
    }
    check_no_temporary_file(master);
    master_stop_with(master, replica);
}

static void from_file(void)
{
    full_syncs(from_disk_config, &follower);
}

static void follow(const char *config)
{
    full_syncs(config, &follower);
}

static void through_pipe(void)
{
    each_diskless_way(follow, diskless_config);
}

static void follow_swapdb(const char *config)
{
    full_syncs(config, &(struct server_options){.config = QUIET_CONFIG
                                                "repl-diskless-load swapdb\n"});
}

static void through_pipe_swapdb(void)
{
    each_diskless_way(follow_swapdb, diskless_config);
}

static void replica_without_module(void)
{
    full_syncs(diskless_config,
               &(struct server_options){.config = QUIET_CONFIG, .without_module = true});
}

/* ---- both ends mixed -------------------------------------------------------------- */

/* A full synchronization under writes, and a save of the replica, without fork where
 * there is the module. No mixed writes: servers of different versions need not do the
 * same with a command, nor write a score the same way in DEBUG DIGEST. */
static void sync_and_save(struct server *master, struct server *replica)
{
    struct counters *counters = counters_start(master, CONNECTIONS);
    replica_follow(replica, master);
    replica_wait_link(replica);
    server_save(replica);
    sleep_msec(50);
    counters_stop(counters);
    check_same_data(master, replica);
    counters_check(counters, replica, 0);
    CHECK(server_info_number(master, "sync_full") == 1, "sync_full");
    check_fork_free(master, 1);
    check_fork_free(replica, 1);
}

static struct server *start_mixed_master(const struct server_options *options,
                                         uint64_t seed)
{
    struct server *master = server_start(options);
    fill(master->connection, FILL_ALL - FILL_SORTED_SETS - FILL_EXPIRIES, MASTER_COUNT,
         seed);
    for (int i = 0; i < 500; i++)
        server_ok(master, "ZADD zset:%d %d member-%d", i % 9, i * 7, i);
    return master;
}

static void master_without_module(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_mixed_master(
        &(struct server_options){.config = diskless_config, .without_module = true},
        seed);
    struct server *replica = server_start(&follower);
    sync_and_save(master, replica);
    master_stop_with(master, replica);
}

/* Whether a server can load what the master saves: the newer one does mostly. */
static bool understands(const char *command, struct server *master)
{
    char *directory = format_text("%s/trial", test_directory());
    CHECK(run_program(NULL, (const char *[]){"rm", "-rf", directory, NULL}) == 0 &&
              run_program(NULL, (const char *[]){"mkdir", directory, NULL}) == 0,
          "no directory");
    server_ok(master, "SAVE");
    copy_file(server_path(master, "dump.rdb"), format_text("%s/dump.rdb", directory));
    char *log;
    struct server *server =
        server_try_start(&(struct server_options){.config = QUIET_CONFIG,
                                                  .command = command,
                                                  .directory = directory,
                                                  .without_module = true},
                         &log);
    if (server)
        server_stop(server);
    return server;
}

static const char *version_of(struct server *server)
{
    const char *valkey = server_info(server, "valkey_version");
    return valkey ? format_text("Valkey %s", valkey)
                  : format_text("Redis %s", server_info(server, "redis_version"));
}

/* True if the second can be a replica of the first at all, and then it is. */
static bool pair(const char *first, const char *second, uint64_t seed)
{
    struct server *master = start_mixed_master(
        &(struct server_options){.config = diskless_config, .command = first}, seed);
    bool possible = understands(second, master);
    if (possible) {
        struct server *replica = server_start(
            &(struct server_options){.config = QUIET_CONFIG, .command = second});
        test_note("%s, replica %s", version_of(master), version_of(replica));
        sync_and_save(master, replica);
        server_stop(replica);
    }
    server_stop(master);
    return possible;
}

static void other_servers(void)
{
    const char *list = getenv("OTHER_SERVERS");
    if (!list || !*list)
        not_applicable("no other server is there");
    uint64_t seed = test_seed();
    const char *before = NULL;
    char *rest;
    int pairs = 0;
    for (char *command = strtok_r(strdup(list), " ", &rest); command;
         command = strtok_r(NULL, " ", &rest)) {
        pairs += pair(NULL, command, seed);
        if (before)
            pairs += pair(before, command, seed);
        before = command;
    }
    CHECK(pairs, "no pair of servers that understand each other");
}

/* ---- what else a replica does ---- */

/* The replica is saving when the master's data come: its save is killed. */
static void replica_that_saves(const char *load)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(diskless_config, seed);
    struct server *replica = server_start(&(struct server_options){
        .config = format_text("%srepl-diskless-load %s\n", QUIET_CONFIG, load)});
    for (int i = 0; i < 4; i++) {
        server_ok(replica, "DEBUG POPULATE %d old 300", MASTER_KEYS);
        server_config_set(replica, "rdb-key-save-delay", SLOW_SAVE);
        server_save_start(replica);
        sleep_msec((long)(random_next(&seed) % 300));
        replica_follow(replica, master);
        replica_wait_link(replica);
        check_same_data(master, replica);
        server_config_set(replica, "rdb-key-save-delay", "0");
        wait_until_no_child(replica, 10);
        check_no_temporary_file(replica);
        server_save(replica);
        const char *digest = dump_digest(server_path(replica, "dump.rdb"), QUIET_CONFIG);
        CHECK(digest && strcmp(digest, server_digest(replica)) == 0, "the dump is wrong");
        server_ok(replica, "REPLICAOF NO ONE");
        server_ok(replica, "SET own %d", i);
    }
    master_stop_with(master, replica);
}

static void loading_from_disk_while_saving(void)
{
    replica_that_saves("disabled");
}

static void loading_swapdb_while_saving(void)
{
    replica_that_saves("swapdb");
}

static void loading_emptied_while_saving(void)
{
    replica_that_saves("on-empty-db");
}

/* A replica's replica, and a failover: the old master follows the new one. */
static void chain(void)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(diskless_config, seed);
    struct server *middle =
        replica_start(master, &(struct server_options){.config = diskless_config});
    replica_wait_link(middle);
    struct writers *writers = master_write(master, seed);
    struct server *last =
        replica_start(middle, &(struct server_options){.config = diskless_config});
    replica_wait_link(last);
    writers_stop(writers);
    check_same_data(master, middle);
    check_same_data(middle, last);
    check_fork_free(middle, 1);
    server_ok(middle, "REPLICAOF NO ONE");
    server_ok(middle, "SET new master");
    replica_follow(master, middle);
    replica_wait_link(master);
    check_same_data(middle, master);
    check_same_data(middle, last);
    CHECK(server_info_number(middle, "sync_full") == 1, "a full resynchronization");
    server_stop(last);
    master_stop_with(middle, master);
}

static int version_of_dump(const char *path)
{
    FILE *file = fopen(path, "r");
    char magic[10] = "";
    CHECK(file && fread(magic, 1, 9, file) == 9, "no dump at %s", path);
    fclose(file);
    return atoi(magic + strcspn(magic, "0123456789"));
}

/* redis-cli --rdb is a replica that asks for the file alone. It may get an older
 * format than the server's own, which is left to fork. */
static void command_line_dump(void)
{
    struct server *master = master_start(diskless_config, test_seed());
    const char *file = format_text("%s/got.rdb", test_directory());
    int code = run_program(NULL, (const char *[]){"redis-cli", "-p",
                                                  format_text("%d", master->port),
                                                  "--rdb", file, NULL});
    CHECK(code == 0, "redis-cli ended with code %d", code);
    const char *digest = dump_digest(file, QUIET_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(master)) == 0, "the dump differs");
    wait_until_no_child(master, 3);
    server_ok(master, "SAVE");
    if (version_of_dump(file) == version_of_dump(server_path(master, "dump.rdb")))
        check_fork_free(master, 1);
    else if (master->has_module)
        CHECK(server_info_number(master, "uffd_fork_fallbacks") == 1, "not counted");
    server_stop(master);
}

static void get_functions(struct server *master, const char *file)
{
    int code = run_program(NULL, (const char *[]){"redis-cli", "-p",
                                                  format_text("%d", master->port),
                                                  "--functions-rdb", file, NULL});
    CHECK(code == 0, "redis-cli ended with code %d", code);
    wait_until_no_child(master, 5);
}

/* redis-cli --functions-rdb wants the functions and no data: what it gets is what a child
 * would have sent, byte for byte. */
static void functions_only(void)
{
    struct server *master = master_start(diskless_config, test_seed());
    const char *file = format_text("%s/functions.rdb", test_directory());
    const char *by_child = format_text("%s/by-child.rdb", test_directory());
    get_functions(master, file);
    check_dump(file, true);
    struct server *loaded = server_start(
        &(struct server_options){.config = QUIET_CONFIG, .without_module = true});
    server_stop(loaded);
    copy_file(file, server_path(loaded, "dump.rdb"));
    loaded = server_start(&(struct server_options){
        .config = QUIET_CONFIG, .without_module = true, .directory = loaded->directory});
    CHECK(server_integer(loaded, "DBSIZE") == 0, "there are keys");
    CHECK(server_ok(loaded, "FUNCTION LIST")->elements ==
              server_ok(master, "FUNCTION LIST")->elements,
          "there are other functions");
    CHECK(server_ok(loaded, "FUNCTION LIST")->elements > 0, "there are no functions");
    server_stop(loaded);
    if (master->has_module) {
        /* What redis-cli gets may be an older format than the server's own. */
        server_ok(master, "SAVE");
        bool older =
            version_of_dump(file) != version_of_dump(server_path(master, "dump.rdb"));
        if (!older)
            check_fork_free(master, 1);
        else
            CHECK(server_info_number(master, "uffd_fork_fallbacks") == 1, "not counted");
        server_config_set(master, "uffd.enabled", "no");
        get_functions(master, by_child);
        const char *difference = rdb_difference(by_child, file);
        CHECK(!difference, "%s", difference);
    }
    server_stop(master);
}

/* Strings as they are, of the keys and of the functions: what replicas of Redis 8.6 ask for
 * that read a dump from the socket. */
static void uncompressed(void)
{
    struct server *master = master_start(diskless_config, test_seed());
    const char *ours = format_text("%s/ours.rdb", test_directory());
    const char *packed = format_text("%s/packed.rdb", test_directory());
    receive_uncompressed(master, ours);
    receive_dump(master, NULL, packed);
    check_fork_free(master, 2);
    check_uncompressed_by_fork(master, ours);
    CHECK(rdb_keys_difference(packed, ours), "the wish changes nothing");
    server_stop(master);
}

/* ---- what the master tells and knows ---- */

/* What the server learns through its pipe while the transfer runs. */
static void progress_of_a_transfer(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(config, seed);
    server_config_set(master, "rdb-key-save-delay", "200");
    struct server *replica = replica_start(master, &follower);
    master_wait_transfer(master);
    int told = server_log_lines(master, "replicas sockets (rdb-channel)") +
               server_log_lines(master, "replicas sockets using: dual-channel");
    CHECK(told == straight_to_sockets, "not the way it is meant to go");
    double processed = 0, copied = 0, last = 0;
    double total = server_info_number(master, "current_save_keys_total");
    CHECK(total > MASTER_KEYS, "current_save_keys_total is %g", total);
    while (server_info_number(master, "rdb_bgsave_in_progress") == 1) {
        server_ok(master, "SETRANGE key:%d 0 x", (int)(random_next(&seed) % MASTER_KEYS));
        last = server_info_number(master, "current_save_keys_processed");
        double size = server_info_number(master, "current_cow_size");
        processed = last > processed ? last : processed;
        copied = size > copied ? size : copied;
        sleep_msec(1);
    }
    CHECK(processed > 1000 && processed <= total, "%g keys processed were reported",
          processed);
    CHECK(copied > 0, "no memory cost was reported");
    CHECK(server_info_number(master, "rdb_last_cow_size") >= copied,
          "rdb_last_cow_size is %s", server_info(master, "rdb_last_cow_size"));
    replica_wait_link(replica);
    check_same_data(master, replica);
    master_stop_with(master, replica);
}

static void progress_from_file(void)
{
    progress_of_a_transfer(from_disk_config);
}

static void progress_through_pipe(void)
{
    each_diskless_way(progress_of_a_transfer, diskless_config);
}

/* What is known of clients is proved each time before it is used. */
static void clients_moved(const char *config)
{
    struct server *master = server_start(
        &(struct server_options){.config = config, .fault = "moved_clients"});
    fill(master->connection, FILL_ALL, MASTER_COUNT, test_seed());
    struct server *replica = server_start(&follower);
    replica_follow(replica, master);
    replica_wait_link(replica);
    check_same_data(master, replica);
    const char *reason = server_info(master, "uffd_last_fallback_reason");
    CHECK(server_info_number(master, "uffd_fork_fallbacks") == 1, "not counted");
    CHECK(strstr(reason, "not where they should be"), "the reason: %s", reason);
    server_ok(master, "UFFD.FAULT moved_clients off");
    server_ok(replica, "REPLICAOF NO ONE");
    server_ok(replica, "SET own history");
    replica_follow(replica, master);
    replica_wait_link(replica);
    check_same_data(master, replica);
    CHECK(server_info_number(master, "uffd_forks_replaced") == 1, "forked again");
    master_stop_with(master, replica);
}

static void clients_elsewhere(void)
{
    needs_module();
    each_diskless_way(clients_moved, diskless_config);
}

int main(int argc, char **argv)
{
    int limit = test_is_soak() ? 2400 : 120;
    const struct test_case cases[] = {
        {"from_file", from_file, limit},
        {"through_pipe", through_pipe, limit},
        {"through_pipe_swapdb", through_pipe_swapdb, limit},
        {"replica_without_module", replica_without_module, limit},
        {"master_without_module", master_without_module, 60},
        {"other_servers", other_servers, 120},
        {"loading_from_disk_while_saving", loading_from_disk_while_saving, 60},
        {"loading_swapdb_while_saving", loading_swapdb_while_saving, 60},
        {"loading_emptied_while_saving", loading_emptied_while_saving, 60},
        {"chain", chain, 60},
        {"progress_from_file", progress_from_file, 60},
        {"progress_through_pipe", progress_through_pipe, 120},
        {"command_line_dump", command_line_dump, 30},
        {"functions_only", functions_only, 30},
        {"uncompressed", uncompressed, 30},
        {"clients_elsewhere", clients_elsewhere, 60},
        {0},
    };
    return test_run("replication", cases, argc, argv);
}
