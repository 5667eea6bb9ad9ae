/* A background save that the server ends: the saver stops at once, nothing is
 * renamed, no temporary file stays, and the next save is as good as any. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS        3000
#define ROUNDS      60
#define SOAK_ROUNDS 1000
#define SLOW        "200" /* microseconds a key: more than half a second */
/* Of the first save of a server, after the number that the module hands out as pid. */
#define FIRST_TEMPORARY_FILE "temp-4194305.rdb"
/* A tick of the server is a tenth of a second; but a disk that is busy keeps the
 * saver waiting in the kernel, as it would a child. */
#define IDLE_SECONDS 5
#define CONFIG       FILL_CONFIG "appendonly yes\nauto-aof-rewrite-percentage 0\n"

static struct server *start(void)
{
    struct server *server = server_start(&(struct server_options){.config = CONFIG});
    server_ok(server, "SET old data");
    server_ok(server, "SAVE");
    server_ok(server, "DEBUG POPULATE %d key 300", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    return server;
}

static struct stat dump_of(struct server *server)
{
    struct stat dump;
    CHECK(stat(server_path(server, "dump.rdb"), &dump) == 0, "the old dump is gone");
    return dump;
}

static void check_untouched(struct server *server, const struct stat *before)
{
    struct stat now = dump_of(server);
    CHECK(now.st_ino == before->st_ino && now.st_size == before->st_size,
          "the old dump was replaced");
}

static void check_idle(struct server *server)
{
    wait_for_info(server, "rdb_bgsave_in_progress", "0", IDLE_SECONDS);
    wait_for_info(server, "aof_rewrite_in_progress", "0", IDLE_SECONDS);
    if (module_in_use())
        wait_for_info(server, "uffd_state", "idle", IDLE_SECONDS);
    check_no_temporary_file(server);
}

/* ---- what starts a save, and what ends it ---- */

static void start_save(struct server *server)
{
    server_save_start(server);
}

static void start_rewrite(struct server *server)
{
    server_ok(server, "BGREWRITEAOF");
}

/* Ends a save of the keyspace, not a rewrite. */
static void flush(struct server *server)
{
    server_ok(server, "FLUSHALL");
}

static void flush_later(struct server *server)
{
    server_ok(server, "FLUSHALL ASYNC");
}

static void switch_rewrite_off(struct server *server)
{
    server_config_set(server, "appendonly", "no");
}

static const struct {
    const char *name;
    void (*start)(struct server *server);
    void (*end)(struct server *server);
} kills[] = {
    {"save, FLUSHALL", start_save, flush},
    {"save, FLUSHALL ASYNC", start_save, flush_later},
    {"rewrite, appendonly no", start_rewrite, switch_rewrite_off},
};
#define KILLS (sizeof kills / sizeof kills[0])

static void make_good(struct server *server)
{
    server_config_set(server, "rdb-key-save-delay", "0");
    server_config_set(server, "appendonly", "yes");
    wait_until_no_child(server, 10);
    if (server_integer(server, "DBSIZE") < KEYS)
        server_ok(server, "DEBUG POPULATE %d key 300", KEYS);
}

static void at_random_moments(void)
{
    uint64_t seed = test_seed();
    struct server *server = start();
    int rounds = test_is_soak() ? SOAK_ROUNDS : ROUNDS;
    int finished = 0;
    double longest = 0;
    struct stat dump = dump_of(server);
    for (int i = 0; i < rounds; i++) {
        size_t kind = random_next(&seed) % KILLS;
        server_config_set(server, "rdb-key-save-delay", SLOW);
        kills[kind].start(server);
        /* Mostly while it saves, now and then while it begins or ends. */
        sleep_msec((long)(random_next(&seed) % (i % 4 ? 100 : 1000)));
        double began = clock_seconds();
        kills[kind].end(server);
        CHECK(clock_seconds() - began < IDLE_SECONDS, "%s: took %g seconds",
              kills[kind].name, clock_seconds() - began);
        check_idle(server);
        double took = clock_seconds() - began;
        longest = took > longest ? took : longest;
        struct stat now = dump_of(server);
        finished += now.st_ino != dump.st_ino;
        dump = now;
        make_good(server);
    }
    test_note("%d of %d saves had ended before they were killed; the longest end took "
              "%.0f ms",
              finished, rounds, longest * 1000);
    CHECK(finished < rounds / 2, "hardly any was killed");
    server_save(server);
    check_dump(server_path(server, "dump.rdb"), true);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the last dump is wrong");
    server_stop(server);
}

static void one_kill(void (*begin)(struct server *), void (*end)(struct server *))
{
    struct server *server = start();
    struct stat dump = dump_of(server);
    begin(server);
    sleep_msec(150);
    end(server);
    check_idle(server);
    check_untouched(server, &dump);
    make_good(server);
    server_save(server);
    server_stop(server);
}

static void flushall(void)
{
    one_kill(start_save, flush);
}

static void flushall_async(void)
{
    one_kill(start_save, flush_later);
}

static void appendonly_no(void)
{
    one_kill(start_rewrite, switch_rewrite_off);
}

static void reload(struct server *server)
{
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "DEBUG RELOAD NOSAVE");
}

/* The dump that it loads again is the old one. */
static void debug_reload(void)
{
    struct server *server = start();
    struct stat dump = dump_of(server);
    server_save_start(server);
    sleep_msec(150);
    reload(server);
    check_untouched(server, &dump);
    wait_until_no_child(server, 10);
    check_no_temporary_file(server);
    server_stop(server);
}

/* Taking the save points away is no reason to end a save that runs. */
static void save_points_removed(void)
{
    struct server *server = start();
    server_config_set(server, "save", "3600 1");
    server_save_start(server);
    server_ok(server, "CONFIG SET save %s", "");
    sleep_msec(100);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "it was ended");
    CHECK(server_save_wait(server), "the save failed");
    server_stop(server);
}

/* ---- before there is a file ---- */

/* Whether a temporary file was made since the directory is watched. */
static bool was_made(int watch)
{
    char events[4096] __attribute__((aligned(8)));
    ssize_t length = read(watch, events, sizeof events);
    for (char *at = events; length > 0 && at < events + length;) {
        struct inotify_event *event = (struct inotify_event *)at;
        if (strncmp(event->name, "temp-", 5) == 0)
            return true;
        at += sizeof *event + event->len;
    }
    return false;
}

/* A server that ends has looked for the file already: none may be made after that. */
static void killed_before_it_begins(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){.fault = "late_saver"});
    int watch = inotify_init1(IN_NONBLOCK);
    CHECK(inotify_add_watch(watch, server->directory, IN_CREATE) >= 0, "inotify");
    server_save_start(server);
    flush(server);
    check_idle(server);
    CHECK(!was_made(watch), "a temporary file was made");
    CHECK(server_info_number(server, "uffd_snapshots_cancelled") == 1, "not cancelled");
    server_ok(server, "UFFD.FAULT late_saver off");
    server_save(server);
    CHECK(was_made(watch), "the test does not see the file");
    server_stop(server);
}

/* A file system that does not answer: here a pipe is where the file is to be. */
static void file_cannot_be_made(void)
{
    needs_module();
    struct server *server = start();
    struct stat dump = dump_of(server);
    const char *pipe = server_path(server, FIRST_TEMPORARY_FILE);
    CHECK(mkfifo(pipe, 0600) == 0, "mkfifo");
    server_save_start(server);
    sleep_msec(100);
    double began = clock_seconds();
    flush(server);
    CHECK(clock_seconds() - began < 1, "FLUSHALL waits for the saver");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "it goes on");
    CHECK(open(pipe, O_RDONLY | O_NONBLOCK) >= 0, "open");
    check_idle(server);
    check_untouched(server, &dump);
    make_good(server);
    server_save(server);
    server_stop(server);
}

/* ---- the server ends ---- */

static void shut_down(void (*begin)(struct server *), const char *how)
{
    struct server *server = start();
    struct stat dump = dump_of(server);
    begin(server);
    sleep_msec(150);
    double began = clock_seconds();
    redisAppendCommand(server->connection, how);
    redisReply *reply;
    redisGetReply(server->connection, (void **)&reply);
    server->stopped = true;
    int code = server_wait_exit(server);
    CHECK(code == 0, "the exit code is %d", code);
    CHECK(clock_seconds() - began < 5, "it took %g seconds", clock_seconds() - began);
    check_no_temporary_file(server);
    if (strstr(how, "NOSAVE"))
        check_untouched(server, &dump);
    else
        check_dump(server_path(server, "dump.rdb"), true);
}

static void shutdown_nosave(void)
{
    shut_down(start_save, "SHUTDOWN NOSAVE");
}

static void shutdown_save(void)
{
    shut_down(start_save, "SHUTDOWN SAVE");
}

static void shutdown_now_force(void)
{
    shut_down(start_save, "SHUTDOWN NOSAVE NOW FORCE");
}

static void shutdown_while_rewriting(void)
{
    shut_down(start_rewrite, "SHUTDOWN NOSAVE FORCE");
}

/* With the file of commands on, a rewrite under way is given up. */
static void shutdown_save_while_rewriting(void)
{
    shut_down(start_rewrite, "SHUTDOWN SAVE");
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"flushall", flushall, 30},
        {"flushall_async", flushall_async, 30},
        {"appendonly_no", appendonly_no, 30},
        {"debug_reload", debug_reload, 30},
        {"save_points_removed", save_points_removed, 30},
        {"killed_before_it_begins", killed_before_it_begins, 30},
        {"file_cannot_be_made", file_cannot_be_made, 30},
        {"shutdown_nosave", shutdown_nosave, 30},
        {"shutdown_save", shutdown_save, 30},
        {"shutdown_now_force", shutdown_now_force, 30},
        {"shutdown_while_rewriting", shutdown_while_rewriting, 30},
        {"shutdown_save_while_rewriting", shutdown_save_while_rewriting, 30},
        {"at_random_moments", at_random_moments, test_is_soak() ? 3600 : 60},
        {0},
    };
    return test_run("kills", cases, argc, argv);
}
