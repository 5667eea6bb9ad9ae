/* A save that fails costs the save: the old dump stays whole, the server tells
 * of it as of a child that failed, goes on, and the next save is fine. */
#include "fill.h"
#include "privacy.h"
#include "rdbfile.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEYS 20000
#define SLOW "100"

static const char *dump_in(const char *directory)
{
    return format_text("%s/dump.rdb", directory);
}

static int temporary_files(const char *directory)
{
    char *list = format_text("ls -d '%s'/temp-* 2>/dev/null | wc -l", directory);
    FILE *pipe = popen(list, "r");
    int count = -1;
    CHECK(pipe && fscanf(pipe, "%d", &count) == 1, "cannot list %s", directory);
    pclose(pipe);
    return count;
}

/* A server that saves into `directory`, where an old dump is. */
static struct server *start_in(const char *directory, char **old_dump)
{
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    server_config_set(server, "dir", directory);
    server_config_set(server, "stop-writes-on-bgsave-error", "no");
    fill(server->connection, FILL_ALL, 20, test_seed());
    server_ok(server, "SAVE");
    *old_dump = server_path(server, "old.rdb");
    copy_file(dump_in(directory), *old_dump);
    server_ok(server, "SET changed afterwards");
    return server;
}

/* What is said of a save that failed: what could not be written, never what was read. */
static void check_reason(struct server *server, const char *reason)
{
    if (!server->has_module)
        return;
    const char *error = server_info(server, "uffd_last_error");
    CHECK(strncmp(error, reason, strlen(reason)) == 0, "the reason is: %s", error);
}

/* The save that was started fails, and everything is as after a failed child. */
static void check_failure(struct server *server, const char *directory,
                          const char *old_dump)
{
    int errors = server_log_count(server, "Background saving error");
    long long last = server_integer(server, "LASTSAVE");
    CHECK(!server_save_wait(server), "the save succeeded");
    CHECK(server_log_count(server, "Background saving error") <= errors + 1,
          "the error is logged too often");
    CHECK(server_log_count(server, "Background saving error") >= 1,
          "the log does not tell of the error");
    CHECK(server_integer(server, "LASTSAVE") == last, "LASTSAVE moved");
    CHECK(server_info_number(server, "rdb_changes_since_last_save") > 0,
          "the changes count as saved");
    if (old_dump)
        CHECK(files_are_equal(old_dump, dump_in(directory)), "the old dump was changed");
    CHECK(temporary_files(directory) == 0, "a temporary file was left");
    server_ok(server, "PING");
}

static void check_recovered(struct server *server, const char *directory)
{
    server_save(server);
    check_dump(dump_in(directory), true);
    const char *digest = dump_digest(dump_in(directory), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    server_stop(server);
}

static void disk_full(void)
{
    mounts_become_private();
    const char *directory = mount_small("4m");
    char *old_dump;
    struct server *server = start_in(directory, &old_dump);
    fill_large(server->connection, "too-large", 8 << 20, false, 1);
    server_save_start(server);
    check_failure(server, directory, old_dump);
    check_reason(server, "No space left on device, writing temp-");
    server_ok(server, "DEL too-large");
    check_recovered(server, directory);
}

static void limit_file_size(struct server *server, rlim_t bytes)
{
    struct rlimit limit;
    CHECK(prlimit(server->pid, RLIMIT_FSIZE, NULL, &limit) == 0, "prlimit");
    limit.rlim_cur = bytes;
    CHECK(prlimit(server->pid, RLIMIT_FSIZE, &limit, NULL) == 0, "prlimit");
}

/* A unit's LimitFSIZE. Who writes more gets a signal with the error, which by itself is
 * the end of a process: a child, or the server that our threads are part of. */
static void file_size_limited(void)
{
    char *old_dump, *directory = format_text("%s/saves", test_directory());
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    struct server *server = start_in(directory, &old_dump);
    fill_large(server->connection, "too-large", 2 << 20, false, 1);
    limit_file_size(server, 1 << 20);
    for (int save = 0; save < 2; save++) {
        server_save_start(server);
        check_failure(server, directory, old_dump);
        check_reason(server, "File too large, writing temp-");
    }
    limit_file_size(server, RLIM_INFINITY);
    check_recovered(server, directory);
}

/* Full only when the last bytes are written: at fsync, or at the rename. */
static void disk_almost_large_enough(void)
{
    mounts_become_private();
    const char *directory = mount_small("4m");
    char *old_dump;
    struct server *server = start_in(directory, &old_dump);
    struct stat status;
    CHECK(stat(dump_in(directory), &status) == 0, "no dump");
    size_t room = (4 << 20) - 4096 - 2 * (size_t)(status.st_size + 4095) / 4096 * 4096;
    fill_large(server->connection, "just-too-large", room + 4 * 4096, false, 1);
    server_save_start(server);
    check_failure(server, directory, old_dump);
    server_ok(server, "DEL just-too-large");
    check_recovered(server, directory);
}

static void unwritable_directory(void)
{
    mounts_become_private();
    const char *directory = mount_small("16m");
    char *old_dump;
    struct server *server = start_in(directory, &old_dump);
    mount_read_only(directory, true);
    server_command(server, "BGSAVE"); /* may or may not start */
    check_failure(server, directory, old_dump);
    mount_read_only(directory, false);
    check_recovered(server, directory);
}

static int remove_entry(const char *path, const struct stat *status, int kind,
                        struct FTW *walk)
{
    (void)status, (void)kind, (void)walk;
    return remove(path);
}

/* The server sits in a directory that is no more; no file can be made in it. */
static void removed_directory(void)
{
    char *directory = format_text("%s/removed", test_directory()), *old_dump;
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    struct server *server = start_in(directory, &old_dump);
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    server_command(server, "BGSAVE");
    check_failure(server, directory, NULL);
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    server_config_set(server, "dir", directory);
    check_recovered(server, directory);
}

static void directory_removed_while_saving(void)
{
    char *directory = format_text("%s/removed", test_directory()), *old_dump;
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    struct server *server = start_in(directory, &old_dump);
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_save_start(server);
    sleep_msec(500);
    nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    check_failure(server, directory, NULL);
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(mkdir(directory, 0755) == 0, "mkdir");
    server_config_set(server, "dir", directory);
    check_recovered(server, directory);
}

static struct server *start_slow(char **old_dump)
{
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    server_ok(server, "SET old data");
    server_ok(server, "SAVE");
    *old_dump = server_path(server, "old.rdb");
    copy_file(server_path(server, "dump.rdb"), *old_dump);
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW);
    return server;
}

/* A child knows the name as it was when it was made. */
static void file_name_changed_while_saving(void)
{
    char *old_dump;
    struct server *server = start_slow(&old_dump);
    const char *digest = server_digest(server);
    server_save_start(server);
    server_config_set(server, "dbfilename", "another.rdb");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    CHECK(access(server_path(server, "another.rdb"), F_OK) != 0,
          "saved under the later name");
    const char *loaded = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(loaded && strcmp(loaded, digest) == 0, "the data differ");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save(server);
    CHECK(access(server_path(server, "another.rdb"), F_OK) == 0,
          "the next save has not used the later name");
    server_stop(server);
}

/* A child also stays in the directory where it was made. */
static void directory_changed_while_saving(void)
{
    char *old_dump, *other = format_text("%s/other", test_directory());
    CHECK(mkdir(other, 0755) == 0, "mkdir");
    struct server *server = start_slow(&old_dump);
    const char *digest = server_digest(server);
    server_save_start(server);
    server_config_set(server, "dir", other);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    CHECK(access(dump_in(other), F_OK) != 0, "saved into the later directory");
    const char *loaded = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(loaded && strcmp(loaded, digest) == 0, "the data differ");
    CHECK(temporary_files(other) == 0 && temporary_files(server->directory) == 0,
          "a temporary file was left");
    server_stop(server);
}

static void killed_while_saving(void)
{
    uint64_t seed = test_seed();
    for (int round = 0; round < 5; round++) {
        char *old_dump;
        struct server *server = start_slow(&old_dump);
        server_save_start(server);
        sleep_msec((long)(random_next(&seed) % 600));
        server_kill(server);
        CHECK(files_are_equal(old_dump, server_path(server, "dump.rdb")),
              "the old dump was changed");
        server = server_start(&(struct server_options){.config = FILL_CONFIG,
                                                       .directory = server->directory});
        CHECK(server_integer(server, "DBSIZE") == 1, "other data were loaded");
        server_save(server);
        server_stop(server);
    }
}

/* ---- fault points ---- */

static struct server *start_with_faults(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .fault = ""});
    server_config_set(server, "stop-writes-on-bgsave-error", "no");
    fill(server->connection, FILL_ALL, 200, test_seed());
    server_ok(server, "SAVE");
    copy_file(server_path(server, "dump.rdb"), server_path(server, "old.rdb"));
    server_ok(server, "SET changed afterwards");
    return server;
}

static void check_fault_fails_save(const char *fault)
{
    struct server *server = start_with_faults();
    server_ok(server, "UFFD.FAULT %s on", fault);
    server_save_start(server);
    check_failure(server, server->directory, server_path(server, "old.rdb"));
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 1,
          "uffd_snapshots_failed");
    server_ok(server, "UFFD.FAULT %s off", fault);
    check_recovered(server, server->directory);
}

/* A walk that failed would fail again: only the first save does, the next ones are the
 * server's own, until the operator wants another try. */
static void corrupt_pointer(void)
{
    struct server *server = start_with_faults();
    server_ok(server, "UFFD.FAULT corrupt_pointer on");
    server_save_start(server);
    check_failure(server, server->directory, server_path(server, "old.rdb"));
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 1,
          "uffd_snapshots_failed");
    CHECK(server_info_number(server, "uffd_supported") == 0, "there is no doubt");
    for (int saves = 1; saves <= 2; saves++) {
        server_save(server);
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == saves, "not counted");
    }
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, "unexpected data in the server's memory, reading"),
          "the reason: %s", reason);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    CHECK(server_info_number(server, "uffd_forks_replaced") == 1, "tried again");
    server_ok(server, "UFFD.FAULT corrupt_pointer off");
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
    CHECK(server_info_number(server, "uffd_supported") == 1, "the doubt has stayed");
    server_save(server);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 2, "not tried again");
    check_recovered(server, server->directory);
}

static void corrupt_pointer_from_the_start(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "corrupt_pointer"});
    fill(server->connection, FILL_ALL, 100, test_seed());
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    CHECK(temporary_files(server->directory) == 0, "a temporary file was left");
    server_ok(server, "UFFD.FAULT corrupt_pointer off");
    check_recovered(server, server->directory);
}

static void write_error(void)
{
    check_fault_fails_save("output_write");
}

/* ---- a fault server that hangs ---- */

/* The watchdog looks for four seconds. */
#define STUCK_SECONDS 6

static struct server *start_stuck(const char *delay)
{
    struct server *server = start_with_faults();
    for (int i = 0; i < 4; i++)
        fill_large(server->connection, format_text("large:%d", i), 3 << 20, false, 1);
    server_ok(server, "SAVE");
    copy_file(server_path(server, "dump.rdb"), server_path(server, "old.rdb"));
    server_ok(server, "SET changed again");
    server_config_set(server, "rdb-key-save-delay", delay);
    server_ok(server, "UFFD.FAULT stuck_when_saving on");
    return server;
}

/* How long the first write after the freeze had to wait. */
static void check_answers(struct server *server)
{
    double began = patient_seconds();
    server_save_start(server);
    server_ok(server, "SETRANGE large:1 100 overwritten");
    double seconds = patient_seconds() - began;
    test_note("the server answered after %.1f s", seconds);
    CHECK(seconds < STUCK_SECONDS, "the server stood still");
}

static void stuck_fault_server(void)
{
    struct server *server = start_stuck("2000");
    check_answers(server);
    check_failure(server, server->directory, server_path(server, "old.rdb"));
    CHECK(server_log_lines(server, "protection lifted, the snapshot is given up") == 1,
          "the log does not say why");
    server_ok(server, "UFFD.FAULT stuck_when_saving off");
    server_ok(server, "UFFD.FAULT stuck_server off");
    server_config_set(server, "rdb-key-save-delay", "0");
    check_recovered(server, server->directory);
}

/* The saver is done before the watchdog notices: what it has read is right. */
static void stuck_until_the_save_ends(void)
{
    struct server *server = start_stuck("0");
    const char *digest = server_digest(server);
    check_answers(server);
    CHECK(server_save_wait(server), "the save failed");
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
    CHECK(strcmp(server_digest(server), digest) != 0, "nothing was overwritten");
    server_ok(server, "UFFD.FAULT stuck_when_saving off");
    server_ok(server, "UFFD.FAULT stuck_server off");
    check_recovered(server, server->directory);
}

/* Half protected is not protected: all or nothing, then the real fork. */
static void check_fault_falls_back(const char *fault)
{
    struct server *server = start_with_faults();
    server_ok(server, "UFFD.FAULT %s on", fault);
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "uffd_fork_fallbacks");
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    server_config_set(server, "uffd.fallback", "no");
    server_error(server, "BGSAVE");
    server_ok(server, "UFFD.FAULT %s off", fault);
    check_recovered(server, server->directory);
}

static void protection_refused(void)
{
    check_fault_falls_back("protect_fails");
}

static void no_buffer_memory(void)
{
    check_fault_falls_back("no_memory");
}

static void unknown_fault(void)
{
    struct server *server = start_with_faults();
    server_error(server, "UFFD.FAULT no_such_point on");
    server_stop(server);
    server = server_start(NULL);
    server_error(server, "UFFD.FAULT corrupt_pointer on");
    server_stop(server);
    server = server_start(&(struct server_options){.fault = "spool_write,no_such_point",
                                                   .without_module = true});
    server_error(server, "MODULE LOAD %s", module_path());
    CHECK(server_log_count(server, "RDB_UFFD_FAULT names no fault point"), "no reason");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"disk_full", disk_full, 20},
        {"disk_almost_large_enough", disk_almost_large_enough, 20},
        {"file_size_limited", file_size_limited, 20},
        {"unwritable_directory", unwritable_directory, 20},
        {"removed_directory", removed_directory, 20},
        {"directory_removed_while_saving", directory_removed_while_saving, 30},
        {"file_name_changed_while_saving", file_name_changed_while_saving, 30},
        {"directory_changed_while_saving", directory_changed_while_saving, 30},
        {"killed_while_saving", killed_while_saving, 60},
        {"corrupt_pointer", corrupt_pointer, 20},
        {"corrupt_pointer_from_the_start", corrupt_pointer_from_the_start, 20},
        {"write_error", write_error, 20},
        {"stuck_fault_server", stuck_fault_server, 120},
        {"stuck_until_the_save_ends", stuck_until_the_save_ends, 180},
        {"protection_refused", protection_refused, 20},
        {"no_buffer_memory", no_buffer_memory, 20},
        {"unknown_fault", unknown_fault, 20},
        {0},
    };
    return test_run("failures", cases, argc, argv);
}
