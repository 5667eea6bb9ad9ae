/* UFFD.BACKUP: exact as every other save, believed only when checked, and nothing of what the
 * server remembers of its own saves is touched. Whatever goes wrong costs the backup only. */
#include "backups.h"
#include "fill.h"
#include "overwriter.h"
#include "privacy.h"
#include "rdbfile.h"
#include "writers.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT     60
#define BUSY_KEYS 1000

/* ---- files ------------------------------------------------------------------------ */

static void identity(void)
{
    struct server *server = backup_start();
    const char *reference = backup_with_save(server, "quiet.rdb WAIT");
    backup_check_same(reference, server_path(server, "quiet.rdb"));
    const char *digest = dump_digest(server_path(server, "quiet.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "other data");
    reference = backup_with_save(server, "quiet.lz4 COMPRESS lz4 WAIT");
    backup_check_same(reference, backup_unpacked(server_path(server, "quiet.lz4")));
    backup_check_nothing_left(server->directory);
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
    const char *difference = backup_try_both(server, "busy.rdb WAIT");
    if (!difference)
        difference = rdb_difference(server_path(server, "reference.rdb"),
                                    server_path(server, "busy.rdb"));
    CHECK(overwriter_stop(overwriter, NULL) > 0 && writers_stop(writers) > 0,
          "nobody has written");
    return difference;
}

static void under_writers(void)
{
    struct server *server = backup_start();
    const char *difference = busy_difference(server);
    CHECK(!difference, "%s", difference);
    check_dump(server_path(server, "busy.rdb"), true);
    CHECK(server_info_number(server, "uffd_last_pages_preserved") > 0, "no writes");
    server_stop(server);
}

/* The case above can fail. */
static void found_without_preserving(void)
{
    struct server *server = backup_start();
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
    struct server *server = backup_start();
    server_ok(server, "SAVE");
    server_ok(server, "SET one more");
    struct stat before, after;
    CHECK(stat(server_path(server, "dump.rdb"), &before) == 0, "dump.rdb");
    const char *values[REMEMBERED];
    for (size_t i = 0; i < REMEMBERED; i++)
        values[i] = server_info(server, remembered[i]);
    long long saved = server_integer(server, "LASTSAVE");
    sleep_msec(1100);
    backup_start_slow(server, "elsewhere.rdb");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 0, "the server knows");
    CHECK(server_children(server) == 0, "a child");
    WAIT_UNTIL(atoll(backup_status(server, "keys")) > 0, 10, "no progress");
    CHECK(atoll(backup_status(server, "keys_total")) == server_integer(server, "DBSIZE"),
          "keys_total");
    backup_wait_for(server, "ok");
    CHECK(atoll(backup_status(server, "keys")) == server_integer(server, "DBSIZE"),
          "keys");
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
        bool looked_into; /* by the saver: there was a freeze */
    } refused[] = {
        {"there.rdb", "REPLACE?", false},
        {"dump.rdb REPLACE", "the server's own dump", false},
        {"users.acl REPLACE", "is no dump", true},
        {"link.rdb REPLACE", "neither a file nor a fifo", false},
        {"folder REPLACE", "neither a file nor a fifo", false},
    };
    int looks = 0;
    struct server *server = backup_start();
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
        looks += refused[i].looked_into;
        if (refused[i].looked_into)
            backup_check_failed(server, refused[i].reason);
        CHECK(server_info_number(server, "uffd_backups_failed") == looks,
              "%s: a freeze for nothing", refused[i].name);
    }
    CHECK(files_are_equal(server_path(server, "users.acl"), "/etc/passwd") &&
              files_are_equal(server_path(server, "dump.rdb"),
                              server_path(server, "there.rdb")),
          "a file was changed");
    server_ok(server, "DEBUG POPULATE 10 more");
    backup_check_same(backup_with_save(server, "there.rdb REPLACE WAIT"),
                      server_path(server, "there.rdb"));
    server_ok(server, "UFFD.BACKUP packed COMPRESS lz4 WAIT");
    server_ok(server, "UFFD.BACKUP packed REPLACE WAIT");
    backup_check_nothing_left(server->directory);
    server_stop(server);
}

static void directory_is_missing(void)
{
    const char *directory = format_text("%s/gone", test_directory());
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    struct server *server = backup_start_with(format_text("backup-dir %s", directory));
    rmdir(directory);
    const char *error = server_error(server, "UFFD.BACKUP a.rdb");
    CHECK(strstr(error, "opening the directory backup-dir"), "%s", error);
    CHECK(server_info_number(server, "uffd_backups_failed") == 0, "a freeze for nothing");
    server_stop(server);
}

static void keeps_to_its_rate(void)
{
    struct server *server = backup_start();
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
    struct server *server = backup_start_with(format_text("backup-dir %s", directory));
    fill_large(server->connection, "too-large", 4 << 20, false, 1);
    const char *error = server_error(server, "UFFD.BACKUP full.rdb WAIT");
    CHECK(strstr(error, "No space left on device, writing full.rdb"), "%s", error);
    backup_check_nothing_left(directory);
    CHECK(access(format_text("%s/full.rdb", directory), F_OK) != 0, "published");
    server_ok(server, "DEL too-large");
    server_ok(server, "UFFD.BACKUP full.rdb WAIT");
    check_dump(format_text("%s/full.rdb", directory), true);
    server_stop(server);
}

/* ---- its end ---------------------------------------------------------------------- */

static void cancelled(void)
{
    struct server *server = backup_start();
    backup_start_slow(server, "gone.rdb");
    backup_cancel(server);
    CHECK(!backup_exists(server, "gone.rdb"), "published");
    backup_check_nothing_left(server->directory);
    CHECK(server_info_number(server, "uffd_backups_cancelled") == 1, "not counted");
    const char *error = server_error(server, "UFFD.BACKUP CANCEL");
    CHECK(strstr(error, "no backup is running"), "%s", error);
    server_ok(server, "UFFD.BACKUP gone.rdb WAIT");
    server_stop(server);
}

/* FLUSHALL ends the server's own saves, not a backup of what was there before. */
static void flushed_meanwhile(void)
{
    struct server *server = backup_start();
    const char *reference = backup_with_save(server, "before.rdb");
    backup_check_state(server, "running");
    server_ok(server, "FLUSHALL");
    backup_wait_for(server, "ok");
    backup_check_same(reference, server_path(server, "before.rdb"));
    server_stop(server);
}

static void write_error(void)
{
    struct server *server = backup_start();
    server_ok(server, "UFFD.FAULT output_write on");
    const char *error = server_error(server, "UFFD.BACKUP bad.rdb WAIT");
    CHECK(strstr(error, "Input/output error, writing bad.rdb"), "%s", error);
    server_ok(server, "UFFD.FAULT output_write off");
    CHECK(!backup_exists(server, "bad.rdb"), "published");
    backup_check_nothing_left(server->directory);
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* Its file has no name yet. */
static void killed(void)
{
    struct server *server = backup_start();
    backup_start_slow(server, "half.rdb");
    server_kill(server);
    CHECK(!backup_exists(server, "half.rdb"), "published");
    backup_check_nothing_left(server->directory);
    server = server_start(&(struct server_options){.config = FILL_CONFIG "save \"\"\n",
                                                   .directory = server->directory});
    server_ok(server, "UFFD.BACKUP half.rdb WAIT");
    server_stop(server);
}

/* … on a file system without such files. */
static void files_need_names(void)
{
    struct server *server = backup_start();
    server_ok(server, "UFFD.FAULT no_nameless on");
    backup_start_slow(server, "half.rdb");
    CHECK(server_temporary_file(server), "no temporary file");
    backup_cancel(server);
    backup_check_same(backup_with_save(server, "named.rdb WAIT"),
                      server_path(server, "named.rdb"));
    server_ok(server, "DEBUG POPULATE 10 more");
    backup_check_same(backup_with_save(server, "named.rdb REPLACE WAIT"),
                      server_path(server, "named.rdb"));
    backup_check_nothing_left(server->directory);
    server_stop(server);
}

static void shut_down(void)
{
    struct server *server = backup_start();
    backup_start_slow(server, "half.rdb");
    server_stop(server);
    CHECK(!backup_exists(server, "half.rdb"), "published");
    backup_check_nothing_left(server->directory);
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
    struct server *server = backup_start();
    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        const char *error =
            server_error(server, format_text("UFFD.BACKUP %s", calls[i].arguments));
        CHECK(strstr(error, calls[i].error), "%s: %s", calls[i].arguments, error);
    }
    backup_check_state(server, "none");
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
    struct server *server = backup_start();
    server_ok(server, "MULTI");
    server_ok(server, "SET in yes");
    server_ok(server, "UFFD.BACKUP between.rdb");
    server_ok(server, "UFFD.BACKUP waits.rdb WAIT");
    server_ok(server, "SET in no");
    redisReply *reply = server_ok(server, "EXEC");
    CHECK(reply->elements == 4 && reply->element[1]->type == REDIS_REPLY_STATUS &&
              reply->element[2]->type == REDIS_REPLY_ERROR,
          "EXEC");
    backup_wait_for(server, "ok");
    server_ok(server, "SET in yes");
    const char *digest = dump_digest(server_path(server, "between.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "another instant");
    server_stop(server);
}

static void one_at_a_time(void)
{
    struct server *server = backup_start();
    server_config_set(server, "rdb-key-save-delay", BACKUP_SLOW);
    server_save_start(server);
    const char *error = server_error(server, "UFFD.BACKUP late.rdb");
    CHECK(strstr(error, "a background save or rewrite is running"), "%s", error);
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(server_save_wait(server), "the save failed");
    backup_start_slow(server, "first.rdb");
    error = server_error(server, "UFFD.BACKUP second.rdb");
    CHECK(strstr(error, "a backup is being written"), "%s", error);
    error = server_error(server, "MODULE UNLOAD uffd");
    backup_check_state(server, "running");
    backup_cancel(server);
    server_stop(server);
}

/* The server's own saves are real forks meanwhile; or refused, if forks are. */
static void saves_meanwhile(void)
{
    struct server *server = backup_start();
    const char *reference = backup_with_save(server, "slow.rdb");
    backup_check_state(server, "running");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1 &&
              strstr(server_info(server, "uffd_last_fallback_reason"), "a backup"),
          "%s", server_info(server, "uffd_last_fallback_reason"));
    backup_wait_for(server, "ok");
    backup_check_same(reference, server_path(server, "slow.rdb"));
    backup_check_same(reference, server_path(server, "dump.rdb"));
    server_config_set(server, "uffd.fallback", "no");
    backup_start_slow(server, "again.rdb");
    server_error(server, "BGSAVE");
    backup_cancel(server);
    server_save(server);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 1, "forked for no reason");
    server_stop(server);
}

/* Who began the next save before the last one's end had been told was told of that end as of
 * its own: a BGSAVE had ended well that had not begun. */
static void told_before_the_next_save(void)
{
    struct server *server = backup_start();
    server_ok(server, "UFFD.FAULT slow_end on");
    server_ok(server, "UFFD.BACKUP first.rdb WAIT");
    server_ok(server, "UFFD.FAULT slow_end off");
    server_config_set(server, "rdb-key-save-delay", BACKUP_SLOW);
    server_save_start(server);
    CHECK(server_save_wait(server), "the save failed");
    CHECK(server_info_number(server, "uffd_snapshots_ok") == 1 &&
              backup_exists(server, "dump.rdb"),
          "it has not ended");
    check_fork_free(server, 1);
    server_stop(server);
}

static void access_is_limited(void)
{
    struct server *server = backup_start();
    /* Redis 7.0 has no categories for commands of modules. */
    bool has_categories = strncmp(server_version(server), "7.0.", 4) != 0;
    server_ok(server, format_text("ACL SETUSER guest on nopass ~* +@all %s",
                                  has_categories ? "-@dangerous" : "-uffd.backup"));
    server_ok(server, "ACL SETUSER keeper on nopass +uffd.backup");
    struct server other = server_beside(server);
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
        {"directory_is_missing", directory_is_missing, 20},
        {"keeps_to_its_rate", keeps_to_its_rate, 20},
        {"disk_full", disk_full, 20},
        {"cancelled", cancelled, 20},
        {"flushed_meanwhile", flushed_meanwhile, 20},
        {"write_error", write_error, 20},
        {"killed", killed, 20},
        {"files_need_names", files_need_names, 30},
        {"shut_down", shut_down, 20},
        {"wrong_arguments", wrong_arguments, 20},
        {"directory_is_protected", directory_is_protected, 20},
        {"in_transaction", in_transaction, 20},
        {"one_at_a_time", one_at_a_time, 30},
        {"saves_meanwhile", saves_meanwhile, 30},
        {"told_before_the_next_save", told_before_the_next_save, 30},
        {"access_is_limited", access_is_limited, 20},
        {0},
    };
    return test_run("backup", cases, argc, argv);
}
