/* Names that are made from a pid: whoever else uses the directory, another server or a
 * container in which every server is process 1, a crash, or somebody who plants what he
 * likes, has his files left alone, and no save fails for it. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"
#include "snapshot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROUNDS      2
#define SOAK_ROUNDS 100
#define COUNT       60
#define KEYS        1500
#define SLOW        "100" /* microseconds a key: two saves are at work at once */
/* The first number above those that the kernel gives to processes; with the fault point
 * "known_numbers" names have this one, the next, and so on. */
#define FIRST 4194305
#define ANOTHERS                                                                         \
    "what another has written, and more of it than fits into the first few "             \
    "bytes of a dump"

static int rounds(void)
{
    return test_is_soak() ? SOAK_ROUNDS : ROUNDS;
}

static const char *shared(const char *name)
{
    return format_text("%s/shared/%s", test_directory(), name);
}

/* ---- two servers in one directory ------------------------------------------------ */

struct sharer {
    struct server_options options;
    struct server *server;
    const char *dump;
    const char *reference; /* what SAVE has written */
};

static struct sharer sharer_start(char name, bool container)
{
    struct sharer sharer = {.dump = shared(format_text("%c.rdb", name)),
                            .reference = shared(format_text("%c.reference", name)),
                            .options.own_numbers = container};
    mkdir(shared(""), 0755);
    sharer.options.config =
        format_text(FILL_CONFIG "dir %s\ndbfilename %c.rdb\nappendonly yes\n"
                                "appenddirname aof-%c\nauto-aof-rewrite-percentage 0\n"
                                "repl-diskless-sync no\n",
                    shared(""), name, name);
    sharer.server = server_start(&sharer.options);
    server_ok(sharer.server, "DEBUG POPULATE %d %s 200", KEYS,
              name == 'a' ? "first" : "second");
    fill(sharer.server->connection, FILL_ALL, COUNT, test_seed() + (unsigned char)name);
    /* The first save looks keys up, to prove the layout, which moves a table that is being
     * resized a step on: its keys then have another order than SAVE's a moment before. */
    server_save(sharer.server);
    CHECK(unlink(sharer.dump) == 0, "no dump");
    return sharer;
}

static const char *temporary_in(const char *directory)
{
    struct server there = {.directory = format_text("%s", directory)};
    return server_temporary_file(&there);
}

static void check_nothing_left(void)
{
    const char *left = NULL;
    for (int i = 0; i < 100 && (left = temporary_in(shared(""))); i++)
        sleep_msec(3);
    CHECK(!left, "left behind: %s", left);
}

static void check_dump_of(struct sharer *sharer, int round)
{
    CHECK(server_save_wait(sharer->server), "round %d: a save failed", round);
    const char *difference = rdb_difference(sharer->reference, sharer->dump);
    CHECK(!difference, "round %d: %s differs: %s", round, sharer->dump, difference);
    CHECK(unlink(sharer->dump) == 0, "no dump");
}

static void save_at_once(struct sharer sharers[2], int round)
{
    for (int i = 0; i < 2; i++)
        save_twice_at_once(sharers[i].server, format_text("%c.reference", 'a' + i),
                           format_text("%c.rdb", 'a' + i), SLOW);
    for (int i = 0; i < 2; i++)
        check_dump_of(&sharers[i], round);
}

static void rewrite_at_once(struct sharer sharers[2], int round)
{
    for (int i = 0; i < 2; i++)
        server_ok(sharers[i].server, "BGREWRITEAOF");
    for (int i = 0; i < 2; i++) {
        wait_until_no_child(sharers[i].server, 30);
        const char *status = server_info(sharers[i].server, "aof_last_bgrewrite_status");
        CHECK(strcmp(status, "ok") == 0, "round %d: a rewrite failed", round);
    }
}

static void check_file_of(struct sharer *sharer)
{
    const char *digest = server_digest(sharer->server);
    server_stop(sharer->server);
    sharer->server = server_start(&sharer->options);
    CHECK(strcmp(server_digest(sharer->server), digest) == 0,
          "the AOF has brought back something else");
    server_stop(sharer->server);
}

static void share(bool containers)
{
    struct sharer sharers[2];
    for (int i = 0; i < 2; i++)
        sharers[i] = sharer_start((char)('a' + i), containers);
    for (int round = 0; round < rounds(); round++) {
        save_at_once(sharers, round);
        rewrite_at_once(sharers, round);
    }
    for (int i = 0; i < 2; i++)
        check_fork_free(sharers[i].server, 1 + 2 * rounds());
    check_nothing_left();
    for (int i = 0; i < 2; i++)
        check_file_of(&sharers[i]);
}

static void two_servers(void)
{
    share(false);
}

static void two_containers(void)
{
    share(true);
}

static void two_masters(void)
{
    struct sharer masters[2];
    struct server *replicas[2];
    for (int i = 0; i < 2; i++) {
        masters[i] = sharer_start((char)('a' + i), false);
        replicas[i] = server_start(
            &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    }
    for (int i = 0; i < 2; i++)
        replica_follow(replicas[i], masters[i].server);
    for (int i = 0; i < 2; i++) {
        replica_wait_link(replicas[i]);
        check_same_data(masters[i].server, replicas[i]);
        check_fork_free(masters[i].server, 2);
    }
    check_nothing_left();
}

/* ---- what lies there already ------------------------------------------------------ */

static const char *const patterns[] = {"temp-%d.rdb", "temp-rewriteaof-bg-%d.aof",
                                       "temp-rewriteaof-%d.aof"};
#define PATTERNS (sizeof patterns / sizeof *patterns)

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static const char *name_of(size_t pattern, int number)
{
    return format_text(patterns[pattern], number);
}
#pragma GCC diagnostic pop

static void plant_file(const char *path)
{
    FILE *file = fopen(path, "w");
    CHECK(file && fputs(ANOTHERS, file) >= 0 && fclose(file) == 0, "%s", path);
}

static void check_planted(const char *path)
{
    char text[sizeof(ANOTHERS) + 1] = "";
    FILE *file = fopen(path, "r");
    CHECK(file, "%s is gone", path);
    size_t length = fread(text, 1, sizeof(text) - 1, file);
    fclose(file);
    CHECK(length == strlen(ANOTHERS) && strcmp(text, ANOTHERS) == 0, "%s was changed",
          path);
}

/* Every other one a link to a file elsewhere. */
static void plant(struct server *server, int first, int count)
{
    const char *victim = format_text("%s/victim", test_directory());
    plant_file(victim);
    for (int number = first; number < first + count; number++)
        for (size_t i = 0; i < PATTERNS; i++) {
            const char *path = server_path(server, name_of(i, number));
            if ((number + (int)i) % 2)
                plant_file(path);
            else
                CHECK(symlink(victim, path) == 0, "%s", strerror(errno));
        }
}

/* All of it is there as it was; it is taken away. */
static void gather(struct server *server, int first, int count)
{
    check_planted(format_text("%s/victim", test_directory()));
    for (int number = first; number < first + count; number++)
        for (size_t i = 0; i < PATTERNS; i++) {
            const char *path = server_path(server, name_of(i, number));
            struct stat status;
            CHECK(lstat(path, &status) == 0, "%s is gone", path);
            CHECK(S_ISLNK(status.st_mode) == ((number + (int)i) % 2 == 0),
                  "%s is something else", path);
            check_planted(path);
            CHECK(unlink(path) == 0, "%s", path);
        }
    check_no_temporary_file(server);
}

#define AOF_CONFIG FILL_CONFIG "appendonly yes\nauto-aof-rewrite-percentage 0\n"

static struct server *start_with_aof(const char *fault)
{
    struct server *server =
        server_start(&(struct server_options){.config = AOF_CONFIG, .fault = fault});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    return server;
}

static void rewrite(struct server *server)
{
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 30);
    CHECK(strcmp(server_info(server, "aof_last_bgrewrite_status"), "ok") == 0,
          "the rewrite failed");
}

static struct server *check_aof(struct server *server, const char *fault)
{
    const char *digest = server_digest(server);
    server_stop(server);
    server = server_start(&(struct server_options){
        .config = AOF_CONFIG, .directory = server->directory, .fault = fault});
    CHECK(strcmp(server_digest(server), digest) == 0, "the AOF has something else");
    return server;
}

/* What a crash of this module's first versions has left, which took these names. */
static void leftovers(void)
{
    struct server *server = start_with_aof(NULL);
    plant(server, FIRST, 6);
    check_saved_both_ways(server);
    rewrite(server);
    server_config_set(server, "repl-diskless-sync", "no");
    struct server *replica = replica_start(
        server, &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    replica_wait_link(replica);
    check_same_data(server, replica);
    check_fork_free(server, 3);
    server_stop(replica);
    gather(server, FIRST, 6);
    server = check_aof(server, NULL);
    server_stop(server);
}

/* ---- names that are taken -------------------------------------------------------- */

static struct server *start_with_known_numbers(void)
{
    needs_module();
    return start_with_aof("known_numbers");
}

/* The pid was handed out before anybody could know: the file gets another name, and what
 * the server does by the pid's is done to that one. */
static void names_are_taken(void)
{
    struct server *server = start_with_known_numbers();
    plant(server, FIRST, 4);
    check_saved_both_ways(server);
    gather(server, FIRST, 4);
    plant(server, FIRST + 5, 3);
    rewrite(server);
    gather(server, FIRST + 5, 3);
    check_fork_free(server, 2);
    server = check_aof(server, "known_numbers");
    server_stop(server);
}

static void start_slow_save(struct server *server)
{
    server_ok(server, "DEBUG POPULATE %d key 100", 3 * KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_save_start(server);
    sleep_msec(100);
}

/* The server removes the temporary file of a child that it has killed, by its pid. */
static void taken_and_killed(void)
{
    struct server *server = start_with_known_numbers();
    plant(server, FIRST, 1);
    start_slow_save(server);
    CHECK(access(server_path(server, name_of(0, FIRST + 1)), F_OK) == 0, "no such file");
    server_ok(server, "FLUSHALL");
    wait_until_no_child(server, 10);
    gather(server, FIRST, 1);
    server_stop(server);
}

static void taken_and_shut_down(void)
{
    struct server *server = start_with_known_numbers();
    plant(server, FIRST, 1);
    start_slow_save(server);
    CHECK(access(server_path(server, name_of(0, FIRST + 1)), F_OK) == 0, "no such file");
    server_stop(server);
    gather(server, FIRST, 1);
}

/* No file was made: none is removed. */
static void taken_and_killed_early(void)
{
    struct server *server = start_with_known_numbers();
    plant(server, FIRST, 1);
    server_ok(server, "UFFD.FAULT held_saver on");
    server_save_start(server);
    server_ok(server, "FLUSHALL");
    wait_until_no_child(server, 10);
    CHECK(server_info_number(server, "uffd_snapshots_cancelled") == 1, "not cancelled");
    gather(server, FIRST, 1);
    server_stop(server);
}

/* A rewrite that fails: the server removes what its child has left. */
static void taken_and_failed(void)
{
    struct server *server = start_with_known_numbers();
    plant(server, FIRST, 1);
    server_ok(server, "UFFD.FAULT output_write on");
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 30);
    CHECK(strcmp(server_info(server, "aof_last_bgrewrite_status"), "err") == 0,
          "the rewrite did not fail");
    gather(server, FIRST, 1);
    server_ok(server, "UFFD.FAULT output_write off");
    rewrite(server);
    server = check_aof(server, NULL);
    server_stop(server);
}

/* The temporary file is replaced while it is written. */
static void replaced_while_saving(void)
{
    needs_module();
    struct server *server = start_with_aof(NULL);
    server_ok(server, "SAVE");
    const char *dump = server_path(server, "dump.rdb"), *old = server_path(server, "old");
    copy_file(dump, old);
    start_slow_save(server);
    const char *temporary = server_temporary_file(server);
    CHECK(temporary && unlink(temporary) == 0, "no temporary file");
    plant_file(temporary);
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(!server_save_wait(server), "the save succeeded");
    const char *reason = server_info(server, "uffd_last_error");
    CHECK(strstr(reason, "another file by now: temp-"), "the reason: %s", reason);
    CHECK(files_are_equal(old, dump), "the old dump was replaced");
    check_planted(temporary);
    CHECK(unlink(temporary) == 0, "%s", temporary);
    server_save(server);
    check_dump(dump, true);
    server_stop(server);
}

int main(int argc, char **argv)
{
    int limit = test_is_soak() ? 600 : 60;
    const struct test_case cases[] = {
        {"two_servers", two_servers, limit},
        {"two_containers", two_containers, limit},
        {"two_masters", two_masters, 30},
        {"leftovers", leftovers, 30},
        {"names_are_taken", names_are_taken, 30},
        {"taken_and_killed", taken_and_killed, 20},
        {"taken_and_shut_down", taken_and_shut_down, 20},
        {"taken_and_killed_early", taken_and_killed_early, 20},
        {"taken_and_failed", taken_and_failed, 30},
        {"replaced_while_saving", replaced_while_saving, 30},
        {0},
    };
    return test_run("names", cases, argc, argv);
}
