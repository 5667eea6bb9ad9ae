/* Slots that the server migrates by itself (Valkey 9): a node that is importing some has
 * keys that it does not own up to yet, and its saves have them too, apart from the
 * others. */
#include "fill.h"
#include "nodes.h"
#include "replicas.h"
#include "snapshot.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define COUNT        150
#define KEYS         2500
#define SLOW         "700" /* microseconds a key */
#define WRITE_ROUNDS 40

/* No pings: they would move the offset, which the file has, between two saves. */
#define NODE_CONFIG FILL_CONFIG "cluster-databases 4\nrepl-ping-replica-period 3600\n"
/* For what loads a file, or follows. */
#define LONE_CONFIG CLUSTER_CONFIG NODE_CONFIG

#define HALF      "8192 16383"
#define SOME      "0 2000 4000 4999"
#define MORE      "6000 6000 7000 7999"
#define ARRIVED   "waiting-for-paused "
#define SOME_SLOT 4500 /* of SOME */

/* ---- an import that does not end ---- */

static void start(struct server *both[2], const char *config, const char *fault)
{
    needs_migrations();
    nodes_start_two(both, format_text("%s%s", NODE_CONFIG, config), fault);
}

static void fill_first(struct server *both[2])
{
    fill(both[0]->connection, FILL_ALL, COUNT, test_seed());
    server_ok(both[0], "SELECT 2");
    fill(both[0]->connection, FILL_ALL - FILL_FUNCTIONS, COUNT / 3, test_seed() + 1);
    server_ok(both[0], "SELECT 0");
}

static void hold(struct server *both[2], bool held)
{
    server_ok(both[0], "DEBUG SLOTMIGRATION PREVENT-PAUSE %d", held);
}

/* Half of the slots are the second node's; some more are there, but not its own yet. */
static void start_importing(struct server *both[2], const char *config)
{
    start(both, config, NULL);
    fill_first(both);
    migrate(both, HALF);
    wait_for_migrations(both[1], "success ");
    hold(both, true);
    migrate(both, SOME);
    migrate(both, MORE);
    wait_for_migrations(both[1], ARRIVED ARRIVED "success ");
}

static void end_importing(struct server *both[2])
{
    hold(both, false);
    wait_for_migrations(both[1], "success success success ");
}

static void stop(struct server *both[2])
{
    server_stop(both[0]);
    server_stop(both[1]);
}

/* ---- files ---- */

static bool file_has(const char *path, const char *text)
{
    static char bytes[1 << 20];
    FILE *file = fopen(path, "r");
    CHECK(file, "%s cannot be read", path);
    size_t length = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    return memmem(bytes, length, text, strlen(text));
}

/* And the imports and their keys are in it: who loads it without knowing another node
 * takes the slots for its own. */
static void identity(void)
{
    struct server *both[2];
    start_importing(both, "");
    const char *digest = server_digest(both[1]);
    const char *file = check_saved_both_ways(both[1]);
    CHECK(file_has(file, migration_name(both[1])),
          "the file does not tell of the import");
    const char *loaded = dump_digest(file, LONE_CONFIG);
    end_importing(both);
    CHECK(strcmp(digest, server_digest(both[1])) != 0, "no keys were being imported");
    CHECK(loaded && strcmp(loaded, server_digest(both[1])) == 0,
          "loaded, the file has %s, the node in the end %s", loaded ? loaded : "nothing",
          server_digest(both[1]));
    CHECK(!file_has(check_saved_both_ways(both[1]), migration_name(both[1])),
          "the import is still in the file");
    check_fork_free(both[1], 2);
    stop(both);
}

/* What is known of the server's memory has nothing yet to be proved by but the keys that
 * are being imported. */
static void nothing_else(void)
{
    struct server *both[2];
    start(both, "", NULL);
    fill_first(both);
    hold(both, true);
    migrate(both, SOME);
    wait_for_migrations(both[1], ARRIVED);
    CHECK(server_integer(both[1], "DBSIZE") == 0, "the node has keys of its own");
    const char *file = check_saved_both_ways(both[1]);
    CHECK(file_has(file, migration_name(both[1])),
          "the file does not tell of the import");
    hold(both, false);
    wait_for_migrations(both[1], "success ");
    CHECK(server_integer(both[1], "DBSIZE") > 0, "nothing was imported");
    check_saved_both_ways(both[1]);
    check_fork_free(both[1], 2);
    stop(both);
}

/* … which would be lost if they lay elsewhere: there is nothing else to judge by. */
static void elsewhere(void)
{
    struct server *both[2];
    needs_module();
    start(both, "", "moved_keyspace");
    fill_first(both);
    hold(both, true);
    migrate(both, SOME);
    wait_for_migrations(both[1], ARRIVED);
    check_saved_both_ways(both[1]);
    CHECK(server_info_number(both[1], "uffd_fork_fallbacks") == 1, "it saved by itself");
    const char *why = server_info(both[1], "uffd_last_fallback_reason");
    CHECK(strstr(why, "are not where they should be"), "the reason is %s", why);
    stop(both);
}

/* The base file, which has been written by a thread and then by a fork. */
static const char *base_file(struct server *server)
{
    const char *found = NULL, *path = server_path(server, "appendonlydir");
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 30);
    DIR *directory = opendir(path);
    CHECK(directory, "there is no %s", path);
    for (struct dirent *entry; (entry = readdir(directory));)
        if (strstr(entry->d_name, "base.rdb"))
            found = format_text("%s/%s", path, entry->d_name);
    closedir(directory);
    char *copy = server_path(
        server, format_text("%s-base.rdb", server_info(server, "total_forks")));
    CHECK(found, "there is no base file");
    copy_file(found, copy);
    return copy;
}

static void rewrite(void)
{
    struct server *both[2];
    needs_module();
    start_importing(both, "appendonly yes\nauto-aof-rewrite-percentage 0\n");
    const char *own = base_file(both[1]);
    check_fork_free(both[1], 1);
    server_config_set(both[1], "uffd.enabled", "no");
    const char *difference = rdb_difference(own, base_file(both[1]));
    CHECK(!difference, "with and without fork: %s", difference);
    CHECK(file_has(own, migration_name(both[1])), "the file does not tell of the import");
    stop(both);
}

/* ---- while the keys change ---- */

/* What a key has between braces to be in that slot. */
static const char *tag_of_slot(struct server *server)
{
    for (int i = 0;; i++)
        if (server_integer(server, "CLUSTER KEYSLOT %d", i) == SOME_SLOT)
            return format_text("%d", i);
}

static void write_round(struct server *server, const char *tag, int round)
{
    for (int i = 0; i < KEYS; i += WRITE_ROUNDS) {
        int key = i + round;
        server_ok(server, "SET {%s}:%d changed-%d", tag, key, round);
        server_ok(server, "DEL {%s}:%d", tag, (key + KEYS / 2) % KEYS);
        server_ok(server, "SET {%s}:new:%d %d EX 1000", tag, key, round);
    }
}

/* What arrives while the save runs is not in the file; what it overwrites is. In one
 * database: Valkey 9.1.2 applies changes to the one with which the snapshot ended. */
static void changing(void)
{
    struct server *both[2];
    start(both, "", NULL);
    const char *tag = tag_of_slot(both[0]);
    fill(both[0]->connection, FILL_ALL, COUNT, test_seed());
    for (int i = 0; i < KEYS; i++)
        server_ok(both[0], "SET {%s}:%d before", tag, i);
    migrate(both, HALF);
    wait_for_migrations(both[1], "success ");
    hold(both, true);
    migrate(both, SOME);
    wait_for_migrations(both[1], ARRIVED "success ");
    server_config_set(both[1], "rdb-key-save-delay", SLOW);
    struct snapshot snapshot = snapshot_begin(both[1]);
    for (int round = 0; round < WRITE_ROUNDS; round++)
        write_round(both[0], tag, round);
    WAIT_UNTIL(server_integer(both[1], "CLUSTER COUNTKEYSINSLOT %d", SOME_SLOT) ==
                   server_integer(both[0], "CLUSTER COUNTKEYSINSLOT %d", SOME_SLOT),
               10, "the changes do not arrive");
    CHECK(server_info_number(both[1], "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
    server_config_set(both[1], "rdb-key-save-delay", "0");
    snapshot_check_file(&snapshot);
    check_fork_free(both[1], 1);
    stop(both);
}

/* ---- an import that fails ---- */

/* The source stops amid its snapshot, and dies: then its keys are removed. */
static void given_up(void)
{
    struct server *both[2];
    start(both, "", NULL);
    const char *tag = tag_of_slot(both[0]);
    fill_first(both);
    for (int i = 0; i < 40; i++)
        fill_large(both[0]->connection, format_text("{%s}:%d", tag, i), 4 << 20, false,
                   test_seed() + (uint64_t)i);
    migrate(both, HALF);
    wait_for_migrations(both[1], "success ");
    migrate(both, SOME);
    while (server_integer(both[1], "CLUSTER COUNTKEYSINSLOT %d", SOME_SLOT) < 3)
        ;
    kill(both[0]->pid, SIGSTOP);
    sleep_msec(100);
    long long arrived = server_integer(both[1], "CLUSTER COUNTKEYSINSLOT %d", SOME_SLOT);
    CHECK(arrived < 40, "the import was over too soon for the case to show anything");
    wait_for_migrations(both[1], "receiving-snapshot success ");
    const char *file = check_saved_both_ways(both[1]);
    CHECK(file_has(file, migration_name(both[1])),
          "the file does not tell of the import");
    server_config_set(both[1], "rdb-key-save-delay", SLOW);
    struct snapshot snapshot = snapshot_begin(both[1]);
    server_kill(both[0]);
    wait_for_migrations(both[1], "failed success ");
    CHECK(server_integer(both[1], "CLUSTER COUNTKEYSINSLOT %d", SOME_SLOT) == 0,
          "what was imported is still there");
    server_config_set(both[1], "rdb-key-save-delay", "0");
    snapshot_check_file(&snapshot);
    check_saved_both_ways(both[1]);
    check_fork_free(both[1], 3);
    server_stop(both[1]);
}

/* ---- replicas ---- */

/* A replica that comes amid an import has the keys, and shows them when the import is
 * over; it saves as its master does. */
static void replica_during_import(const char *config)
{
    struct server *both[2];
    start_importing(both, config);
    struct server *replica = server_start(
        &(struct server_options){.config = format_text("%s%s", LONE_CONFIG, config)});
    nodes_meet(both[1], replica);
    server_ok(replica, "CLUSTER REPLICATE %s", server_text(both[1], "CLUSTER MYID"));
    replica_wait_link(replica);
    wait_until_no_child(both[1], 10);
    check_same_data(both[1], replica);
    check_fork_free(both[1], 1);
    CHECK(file_has(check_saved_both_ways(replica), migration_name(both[1])),
          "the replica does not know of the import");
    check_fork_free(replica, (int)server_info_number(replica, "total_forks"));
    const char *before = server_digest(replica);
    end_importing(both);
    check_same_data(both[1], replica);
    CHECK(strcmp(before, server_digest(replica)) != 0, "no keys were being imported");
    server_stop(replica);
    stop(both);
}

static void replica_from_file(void)
{
    replica_during_import("repl-diskless-sync no\n");
}

static void replica_through_pipe(void)
{
    each_diskless_way(replica_during_import, DISKLESS_CONFIG);
}

/* ---- the other side ---- */

/* The source needs a child, which it does not get; and then it does. */
static void migration_refused(void)
{
    needs_module();
    struct server *both[2];
    start(both, "", NULL);
    for (int i = 0; i < KEYS; i++)
        server_ok(both[0], "SET key:%d %d", i, i);
    server_config_set(both[0], "uffd.fallback", "no");
    migrate(both, SOME);
    wait_for_migrations(both[0], "failed ");
    migrate(both, SOME);
    wait_for_migrations(both[0], "failed failed ");
    CHECK(server_integer(both[0], "DBSIZE") == KEYS, "keys are gone");
    server_config_set(both[0], "uffd.fallback", "yes");
    migrate(both, SOME);
    wait_for_migrations(both[0], "success failed failed ");
    CHECK(server_integer(both[1], "DBSIZE") > 0, "nothing has moved");
    CHECK(server_integer(both[0], "DBSIZE") + server_integer(both[1], "DBSIZE") == KEYS,
          "keys are gone");
    stop(both);
}

/* The source's own saves are as ever while slots leave it. */
static void source(void)
{
    struct server *both[2];
    start_importing(both, "");
    WAIT_UNTIL(!server_children(both[0]), 10, "the source's child does not end");
    check_saved_both_ways(both[0]);
    end_importing(both);
    stop(both);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"identity", identity, 60},
        {"nothing_else", nothing_else, 60},
        {"elsewhere", elsewhere, 60},
        {"rewrite", rewrite, 60},
        {"changing", changing, 60},
        {"given_up", given_up, 60},
        {"replica_from_file", replica_from_file, 60},
        {"replica_through_pipe", replica_through_pipe, 120},
        {"source", source, 60},
        {"migration_refused", migration_refused, 60},
        {0},
    };
    return test_run("slots", cases, argc, argv);
}
