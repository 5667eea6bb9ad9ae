/* UFFD.BACKUP: exact as every other save, believed only when checked, and nothing of what the
 * server remembers of its own saves is touched. Whatever goes wrong costs the backup only. */
#include "answers.h"
#include "fill.h"
#include "overwriter.h"
#include "privacy.h"
#include "snapshot.h"
#include "writers.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT 60
/* Twice what the least buffer can hold. */
#define SLOW_KEYS 9000
#define BUSY_KEYS 1000
/* So that a backup takes seconds: microseconds a key. */
#define SLOW "2000"

static struct server *start_with(const char *module_arguments)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG "save \"\"\n",
                                              .module_arguments = module_arguments,
                                              .fault = ""});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    return server;
}

static struct server *start(void)
{
    return start_with(NULL);
}

/* A second connection, for while the first one waits. */
static struct server beside(struct server *server)
{
    struct server other = *server;
    other.connection = server_connect(server);
    return other;
}

/* ---- what is asked ---------------------------------------------------------------- */

static const char *status(struct server *server, const char *field)
{
    redisReply *value = answer_field(server_ok(server, "UFFD.BACKUP STATUS"), field);
    return value->type == REDIS_REPLY_INTEGER ? format_text("%lld", value->integer)
                                              : value->str;
}

static void check_state(struct server *server, const char *state)
{
    CHECK(strcmp(status(server, "state"), state) == 0, "%s: %s", status(server, "state"),
          status(server, "reason"));
    CHECK(strcmp(server_info(server, "uffd_backup_state"), state) == 0, "INFO: %s",
          server_info(server, "uffd_backup_state"));
}

static void wait_for_state(struct server *server, const char *state)
{
    WAIT_UNTIL(strcmp(status(server, "state"), "running") != 0, 30, "it does not end");
    check_state(server, state);
}

static void check_failed(struct server *server, const char *reason)
{
    wait_for_state(server, "failed");
    CHECK(strstr(status(server, "reason"), reason), "%s", status(server, "reason"));
}

/* Starts one that takes its time. */
static void start_slow(struct server *server, const char *arguments)
{
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_ok(server, format_text("UFFD.BACKUP %s", arguments));
    server_config_set(server, "rdb-key-save-delay", "0");
    check_state(server, "running");
}

static void cancel(struct server *server)
{
    server_ok(server, "UFFD.BACKUP CANCEL");
    wait_for_state(server, "cancelled");
}

/* ---- what must be there ----------------------------------------------------------- */

static bool exists(struct server *server, const char *name)
{
    return access(server_path(server, name), F_OK) == 0;
}

static void check_nothing_left(const char *directory)
{
    DIR *entries = opendir(directory);
    CHECK(entries, "%s", directory);
    for (struct dirent *entry; (entry = readdir(entries));)
        CHECK(strncmp(entry->d_name, "temp-", 5) != 0, "%s is left", entry->d_name);
    closedir(entries);
}

/* SAVE to reference.rdb and a backup at the same instant: sent in one go, so that the server
 * does nothing between them. NULL, or the backup's error. */
static const char *try_both(struct server *server, const char *arguments)
{
    const char *const commands[] = {
        "CONFIG SET rdb-key-save-delay 0",
        "CONFIG SET dbfilename reference.rdb",
        "SAVE",
        "CONFIG SET dbfilename dump.rdb",
        "CONFIG SET rdb-key-save-delay 200",
        format_text("UFFD.BACKUP %s", arguments),
        "CONFIG SET rdb-key-save-delay 0",
    };
    wait_until_proved(server);
    return server_error_at_once(server, commands, sizeof commands / sizeof commands[0]);
}

/* The file of the SAVE. */
static const char *save_and_backup(struct server *server, const char *arguments)
{
    const char *error = try_both(server, arguments);
    CHECK(!error, "%s", error);
    return server_path(server, "reference.rdb");
}

static void check_same(const char *reference, const char *backup)
{
    const char *difference = rdb_difference(reference, backup);
    CHECK(!difference, "%s", difference);
    check_dump(backup, true);
}

static char *unpacked(const char *path)
{
    char *to = format_text("%s.unpacked", path);
    const char *words[] = {"lz4", "-d", "-q", path, to, NULL};
    int code = run_program(NULL, words);
    if (code == 127)
        skip("there is no lz4");
    CHECK(code == 0, "lz4 refuses %s", path);
    return to;
}

/* ---- files ------------------------------------------------------------------------ */

static void identity(void)
{
    struct server *server = start();
    const char *reference = save_and_backup(server, "quiet.rdb WAIT");
    check_same(reference, server_path(server, "quiet.rdb"));
    const char *digest = dump_digest(server_path(server, "quiet.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "other data");
    reference = save_and_backup(server, "quiet.lz4 COMPRESS lz4 WAIT");
    check_same(reference, unpacked(server_path(server, "quiet.lz4")));
    check_nothing_left(server->directory);
    server_stop(server);
}

/* A backup while all of the data is written to: what differs, NULL if nothing does. */
static const char *busy_difference(struct server *server)
{
    uint64_t seed = test_seed();
    json_fill(server->connection, BUSY_KEYS, 200, seed);
    struct writers *writers = writers_start(server, 3, COUNT, seed);
    struct overwriter *overwriter =
        overwriter_start(server, BUSY_KEYS, 200, OVERWRITE_SET, seed);
    const char *difference = try_both(server, "busy.rdb WAIT");
    if (!difference)
        difference = rdb_difference(server_path(server, "reference.rdb"),
                                    server_path(server, "busy.rdb"));
    CHECK(overwriter_stop(overwriter, NULL) > 0 && writers_stop(writers) > 0,
          "nobody has written");
    return difference;
}

static void under_writers(void)
{
    struct server *server = start();
    const char *difference = busy_difference(server);
    CHECK(!difference, "%s", difference);
    check_dump(server_path(server, "busy.rdb"), true);
    CHECK(server_info_number(server, "uffd_last_pages_preserved") > 0, "no writes");
    server_stop(server);
}

/* The case above can fail. */
static void found_without_preserving(void)
{
    struct server *server = start();
    server_ok(server, "UFFD.FAULT skip_preserve on");
    server_ok(server, "UFFD.FAULT no_audit on");
    server->may_crash = true;
    const char *difference = busy_difference(server);
    CHECK(difference, "nothing was found");
    test_note("%s", difference);
    server_stop(server);
}

static const char *const remembered[] = {
    "rdb_changes_since_last_save", "rdb_last_save_time", "rdb_last_bgsave_status",
    "rdb_last_bgsave_time_sec",    "rdb_last_cow_size",  "uffd_forks_replaced",
    "uffd_snapshots_ok",           "total_forks"};
#define REMEMBERED (sizeof remembered / sizeof remembered[0])

static void bookkeeping_is_untouched(void)
{
    struct server *server = start();
    server_ok(server, "SAVE");
    server_ok(server, "SET one more");
    struct stat before, after;
    CHECK(stat(server_path(server, "dump.rdb"), &before) == 0, "dump.rdb");
    const char *values[REMEMBERED];
    for (size_t i = 0; i < REMEMBERED; i++)
        values[i] = server_info(server, remembered[i]);
    long long saved = server_integer(server, "LASTSAVE");
    sleep_msec(1100);
    start_slow(server, "elsewhere.rdb");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 0, "the server knows");
    CHECK(server_children(server) == 0, "a child");
    WAIT_UNTIL(atoll(status(server, "keys")) > 0, 10, "no progress");
    CHECK(atoll(status(server, "keys_total")) == server_integer(server, "DBSIZE"),
          "keys_total");
    wait_for_state(server, "ok");
    CHECK(atoll(status(server, "keys")) == server_integer(server, "DBSIZE"), "keys");
    for (size_t i = 0; i < REMEMBERED; i++)
        CHECK(!values[i] || strcmp(values[i], server_info(server, remembered[i])) == 0,
              "%s: %s, was %s", remembered[i], server_info(server, remembered[i]),
              values[i]);
    CHECK(server_integer(server, "LASTSAVE") == saved, "LASTSAVE");
    CHECK(strcmp(server_config_get(server, "dbfilename"), "dump.rdb") == 0, "dbfilename");
    CHECK(stat(server_path(server, "dump.rdb"), &after) == 0 &&
              before.st_ino == after.st_ino && before.st_mtime == after.st_mtime,
          "dump.rdb was written");
    CHECK(server_info_number(server, "uffd_backups_ok") == 1, "uffd_backups_ok");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

static void replaces_dumps_only(void)
{
    static const struct {
        const char *name, *reason;
    } refused[] = {
        {"there.rdb", "REPLACE?"},
        {"dump.rdb REPLACE", "the server's own dump"},
        {"users.acl REPLACE", "is no dump"},
        {"link.rdb REPLACE", "neither a file nor a fifo"},
        {"folder REPLACE", "neither a file nor a fifo"},
    };
    struct server *server = start();
    server_ok(server, "SAVE");
    copy_file(server_path(server, "dump.rdb"), server_path(server, "there.rdb"));
    copy_file("/etc/passwd", server_path(server, "users.acl"));
    CHECK(symlink("dump.rdb", server_path(server, "link.rdb")) == 0 &&
              mkdir(server_path(server, "folder"), 0755) == 0,
          "symlink, mkdir");
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        const char *error =
            server_error(server, format_text("UFFD.BACKUP %s", refused[i].name));
        CHECK(strstr(error, refused[i].reason), "%s: %s", refused[i].name, error);
        check_failed(server, refused[i].reason);
    }
    CHECK(files_are_equal(server_path(server, "users.acl"), "/etc/passwd") &&
              files_are_equal(server_path(server, "dump.rdb"),
                              server_path(server, "there.rdb")),
          "a file was changed");
    server_ok(server, "DEBUG POPULATE 10 more");
    check_same(save_and_backup(server, "there.rdb REPLACE WAIT"),
               server_path(server, "there.rdb"));
    server_ok(server, "UFFD.BACKUP packed COMPRESS lz4 WAIT");
    server_ok(server, "UFFD.BACKUP packed REPLACE WAIT");
    check_nothing_left(server->directory);
    server_stop(server);
}

static void keeps_to_its_rate(void)
{
    struct server *server = start();
    fill_large(server->connection, "large", 1 << 20, false, 1);
    double began = clock_seconds();
    server_ok(server, "UFFD.BACKUP slow.rdb WAIT RATE 2mb");
    double took = clock_seconds() - began;
    CHECK(took > 0.45, "%.2f s for a megabyte", took);
    check_dump(server_path(server, "slow.rdb"), true);
    server_stop(server);
}

static void disk_full(void)
{
    mounts_become_private();
    const char *directory = mount_small("1m");
    struct server *server = start_with(format_text("backup-dir %s", directory));
    fill_large(server->connection, "too-large", 4 << 20, false, 1);
    const char *error = server_error(server, "UFFD.BACKUP full.rdb WAIT");
    CHECK(strstr(error, "No space left on device, writing temp-backup-"), "%s", error);
    check_nothing_left(directory);
    CHECK(access(format_text("%s/full.rdb", directory), F_OK) != 0, "published");
    server_ok(server, "DEL too-large");
    server_ok(server, "UFFD.BACKUP full.rdb WAIT");
    check_dump(format_text("%s/full.rdb", directory), true);
    server_stop(server);
}

/* ---- fifos ------------------------------------------------------------------------ */

static const char *make_fifo(struct server *server, const char *name)
{
    const char *path = server_path(server, name);
    CHECK(mkfifo(path, 0666) == 0, "mkfifo: %s", strerror(errno));
    return path;
}

/* `delay`: seconds before it opens the fifo, and before it reads the first byte. */
static pid_t reader_start(const char *fifo, const char *copy, const char *delay)
{
    pid_t reader = fork();
    CHECK(reader >= 0, "fork");
    if (reader)
        return reader;
    execlp("sh", "sh", "-c", "sleep $3; exec <\"$1\"; sleep $3; exec cat >\"$2\"", "sh",
           fifo, copy, delay, NULL);
    _exit(127);
}

static void into_fifo(void)
{
    struct server *server = start();
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy");
    pid_t reader = reader_start(fifo, copy, "0.2");
    const char *reference = save_and_backup(server, "fifo WAIT");
    waitpid(reader, NULL, 0);
    check_same(reference, copy);
    reader = reader_start(fifo, copy, "0");
    reference = save_and_backup(server, "fifo COMPRESS lz4 WAIT");
    waitpid(reader, NULL, 0);
    check_same(reference, unpacked(copy));
    server_stop(server);
}

/* What it does not take is held within the limit, the rest is in the spool. */
static void slow_reader(void)
{
    struct server *server = start_with("buffer-limit 4mb compression no");
    uint64_t seed = test_seed();
    json_fill(server->connection, SLOW_KEYS, 1000, seed);
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy");
    pid_t reader = reader_start(fifo, copy, "0.5");
    const char *reference = save_and_backup(server, "fifo");
    struct overwriter *overwriter =
        overwriter_start(server, SLOW_KEYS, 1000, OVERWRITE_IN_PLACE, seed);
    wait_for_state(server, "ok");
    overwriter_stop(overwriter, NULL);
    waitpid(reader, NULL, 0);
    check_same(reference, copy);
    CHECK(server_info_number(server, "uffd_buffer_peak_bytes") <= 4 << 20, "the limit");
    CHECK(server_info_number(server, "uffd_last_spool_peak_bytes") > 0, "no spool");
    server_stop(server);
}

static void reader_goes(void)
{
    struct server *server = start();
    fill_large(server->connection, "large", 4 << 20, false, 1);
    int reader = open(make_fifo(server, "fifo"), O_RDONLY | O_NONBLOCK);
    server_ok(server, "UFFD.BACKUP fifo");
    check_state(server, "running");
    close(reader);
    check_failed(server, "Broken pipe, writing to the fifo");
    server_ok(server, "UFFD.BACKUP after.rdb WAIT");
    server_stop(server);
}

static void reader_does_not_come(void)
{
    struct server *server = start();
    make_fifo(server, "fifo");
    server_ok(server, "UFFD.FAULT no_patience on");
    const char *error = server_error(server, "UFFD.BACKUP fifo");
    CHECK(strstr(error, "nobody has opened the fifo"), "%s", error);
    server_ok(server, "UFFD.FAULT no_patience off");
    /* Nor is a CANCEL kept waiting for it. */
    struct server other = beside(server);
    redisAppendCommand(server->connection, "UFFD.BACKUP fifo");
    int done = 0;
    while (!done)
        redisBufferWrite(server->connection, &done);
    WAIT_UNTIL(strcmp(status(&other, "state"), "running") == 0, 5, "not begun");
    cancel(&other);
    redisReply *reply;
    CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK &&
              reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "cancelled"),
          "the client that waits");
    server_stop(server);
}

static void reader_stands_still(void)
{
    struct server *server = start();
    fill_large(server->connection, "large", 1 << 20, false, 1);
    int reader = open(make_fifo(server, "fifo"), O_RDONLY | O_NONBLOCK);
    server_ok(server, "UFFD.FAULT no_patience on");
    server_ok(server, "UFFD.BACKUP fifo");
    check_failed(server, "writing to the fifo");
    close(reader);
    server_stop(server);
}

/* ---- its end ---------------------------------------------------------------------- */

static void cancelled(void)
{
    struct server *server = start();
    start_slow(server, "gone.rdb");
    cancel(server);
    CHECK(!exists(server, "gone.rdb"), "published");
    check_nothing_left(server->directory);
    CHECK(server_info_number(server, "uffd_backups_cancelled") == 1, "not counted");
    const char *error = server_error(server, "UFFD.BACKUP CANCEL");
    CHECK(strstr(error, "no backup is running"), "%s", error);
    server_ok(server, "UFFD.BACKUP gone.rdb WAIT");
    server_stop(server);
}

/* FLUSHALL ends the server's own saves, not a backup of what was there before. */
static void flushed_meanwhile(void)
{
    struct server *server = start();
    const char *reference = save_and_backup(server, "before.rdb");
    check_state(server, "running");
    server_ok(server, "FLUSHALL");
    wait_for_state(server, "ok");
    check_same(reference, server_path(server, "before.rdb"));
    server_stop(server);
}

static void write_error(void)
{
    struct server *server = start();
    server_ok(server, "UFFD.FAULT output_write on");
    const char *error = server_error(server, "UFFD.BACKUP bad.rdb WAIT");
    CHECK(strstr(error, "Input/output error, writing temp-backup-"), "%s", error);
    server_ok(server, "UFFD.FAULT output_write off");
    CHECK(!exists(server, "bad.rdb"), "published");
    check_nothing_left(server->directory);
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* A fifo's reader has nothing that a server would take for whole. */
static void lost_pages_are_found(void)
{
    struct server *server = start();
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy.rdb");
    pid_t reader = reader_start(fifo, copy, "0");
    server_ok(server, "UFFD.FAULT skip_protect on");
    const char *error = server_error(server, "UFFD.BACKUP fifo WAIT");
    CHECK(strstr(error, "lost their write protection"), "%s", error);
    waitpid(reader, NULL, 0);
    CHECK(!dump_digest(copy, FILL_CONFIG), "a server has loaded it");
    server_stop(server);
}

static void killed(void)
{
    struct server *server = start();
    start_slow(server, "half.rdb");
    server_kill(server);
    CHECK(!exists(server, "half.rdb"), "published");
    server = server_start(&(struct server_options){.config = FILL_CONFIG "save \"\"\n",
                                                   .directory = server->directory});
    server_ok(server, "UFFD.BACKUP half.rdb WAIT");
    server_stop(server);
}

static void shut_down(void)
{
    struct server *server = start();
    start_slow(server, "half.rdb");
    server_stop(server);
    CHECK(!exists(server, "half.rdb"), "published");
    check_nothing_left(server->directory);
}

/* ---- at the wrong moment ----------------------------------------------------------- */

static void wrong_arguments(void)
{
    static const struct {
        const char *arguments, *error;
    } calls[] = {
        {"", "wrong number of arguments"}, {"a/b", "no '/' in it"},
        {"/tmp/a", "no '/' in it"},        {"..", "no '/' in it"},
        {"a COMPRESS gzip", "lz4 only"},   {"a COMPRESS", "syntax error"},
        {"a RATE", "syntax error"},        {"a RATE 0", "RATE is"},
        {"a RATE fast", "RATE is"},        {"a QUICKLY", "syntax error"},
        {"STATUS a", "syntax error"},
    };
    struct server *server = start();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const char *error =
            server_error(server, format_text("UFFD.BACKUP %s", calls[i].arguments));
        CHECK(strstr(error, calls[i].error), "%s: %s", calls[i].arguments, error);
    }
    check_state(server, "none");
    CHECK(server_ok(server, "UFFD.BACKUP help")->elements > 5, "HELP");
    server_stop(server);
}

/* As the server's own dir: who may send commands shall not write files anywhere. */
static void directory_is_protected(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = "enable-protected-configs no\n"});
    const char *error = server_error(server, "CONFIG SET uffd.backup-dir /tmp");
    CHECK(strstr(error, "protected"), "%s", error);
    CHECK(!*server_config_get(server, "uffd.backup-dir"), "it was set");
    server_stop(server);
}

/* In a transaction it is of that very instant, and is not waited for. */
static void in_transaction(void)
{
    struct server *server = start();
    server_ok(server, "MULTI");
    server_ok(server, "SET in yes");
    server_ok(server, "UFFD.BACKUP between.rdb");
    server_ok(server, "UFFD.BACKUP waits.rdb WAIT");
    server_ok(server, "SET in no");
    redisReply *reply = server_ok(server, "EXEC");
    CHECK(reply->elements == 4 && reply->element[1]->type == REDIS_REPLY_STATUS &&
              reply->element[2]->type == REDIS_REPLY_ERROR,
          "EXEC");
    wait_for_state(server, "ok");
    server_ok(server, "SET in yes");
    const char *digest = dump_digest(server_path(server, "between.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "another instant");
    server_stop(server);
}

static void one_at_a_time(void)
{
    struct server *server = start();
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_save_start(server);
    const char *error = server_error(server, "UFFD.BACKUP late.rdb");
    CHECK(strstr(error, "a background save or rewrite is running"), "%s", error);
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(server_save_wait(server), "the save failed");
    start_slow(server, "first.rdb");
    error = server_error(server, "UFFD.BACKUP second.rdb");
    CHECK(strstr(error, "a backup is being written"), "%s", error);
    error = server_error(server, "MODULE UNLOAD uffd");
    check_state(server, "running");
    cancel(server);
    server_stop(server);
}

/* The server's own saves are real forks meanwhile; or refused, if forks are. */
static void saves_meanwhile(void)
{
    struct server *server = start();
    const char *reference = save_and_backup(server, "slow.rdb");
    check_state(server, "running");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1 &&
              strstr(server_info(server, "uffd_last_fallback_reason"), "a backup"),
          "%s", server_info(server, "uffd_last_fallback_reason"));
    wait_for_state(server, "ok");
    check_same(reference, server_path(server, "slow.rdb"));
    check_same(reference, server_path(server, "dump.rdb"));
    server_config_set(server, "uffd.fallback", "no");
    start_slow(server, "again.rdb");
    server_error(server, "BGSAVE");
    cancel(server);
    server_save(server);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 1, "forked for no reason");
    server_stop(server);
}

static void access_is_limited(void)
{
    struct server *server = start();
    /* Redis 7.0 has no categories for commands of modules. */
    bool has_categories = strncmp(server_version(server), "7.0.", 4) != 0;
    server_ok(server, format_text("ACL SETUSER guest on nopass ~* +@all %s",
                                  has_categories ? "-@dangerous" : "-uffd.backup"));
    server_ok(server, "ACL SETUSER keeper on nopass +uffd.backup");
    struct server other = beside(server);
    server_ok(&other, "AUTH guest x");
    const char *error = server_error(&other, "UFFD.BACKUP mine.rdb");
    CHECK(strstr(error, "NOPERM"), "%s", error);
    server_ok(&other, "AUTH keeper x");
    server_ok(&other, "UFFD.BACKUP mine.rdb WAIT");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"identity", identity, 30},
        {"under_writers", under_writers, 60},
        {"found_without_preserving", found_without_preserving, 60},
        {"bookkeeping_is_untouched", bookkeeping_is_untouched, 30},
        {"replaces_dumps_only", replaces_dumps_only, 30},
        {"keeps_to_its_rate", keeps_to_its_rate, 20},
        {"disk_full", disk_full, 20},
        {"into_fifo", into_fifo, 30},
        {"slow_reader", slow_reader, 60},
        {"reader_goes", reader_goes, 20},
        {"reader_does_not_come", reader_does_not_come, 20},
        {"reader_stands_still", reader_stands_still, 20},
        {"cancelled", cancelled, 20},
        {"flushed_meanwhile", flushed_meanwhile, 20},
        {"write_error", write_error, 20},
        {"lost_pages_are_found", lost_pages_are_found, 20},
        {"killed", killed, 20},
        {"shut_down", shut_down, 20},
        {"wrong_arguments", wrong_arguments, 20},
        {"directory_is_protected", directory_is_protected, 20},
        {"in_transaction", in_transaction, 20},
        {"one_at_a_time", one_at_a_time, 30},
        {"saves_meanwhile", saves_meanwhile, 30},
        {"access_is_limited", access_is_limited, 20},
        {0},
    };
    return test_run("backup", cases, argc, argv);
}
