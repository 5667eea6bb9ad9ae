/* A background save that the server ends: the saver stops at once, nothing is
 * renamed, no temporary file stays, and the next save is as good as any. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"

#include <fcntl.h>
#include <signal.h>
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
/* A tick of the server is a tenth of a second; but a disk that is busy keeps the
 * saver waiting in the kernel, as it would a child. */
#define IDLE_SECONDS 5
/* With nothing in the way: a tick, and what it takes to find out. */
#define TICK_SECONDS 0.3
#define CONFIG                                                                           \
    FILL_CONFIG "appendonly yes\nauto-aof-rewrite-percentage 0\n"                        \
                "repl-diskless-sync-delay 0\n"

static struct server *start_with(const char *fault)
{
    struct server *server =
        server_start(&(struct server_options){.config = CONFIG, .fault = fault});
    server_ok(server, "SET old data");
    server_ok(server, "SAVE");
    server_ok(server, "DEBUG POPULATE %d key 300", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    return server;
}

static struct server *start(void)
{
    return start_with(NULL);
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

/* Valkey 8.1; an error when the save has ended meanwhile. */
static void cancel(struct server *server)
{
    server_command(server, "BGSAVE CANCEL");
}

static bool knows_cancel(struct server *server)
{
    return strstr(server_error(server, "BGSAVE CANCEL"), "not in progress");
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
    {"save, BGSAVE CANCEL", start_save, cancel}, /* the last: not every server has it */
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
    size_t kinds = KILLS - !knows_cancel(server);
    struct stat dump = dump_of(server);
    for (int i = 0; i < rounds; i++) {
        size_t kind = random_next(&seed) % kinds;
        server_config_set(server, "rdb-key-save-delay", SLOW);
        kills[kind].start(server);
        /* Mostly while it saves, now and then while it begins or ends. */
        sleep_msec((long)(random_next(&seed) % (i % 4 ? 100 : 1000)));
        double began = patient_seconds();
        kills[kind].end(server);
        CHECK(patient_seconds() - began < IDLE_SECONDS, "%s: took %g seconds",
              kills[kind].name, patient_seconds() - began);
        check_idle(server);
        double took = patient_seconds() - began;
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

/* Returns how long it took the server to be idle again. */
static double kill_once(struct server *server, void (*begin)(struct server *),
                        void (*end)(struct server *))
{
    struct stat dump = dump_of(server);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    begin(server);
    sleep_msec(150);
    double began = patient_seconds();
    end(server);
    check_idle(server);
    double seconds = patient_seconds() - began;
    check_untouched(server, &dump);
    make_good(server);
    return seconds;
}

/* A disk or CPU that others use may delay it now and then, but not each time. */
static void one_kill(void (*begin)(struct server *), void (*end)(struct server *))
{
    struct server *server = start();
    double shortest = IDLE_SECONDS;
    for (int i = 0; i < 5 && shortest > TICK_SECONDS; i++) {
        double seconds = kill_once(server, begin, end);
        shortest = seconds < shortest ? seconds : shortest;
    }
    test_note("idle %.0f ms after the kill", shortest * 1000);
    CHECK(shortest <= TICK_SECONDS, "it takes more than a tick");
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

static void bgsave_cancel(void)
{
    struct server *server = start();
    if (!knows_cancel(server))
        not_applicable("this server has no BGSAVE CANCEL");
    server_stop(server);
    one_kill(start_save, cancel);
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
    struct server *server = server_start(&(struct server_options){.fault = "held_saver"});
    int watch = inotify_init1(IN_NONBLOCK);
    CHECK(inotify_add_watch(watch, server->directory, IN_CREATE) >= 0, "inotify");
    server_save_start(server);
    flush(server);
    check_idle(server);
    CHECK(!was_made(watch), "a temporary file was made");
    CHECK(server_info_number(server, "uffd_snapshots_cancelled") == 1, "not cancelled");
    server_ok(server, "UFFD.FAULT held_saver off");
    server_save(server);
    CHECK(was_made(watch), "the test does not see the file");
    server_stop(server);
}

/* A file system that does not answer. */
static void file_cannot_be_made(void)
{
    needs_module();
    struct server *server = start_with("stuck_create");
    struct stat dump = dump_of(server);
    server_save_start(server);
    sleep_msec(100);
    double began = patient_seconds();
    flush(server);
    CHECK(patient_seconds() - began < 1, "FLUSHALL waits for the saver");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "it goes on");
    server_ok(server, "UFFD.FAULT stuck_create off");
    check_idle(server);
    check_untouched(server, &dump);
    make_good(server);
    server_save(server);
    server_stop(server);
}

/* ---- the server ends ---- */

/* Without waiting for an answer: there is none if it ends. */
static void send_shutdown(redisContext *connection, const char *how)
{
    int done = 0;
    redisAppendCommand(connection, how);
    while (!done)
        CHECK(redisBufferWrite(connection, &done) == REDIS_OK, "the server is gone");
}

static void wait_for_end(struct server *server)
{
    double began = patient_seconds();
    server->stopped = true;
    int code = server_wait_exit(server);
    CHECK(code == 0, "the exit code is %d", code);
    CHECK(patient_seconds() - began < 5, "it took %g seconds", patient_seconds() - began);
    check_no_temporary_file(server);
}

/* `begin` may be NULL: nothing is being saved. */
static void shut_down(void (*begin)(struct server *), const char *save_points,
                      const char *how, bool saves)
{
    struct server *server = start();
    struct stat dump = dump_of(server);
    server_ok(server, "CONFIG SET save %s", save_points);
    if (begin)
        begin(server);
    server_ok(server, "SET later value");
    const char *digest = server_digest(server);
    sleep_msec(150);
    send_shutdown(server->connection, how);
    wait_for_end(server);
    if (!saves) {
        check_untouched(server, &dump);
        return;
    }
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the last dump is wrong");
    check_dump(server_path(server, "dump.rdb"), true);
}

static void shutdown_nosave(void)
{
    shut_down(start_save, "3600 1", "SHUTDOWN NOSAVE", false);
}

static void shutdown_save(void)
{
    shut_down(start_save, "", "SHUTDOWN SAVE", true);
}

static void shutdown_now_force(void)
{
    shut_down(start_save, "", "SHUTDOWN NOSAVE NOW FORCE", false);
}

static void shutdown_while_rewriting(void)
{
    shut_down(start_rewrite, "", "SHUTDOWN NOSAVE FORCE", false);
}

/* With the file of commands on, a rewrite under way is given up. */
static void shutdown_save_while_rewriting(void)
{
    shut_down(start_rewrite, "", "SHUTDOWN SAVE", true);
}

static void shutdown_with_save_points(void)
{
    shut_down(start_save, "3600 1", "SHUTDOWN", true);
}

static void shutdown_without_save_points(void)
{
    shut_down(start_save, "", "SHUTDOWN", false);
}

static void shutdown_save_when_idle(void)
{
    shut_down(NULL, "", "SHUTDOWN SAVE", true);
}

/* The saver is killed, the server's own save fails: it stays, and so does the dump. */
static void shutdown_that_cannot_save(void)
{
    struct server *server = start();
    const char *gone = server_path(server, "gone");
    if (server->has_module) /* not below `gone`: a save would be the server's own */
        server_config_set(server, "uffd.spool-dir", server->directory);
    server_config_set(server, "appendonly", "no");
    server_config_set(server, "stop-writes-on-bgsave-error", "no");
    struct stat dump = dump_of(server);
    CHECK(mkdir(gone, 0755) == 0, "mkdir");
    server_config_set(server, "dir", gone);
    server_save_start(server);
    sleep_msec(150);
    CHECK(run_program(NULL, (const char *[]){"rm", "-r", gone, NULL}) == 0, "rm");
    server_error(server, "SHUTDOWN SAVE");
    check_idle(server);
    CHECK(server_log_lines(server, "can't exit") == 1, "not logged");
    server_config_set(server, "dir", server->directory);
    check_untouched(server, &dump);
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save(server);
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, server_digest(server)) == 0, "the dump is wrong");
    server_stop(server);
}

/* The server waits for a replica that stands still; told not to end, it goes on with
 * the save that has been running all the time. */
static void shutdown_aborted(void)
{
    struct server *server = start();
    struct server *replica = replica_start(server, NULL);
    server_config_set(server, "rdb-key-save-delay", "0");
    replica_wait_link(replica);
    wait_until_no_child(server, 10);
    kill(replica->pid, SIGSTOP);
    server_ok(server, "SET later value");
    const char *digest = server_digest(server);
    server_config_set(server, "rdb-key-save-delay", "400");
    server_save_start(server);
    redisContext *ending = server_connect(server);
    send_shutdown(ending, "SHUTDOWN SAVE");
    sleep_msec(300);
    CHECK(server_info_number(server, "shutdown_in_milliseconds") > 0, "it does not wait");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "the save is over");
    server_ok(server, "SHUTDOWN ABORT");
    redisReply *reply;
    CHECK(redisGetReply(ending, (void **)&reply) == REDIS_OK &&
              reply->type == REDIS_REPLY_ERROR,
          "SHUTDOWN was not answered with an error");
    CHECK(server_save_wait(server), "the save failed");
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
    kill(replica->pid, SIGCONT);
    server_stop(replica);
    server_stop(server);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"flushall", flushall, 30},
        {"flushall_async", flushall_async, 30},
        {"appendonly_no", appendonly_no, 30},
        {"bgsave_cancel", bgsave_cancel, 30},
        {"debug_reload", debug_reload, 30},
        {"save_points_removed", save_points_removed, 30},
        {"killed_before_it_begins", killed_before_it_begins, 30},
        {"file_cannot_be_made", file_cannot_be_made, 30},
        {"shutdown_nosave", shutdown_nosave, 30},
        {"shutdown_save", shutdown_save, 30},
        {"shutdown_now_force", shutdown_now_force, 30},
        {"shutdown_while_rewriting", shutdown_while_rewriting, 30},
        {"shutdown_save_while_rewriting", shutdown_save_while_rewriting, 30},
        {"shutdown_with_save_points", shutdown_with_save_points, 30},
        {"shutdown_without_save_points", shutdown_without_save_points, 30},
        {"shutdown_save_when_idle", shutdown_save_when_idle, 30},
        {"shutdown_that_cannot_save", shutdown_that_cannot_save, 30},
        {"shutdown_aborted", shutdown_aborted, 30},
        {"at_random_moments", at_random_moments, test_is_soak() ? 3600 : 60},
        {0},
    };
    return test_run("kills", cases, argc, argv);
}
