/* Replicas get the master's data through saves that the module makes, from a
 * file and through the pipe, while the master is being written to. */
#include "counters.h"
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"
#include "writers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT               150
#define KEYS                10000
#define CONNECTIONS         3
#define SOAK_FACTOR         40
#define COMMANDS_PER_SECOND 6000
/* A save of some two seconds. */
#define SLOW_SAVE "100"
/* The offset must stand still when nobody writes. */
#define QUIET_CONFIG FILL_CONFIG "repl-ping-replica-period 3600\n"

static const char *const disk = QUIET_CONFIG "repl-diskless-sync no\n";
static const char *const diskless = QUIET_CONFIG DISKLESS_CONFIG;
static const struct server_options follower = {.config = QUIET_CONFIG};

static struct server *start_master(const char *config, uint64_t seed)
{
    struct server *master = server_start(&(struct server_options){.config = config});
    server_ok(master, "DEBUG POPULATE %d key 500", KEYS);
    fill(master->connection, FILL_ALL, COUNT, seed);
    return master;
}

/* No more than the replicas' output buffers take on any machine. */
static struct writers *start_writers(struct server *master, uint64_t seed)
{
    struct writers *writers = writers_start(master, CONNECTIONS, COUNT, seed);
    writers_pace(writers, COMMANDS_PER_SECOND);
    return writers;
}

static void wait_for_transfer(struct server *master)
{
    wait_for_info(master, "rdb_bgsave_in_progress", "1", 10);
}

static void stop_both(struct server *master, struct server *replica)
{
    server_stop(replica);
    server_stop(master);
}

/* ---- a full synchronization, again and again ---- */

static void full_syncs(const char *config, const struct server_options *options)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(config, seed);
    struct server *replica = server_start(options);
    int rounds = 2 * (test_is_soak() ? SOAK_FACTOR : 1);
    for (int i = 0; i < rounds; i++) {
        struct writers *writers = start_writers(master, seed + i * 9);
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
    stop_both(master, replica);
}

static void from_file(void)
{
    full_syncs(disk, &follower);
}

static void follow(const char *config)
{
    full_syncs(config, &follower);
}

static void through_pipe(void)
{
    each_diskless_way(follow, diskless);
}

static void follow_swapdb(const char *config)
{
    full_syncs(config, &(struct server_options){.config = QUIET_CONFIG
                                                "repl-diskless-load swapdb\n"});
}

static void through_pipe_swapdb(void)
{
    each_diskless_way(follow_swapdb, diskless);
}

static void replica_without_module(void)
{
    full_syncs(diskless,
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
    fill(master->connection, FILL_ALL - FILL_SORTED_SETS - FILL_EXPIRIES, COUNT, seed);
    for (int i = 0; i < 500; i++)
        server_ok(master, "ZADD zset:%d %d member-%d", i % 9, i * 7, i);
    return master;
}

static void master_without_module(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_mixed_master(
        &(struct server_options){.config = diskless, .without_module = true}, seed);
    struct server *replica = server_start(&follower);
    sync_and_save(master, replica);
    stop_both(master, replica);
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
        &(struct server_options){.config = diskless, .command = first}, seed);
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

/* The replica is saving when the master's data come: its save is killed. */
static void replica_that_saves(const char *load)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(diskless, seed);
    struct server *replica = server_start(&(struct server_options){
        .config = format_text("%srepl-diskless-load %s\n", QUIET_CONFIG, load)});
    for (int i = 0; i < 4; i++) {
        server_ok(replica, "DEBUG POPULATE %d old 300", KEYS);
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
    stop_both(master, replica);
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

/* ---- several ---- */

static void several_at_once(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(
        format_text("%srepl-diskless-sync-max-replicas 3\nrepl-diskless-sync-delay 30\n",
                    config),
        seed);
    struct server *replicas[3];
    for (int i = 0; i < 3; i++)
        replicas[i] = server_start(&follower);
    struct writers *writers = start_writers(master, seed);
    server_config_set(master, "rdb-key-save-delay", "50");
    for (int i = 0; i < 3; i++)
        replica_follow(replicas[i], master);
    for (int i = 0; i < 3; i++)
        replica_wait_link(replicas[i]);
    writers_stop(writers);
    for (int i = 0; i < 3; i++)
        check_same_data(master, replicas[i]);
    CHECK(server_info_number(master, "connected_slaves") == 3, "connected_slaves");
    CHECK(server_info_number(master, "sync_full") == 3, "sync_full");
    /* Those that came before the first save ended attached to it or to the next. */
    double forks = server_info_number(master, "total_forks");
    CHECK(forks <= 2, "%g saves for three replicas", forks);
    check_fork_free(master, (int)forks);
    check_no_temporary_file(master);
    for (int i = 0; i < 3; i++)
        server_stop(replicas[i]);
    server_stop(master);
}

static void several_from_file(void)
{
    several_at_once(disk);
}

static void several_through_pipe(void)
{
    each_diskless_way(several_at_once, diskless);
}

/* The second comes when the first one's transfer is half done. */
static void joining(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(config, seed);
    struct writers *writers = start_writers(master, seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    struct server *first = replica_start(master, &follower);
    wait_for_transfer(master);
    sleep_msec(500);
    struct server *second = replica_start(master, &follower);
    replica_wait_link(first);
    server_config_set(master, "rdb-key-save-delay", "0");
    replica_wait_link(second);
    writers_stop(writers);
    check_same_data(master, first);
    check_same_data(master, second);
    check_fork_free(master, (int)server_info_number(master, "total_forks"));
    server_stop(second);
    stop_both(master, first);
}

static void joining_from_file(void)
{
    joining(disk);
}

static void joining_through_pipe(void)
{
    each_diskless_way(joining, diskless);
}

/* A replica asks while somebody's BGSAVE runs, which it cannot use. */
static void joining_during_save(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(diskless, seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    server_save_start(master);
    struct server *replica = replica_start(master, &follower);
    struct writers *writers = start_writers(master, seed);
    CHECK(server_save_wait(master), "the save failed");
    server_config_set(master, "rdb-key-save-delay", "0");
    replica_wait_link(replica);
    writers_stop(writers);
    check_same_data(master, replica);
    check_dump(server_path(master, "dump.rdb"), true);
    check_fork_free(master, 2);
    stop_both(master, replica);
}

/* ---- those that go away ---- */

static void one_of_two_is_killed(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(
        format_text("%srepl-diskless-sync-max-replicas 2\nrepl-diskless-sync-delay 30\n",
                    config),
        seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    struct server *stays = server_start(&follower), *goes = server_start(&follower);
    struct writers *writers = start_writers(master, seed);
    replica_follow(stays, master);
    replica_follow(goes, master);
    wait_for_transfer(master);
    sleep_msec(300 + (long)(random_next(&seed) % 500));
    server_kill(goes);
    replica_wait_link(stays);
    writers_stop(writers);
    check_same_data(master, stays);
    CHECK(server_info_number(master, "connected_slaves") == 1, "connected_slaves");
    check_no_temporary_file(master);
    stop_both(master, stays);
}

static void killed_from_file(void)
{
    one_of_two_is_killed(disk);
}

static void killed_through_pipe(void)
{
    each_diskless_way(one_of_two_is_killed, diskless);
}

static void all_gone(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(config, seed);
    struct writers *writers = start_writers(master, seed);
    /* The master notices when it has something to send: a second at most. */
    server_config_set(master, "rdb-key-save-delay", "500");
    struct server *replica = replica_start(master, &follower);
    wait_for_transfer(master);
    sleep_msec((long)(random_next(&seed) % 500));
    server_kill(replica);
    wait_until_no_child(master, 8);
    check_no_temporary_file(master);
    CHECK(strcmp(server_info(master, "rdb_last_bgsave_status"), "ok") == 0,
          "a transfer without receivers counts as a failed save");
    server_config_set(master, "rdb-key-save-delay", "0");
    replica = replica_start(master, &follower);
    replica_wait_link(replica);
    writers_stop(writers);
    check_same_data(master, replica);
    wait_until_no_child(master, 10);
    server_save(master);
    check_dump(server_path(master, "dump.rdb"), true);
    check_fork_free(master, 3);
    stop_both(master, replica);
}

static void all_gone_from_file(void)
{
    all_gone(disk);
}

static void all_gone_through_pipe(void)
{
    each_diskless_way(all_gone, diskless);
}

/* Again and again, the only receiver goes at any moment of a transfer, or just
 * after it. */
static void gone_at_random(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(config, seed), *replica;
    int rounds = test_is_soak() ? 300 : 5, early = 0; /* of a save of two seconds */
    double longest = 0, shortest = 8;
    server_config_set(master, "rdb-key-save-delay", "200");
    for (int i = 0; i < rounds; i++) {
        replica = replica_start(master, &follower);
        wait_for_info_above(master, "total_forks", i, 10);
        sleep_msec((long)(random_next(&seed) % 700));
        early += server_info_number(master, "rdb_bgsave_in_progress") == 1;
        server_kill(replica);
        double began = clock_seconds();
        wait_until_no_child(master, 8);
        double took = clock_seconds() - began;
        longest = took > longest ? took : longest;
        shortest = took < shortest ? took : shortest;
        check_no_temporary_file(master);
    }
    test_note("%d of %d were killed while the master saved; the longest end took %.0f ms",
              early, rounds, longest * 1000);
    CHECK(early, "none was killed in time");
    CHECK(shortest < 1.5, "the saves were not ended: the shortest end took %g seconds",
          shortest);
    server_config_set(master, "rdb-key-save-delay", "0");
    replica = replica_start(master, &follower);
    replica_wait_link(replica);
    check_same_data(master, replica);
    check_fork_free(master, rounds + 1);
    stop_both(master, replica);
}

static void gone_at_random_from_file(void)
{
    gone_at_random(disk);
}

static void gone_at_random_through_pipe(void)
{
    each_diskless_way(gone_at_random, diskless);
}

/* It stands still in the middle of the transfer, with the pipe full, and is
 * given up by the master. */
static void replica_times_out(void)
{
    uint64_t seed = test_seed();
    struct server *master =
        start_master(format_text("%srepl-timeout 2\n", diskless), seed);
    server_ok(master, "DEBUG POPULATE 60 large 1000000");
    server_config_set(master, "rdbcompression", "no");
    struct server *replica = replica_start(master, &follower);
    wait_for_transfer(master);
    kill(replica->pid, SIGSTOP);
    struct writers *writers = start_writers(master, seed);
    wait_until_no_child(master, 15);
    writers_stop(writers);
    CHECK(server_info_number(master, "connected_slaves") == 0, "connected_slaves");
    kill(replica->pid, SIGCONT);
    replica_wait_link(replica);
    check_same_data(master, replica);
    check_fork_free(master, (int)server_info_number(master, "total_forks"));
    stop_both(master, replica);
}

static void slow_replica(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(diskless, seed);
    server_ok(master, "DEBUG POPULATE 60 large 1000000");
    server_config_set(master, "rdbcompression", "no");
    server_config_set(master, "client-output-buffer-limit", "replica 0 0 0");
    struct server *replica = server_start(&(struct server_options){
        .config = QUIET_CONFIG "repl-diskless-load swapdb\nkey-load-delay 200\n"});
    struct writers *writers = start_writers(master, seed);
    replica_follow(replica, master);
    double began = clock_seconds();
    wait_for_transfer(master);
    for (int i = 0; i < 4; i++) {
        kill(replica->pid, SIGSTOP);
        sleep_msec(200);
        kill(replica->pid, SIGCONT);
        sleep_msec(30);
    }
    replica_wait_link(replica);
    double seconds = clock_seconds() - began;
    CHECK(seconds > 1, "it was not slow: %g seconds", seconds);
    writers_stop(writers);
    server_config_set(replica, "key-load-delay", "0");
    check_same_data(master, replica);
    check_fork_free(master, 1);
    stop_both(master, replica);
}

/* ---- the rest of the history ---- */

static struct server *restart(struct server *server, const char *config)
{
    server_kill(server);
    return server_start(
        &(struct server_options){.config = config, .directory = server->directory});
}

/* A background save made by a replica has the place in the master's history:
 * restarted from it, the replica asks only for what is missing. */
static void partial_after_replica_restart(void)
{
    uint64_t seed = test_seed();
    struct server *master =
        start_master(format_text("%srepl-backlog-size 100mb\n", diskless), seed);
    struct server *replica = replica_start(master, &follower);
    replica_wait_link(replica);
    for (int i = 0; i < 3; i++) {
        struct writers *writers = start_writers(master, seed + i * 9);
        sleep_msec(200);
        server_config_set(replica, "rdb-key-save-delay", i == 2 ? "0" : "20");
        server_save(replica);
        sleep_msec(100);
        /* It must be a replica when it loads the file. */
        replica = restart(replica, format_text("%sreplicaof 127.0.0.1 %d\n", QUIET_CONFIG,
                                               master->port));
        replica_wait_link(replica);
        writers_stop(writers);
        check_same_data(master, replica);
        CHECK(server_info_number(master, "sync_full") == 1 &&
                  server_info_number(master, "sync_partial_ok") == i + 1,
              "not a partial resynchronization: %s full, %s partial",
              server_info(master, "sync_full"), server_info(master, "sync_partial_ok"));
    }
    stop_both(master, replica);
}

static void partial_after_master_restart(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(diskless, seed);
    struct server *replica = replica_start(master, &follower);
    replica_wait_link(replica);
    server_ok(master, "SELECT 3");
    server_ok(master, "SET another database");
    wait_until_no_child(master, 15);
    server_save(master);
    check_same_data(master, replica);
    master = restart(master, diskless);
    replica_follow(replica, master);
    replica_wait_link(replica);
    server_ok(master, "SET after restart");
    check_same_data(master, replica);
    CHECK(server_info_number(master, "sync_full") == 0 &&
              server_info_number(master, "sync_partial_ok") == 1,
          "not a partial resynchronization");
    stop_both(master, replica);
}

/* A replica's replica, and a failover: the old master follows the new one. */
static void chain(void)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(diskless, seed);
    struct server *middle =
        replica_start(master, &(struct server_options){.config = diskless});
    replica_wait_link(middle);
    struct writers *writers = start_writers(master, seed);
    struct server *last =
        replica_start(middle, &(struct server_options){.config = diskless});
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
    stop_both(middle, master);
}

/* What the server learns through its pipe while the transfer runs. */
static void progress_of_a_transfer(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = start_master(config, seed);
    server_config_set(master, "rdb-key-save-delay", "200");
    struct server *replica = replica_start(master, &follower);
    wait_for_transfer(master);
    int told = server_log_lines(master, "replicas sockets (rdb-channel)") +
               server_log_lines(master, "replicas sockets using: dual-channel");
    CHECK(told == straight_to_sockets, "not the way it is meant to go");
    double processed = 0, copied = 0, last = 0;
    double total = server_info_number(master, "current_save_keys_total");
    CHECK(total > KEYS, "current_save_keys_total is %g", total);
    while (server_info_number(master, "rdb_bgsave_in_progress") == 1) {
        server_ok(master, "SETRANGE key:%d 0 x", (int)(random_next(&seed) % KEYS));
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
    stop_both(master, replica);
}

static void progress_from_file(void)
{
    progress_of_a_transfer(disk);
}

static void progress_through_pipe(void)
{
    each_diskless_way(progress_of_a_transfer, diskless);
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
    struct server *master = start_master(diskless, test_seed());
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

/* What is known of clients is proved each time before it is used. */
static void clients_moved(const char *config)
{
    struct server *master = server_start(
        &(struct server_options){.config = config, .fault = "moved_clients"});
    fill(master->connection, FILL_ALL, COUNT, test_seed());
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
    stop_both(master, replica);
}

static void clients_elsewhere(void)
{
    needs_module();
    each_diskless_way(clients_moved, diskless);
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
        {"several_from_file", several_from_file, 60},
        {"several_through_pipe", several_through_pipe, 120},
        {"joining_from_file", joining_from_file, 60},
        {"joining_through_pipe", joining_through_pipe, 120},
        {"joining_during_save", joining_during_save, 60},
        {"killed_from_file", killed_from_file, 60},
        {"killed_through_pipe", killed_through_pipe, 120},
        {"all_gone_from_file", all_gone_from_file, 60},
        {"all_gone_through_pipe", all_gone_through_pipe, 120},
        {"gone_at_random_from_file", gone_at_random_from_file, limit},
        {"gone_at_random_through_pipe", gone_at_random_through_pipe, limit},
        {"replica_times_out", replica_times_out, 60},
        {"slow_replica", slow_replica, 60},
        {"partial_after_replica_restart", partial_after_replica_restart, 60},
        {"partial_after_master_restart", partial_after_master_restart, 30},
        {"chain", chain, 60},
        {"progress_from_file", progress_from_file, 60},
        {"progress_through_pipe", progress_through_pipe, 120},
        {"command_line_dump", command_line_dump, 30},
        {"clients_elsewhere", clients_elsewhere, 60},
        {0},
    };
    return test_run("replication", cases, argc, argv);
}
