/* Nobody of ours holds the server for long: docs/WAITS.md lists every place where it waits
 * for one of ours. Here each of these does not come back, by a fault point or since a disk
 * does not answer, and the server does. */
#include "fill.h"
#include "privacy.h"
#include "rdbfile.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECONDS_MOST 5.0
/* Of a busy machine, besides. */
#define SLACK 2.0
/* And what the system takes for itself: until the disk has the dump that FLUSHALL writes
 * (11.5 s have been seen in all), until the kernel has the memory of a process that ends
 * (7.4 s after its last word). Who waits for the hung thread does so without end. */
#define SLACK_OF_SYSTEM 15.0
#define LIMIT           "4mb"

static const char *const options = "buffer-limit " LIMIT " compression no";

static struct server *start_hanging(const char *module_arguments)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .fault = "", .module_arguments = module_arguments});
    server_config_set(server, "stop-writes-on-bgsave-error", "no");
    fill_large(server->connection, "large", 48 << 20, false, 1);
    return server;
}

/* Writes all over the value for so long; returns the longest wait for an answer, and ends
 * early after one that was too long. No check in here: a disk may be frozen. */
static double write_over(struct server *server, double seconds)
{
    static unsigned i;
    double longest = 0, until = clock_seconds() + seconds;
    for (; clock_seconds() < until && longest < SECONDS_MOST; i++) {
        double began = clock_seconds();
        redisReply *reply = redisCommand(server->connection, "SETRANGE large %u x",
                                         i * 4096 % (47 << 20));
        double took = clock_seconds() - began;
        longest = took > longest ? took : longest;
        if (!reply)
            return 1e9;
        freeReplyObject(reply);
    }
    return longest;
}

/* What must be so while somebody is away, and after. */
static void check_forks_meanwhile(struct server *server)
{
    double forks = server_info_number(server, "uffd_fork_fallbacks");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == forks + 1,
          "a save without fork although somebody has not come back");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "not come back"),
          "the reason is %s", server_info(server, "uffd_last_fallback_reason"));
    server_error(server, "MODULE UNLOAD uffd");
}

static void write_until_spooled(struct server *server)
{
    for (int i = 0; i < 100 && server_info_number(server, "uffd_spool_bytes") == 0; i++)
        write_over(server, 0.1);
    CHECK(server_info_number(server, "uffd_spool_bytes") > 0, "nothing is spooled");
}

static void check_recovered(struct server *server)
{
    wait_until_saves_are_ours(server);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    server_ok(server, "MODULE UNLOAD uffd");
    server_stop(server);
}

/* Its save is not done before the watchdog has looked for long enough. */
static struct server *start_hanging_slowly(const char *fault)
{
    struct server *server = start_hanging("");
    server_ok(server, "DEBUG POPULATE 200 key 100");
    server_config_set(server, "rdb-key-save-delay", "100000");
    server_ok(server, "UFFD.FAULT %s on", fault);
    return server;
}

static void check_save_is_given_up(struct server *server)
{
    double began = clock_seconds();
    server_save_start(server);
    double longest = clock_seconds() - began, more = write_over(server, 1);
    longest = more > longest ? more : longest;
    test_note("the longest wait: %.1f s", longest);
    CHECK(longest < SECONDS_MOST + SLACK, "the server stood still for %.1f s", longest);
    CHECK(!server_save_wait(server), "the save succeeded");
    CHECK(strstr(server_info(server, "uffd_last_error"), "not served"),
          "the reason is %s", server_info(server, "uffd_last_error"));
    server_config_set(server, "rdb-key-save-delay", "0");
}

/* In the middle of a fault that it has read. */
static void hung_server(void)
{
    struct server *server = start_hanging_slowly("hung_when_saving");
    check_save_is_given_up(server);
    server_ok(server, "UFFD.FAULT hung_when_saving off");
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT hung_server off");
    check_recovered(server);
}

/* In a freeze that had to begin anew: it is watched like any other. */
static void stuck_after_a_second_freeze(void)
{
    struct server *server = start_hanging_slowly("stuck_when_saving");
    server_ok(server, "UFFD.FAULT replaced_mapping on");
    check_save_is_given_up(server);
    server_ok(server, "UFFD.FAULT stuck_when_saving off");
    server_ok(server, "UFFD.FAULT stuck_server off");
    check_recovered(server);
}

/* In a freeze that fails for another reason: the main thread waits until it is parked. */
static void hung_in_a_freeze_that_fails(void)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT hung_when_frozen on");
    server_ok(server, "UFFD.FAULT protect_fails on");
    /* Not before it is on duty. */
    server_ok(server, "UFFD.FAULT slow_freeze on");
    double began = clock_seconds();
    server_save_start(server);
    double seconds = clock_seconds() - began;
    test_note("the longest wait: %.1f s", seconds);
    CHECK(seconds < SECONDS_MOST + SLACK, "the server stood still for %.1f s", seconds);
    CHECK(server_save_wait(server), "the save with fork has failed");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "cannot protect"),
          "the reason is %s", server_info(server, "uffd_last_fallback_reason"));
    server_ok(server, "UFFD.FAULT protect_fails off");
    server_ok(server, "UFFD.FAULT slow_freeze off");
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT hung_when_frozen off");
    check_recovered(server);
}

/* It has said that the snapshot fails and loses its CPU before it lifts the protection.
 * The save ends; that of the next one must not be what is lifted. */
static void late_watchdog(void)
{
    struct server *server = start_hanging_slowly("late_watchdog");
    server_ok(server, "UFFD.FAULT stuck_when_saving on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    server_ok(server, "UFFD.FAULT stuck_when_saving off");
    server_ok(server, "UFFD.FAULT stuck_server off");
    server_config_set(server, "rdb-key-save-delay", "0");
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT late_watchdog off");
    check_recovered(server);
}

/* The spool's disk, when it is to be opened. */
static void hung_opening(void)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT hung_opening on");
    double began = clock_seconds();
    server_save(server);
    server_ok(server, "PING");
    test_note("a save with fork, after %.1f s", clock_seconds() - began);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "no fork");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "does not answer"),
          "the reason is %s", server_info(server, "uffd_last_fallback_reason"));
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT hung_opening off");
    check_recovered(server);
}

/* It has written its file, and the disk does not answer when that is to be renamed. */
static void wait_until_renamed(struct server *server)
{
    WAIT_UNTIL(server_info_number(server, "uffd_keys_saved") == 1, 30,
               "the large value is not saved");
    sleep_msec(2000);
}

/* What wants to end the save does not wait for the disk. */
static void hung_rename(void)
{
    struct server *server = start_hanging("");
    /* With save points FLUSHALL writes a dump itself, of a server without keys. */
    server_config_set(server, "save", "3600 1");
    server_ok(server, "UFFD.FAULT hung_rename on");
    server_save_start(server);
    wait_until_renamed(server);
    double began = clock_seconds();
    server_ok(server, "FLUSHALL");
    server_config_set(server, "save", "");
    server_ok(server, "SET after it");
    double seconds = clock_seconds() - began;
    CHECK(seconds < SECONDS_MOST + SLACK_OF_SYSTEM, "FLUSHALL waited for %.1f s",
          seconds);
    server_ok(server, "UFFD.FAULT hung_rename off");
    server_save_wait(server);
    WAIT_UNTIL(server_info_number(server, "uffd_snapshots_ok") +
                       server_info_number(server, "uffd_snapshots_failed") +
                       server_info_number(server, "uffd_snapshots_cancelled") >
                   0,
               10, "the save has not ended");
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strspn(digest, "0") == strlen(digest),
          "the dump that was killed has replaced the newer one");
    check_recovered(server);
}

/* The same of a rewrite: the server ends it and waits for its child. */
static void hung_rewrite(void)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT hung_rename on");
    server_config_set(server, "appendonly", "yes");
    wait_until_renamed(server);
    CHECK(server_info_number(server, "aof_rewrite_in_progress") == 1, "no rewrite");
    double began = clock_seconds();
    server_config_set(server, "appendonly", "no");
    double seconds = clock_seconds() - began;
    test_note("it waited for its child for %.1f s", seconds);
    CHECK(seconds < SECONDS_MOST + SLACK, "the server stood still for %.1f s", seconds);
    CHECK(server_info_number(server, "aof_rewrite_in_progress") == 0, "not ended");
    CHECK(server_info_number(server, "uffd_snapshots_cancelled") == 1, "not cancelled");
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT hung_rename off");
    check_recovered(server);
}

/* And the server goes. */
static void shutdown_in_hung_rename(void)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT hung_rename on");
    server_save_start(server);
    wait_until_renamed(server);
    int done = 0;
    redisAppendCommand(server->connection, "SHUTDOWN NOSAVE");
    while (!done)
        CHECK(redisBufferWrite(server->connection, &done) == REDIS_OK, "it is gone");
    server->stopped = true;
    double began = clock_seconds();
    CHECK(server_wait_exit(server) == 0, "the exit code");
    double seconds = clock_seconds() - began;
    CHECK(seconds < SECONDS_MOST + SLACK_OF_SYSTEM, "SHUTDOWN took %.1f s", seconds);
    CHECK(access(server_path(server, "dump.rdb"), F_OK) != 0, "a dump was published");
}

/* The upkeep thread, with what a freeze needs. */
static void hung_with(const char *fault)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT %s on", fault);
    double seconds = 0;
    /* It looks once a second, when it is not busy with something else. */
    for (int i = 0; i < 10 && server_info_number(server, "uffd_fork_fallbacks") == 0;
         i++) {
        sleep_msec(1500);
        double began = clock_seconds();
        server_save_start(server);
        seconds = clock_seconds() - began;
        CHECK(server_save_wait(server), "a save has failed");
    }
    test_note("a save with fork, after %.1f s", seconds);
    CHECK(seconds < SECONDS_MOST + SLACK, "the server stood still for %.1f s", seconds);
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT %s off", fault);
    check_recovered(server);
}

static void hung_with_heap(void)
{
    hung_with("hung_with_heap");
}

static void hung_with_buffer(void)
{
    hung_with("hung_with_buffer");
}

/* The upkeep thread, with nothing that anybody else wants: the module does not go. */
static void held_upkeep(void)
{
    struct server *server = start_hanging("");
    server_ok(server, "UFFD.FAULT held_upkeep on");
    sleep_msec(2000); /* it looks once a second */
    double began = clock_seconds();
    server_error(server, "MODULE UNLOAD uffd");
    double seconds = clock_seconds() - began;
    test_note("MODULE UNLOAD refused after %.1f s", seconds);
    CHECK(seconds < SECONDS_MOST + SLACK, "the server stood still for %.1f s", seconds);
    server_save(server);
    check_fork_free(server, 1);
    server_ok(server, "UFFD.FAULT held_upkeep off");
    check_recovered(server);
}

/* The upkeep thread, with what it evicts: while it writes to the spool, or while it has the
 * notes of what has not been freed. */
static void hung_evicting(const char *fault, double most)
{
    struct server *server = start_hanging(options);
    for (int i = 0; i < 60; i++)
        fill_large(server->connection, format_text("old:%d", i), 1 << 20, false, 1);
    server_ok(server, "DEBUG POPULATE 40 key 100");
    server_config_set(server, "rdb-key-save-delay", "100000");
    /* Between two ticks of the server less is written than lies between the amount from which
     * on dead values are evicted and the one at which new ones go to old memory again. */
    server_config_set(server, "uffd.buffer-limit", "32mb");
    server_ok(server, "UFFD.FAULT %s on", fault);
    server_save_start(server);
    double longest = 0, began = clock_seconds();
    for (int i = 0; i < 60 || clock_seconds() < began + 3; i++) {
        double sent = clock_seconds();
        fill_large(server->connection, format_text("old:%d", i % 60), 1 << 20, false, 1);
        double took = clock_seconds() - sent;
        longest = took > longest ? took : longest;
        sleep_msec(30);
    }
    test_note("the longest wait: %.1f s", longest);
    CHECK(longest < most, "the server stood still for %.1f s", longest);
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save_wait(server);
    check_forks_meanwhile(server);
    server_ok(server, "UFFD.FAULT %s off", fault);
    check_recovered(server);
}

static void hung_upkeep(void)
{
    hung_evicting("hung_upkeep", SECONDS_MOST);
}

static void hung_with_notes(void)
{
    hung_evicting("hung_with_notes", SECONDS_MOST + SLACK);
}

/* The saver, with a page that it reads from the spool: what wants to end the save does not
 * wait for it, nor do writers. */
static void hung_reader(void)
{
    struct server *server = start_hanging(options);
    server_ok(server, "UFFD.FAULT held_saver on");
    server_save_start(server);
    write_until_spooled(server);
    server_ok(server, "UFFD.FAULT hung_reader on");
    server_ok(server, "UFFD.FAULT held_saver off");
    for (double until = patient_seconds() + 1; patient_seconds() < until;)
        sleep_msec(50);
    double longest = write_over(server, 1), began = clock_seconds();
    CHECK(longest < SECONDS_MOST, "the server stood still for %.1f s", longest);
    server_ok(server, "FLUSHALL");
    server_ok(server, "SET after it");
    double seconds = clock_seconds() - began;
    CHECK(seconds < SECONDS_MOST, "FLUSHALL waited for %.1f s", seconds);
    sleep_msec(500); /* one that does not hang has ended by then */
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "nobody has read of the spool");
    server_ok(server, "UFFD.FAULT hung_reader off");
    server_save_wait(server);
    CHECK(server_info_number(server, "uffd_snapshots_cancelled") == 1, "not cancelled");
    CHECK(access(server_path(server, "dump.rdb"), F_OK) != 0, "a dump was published");
    check_recovered(server);
}

/* ---- the real thing -------------------------------------------------------------- */

static int shell(const char *command)
{
    const char *arguments[] = {"sh", "-c", command, NULL};
    return run_program(NULL, arguments);
}

static const char *mount_loop(void)
{
    char *directory = format_text("%s/disk", test_directory());
    mounts_become_private();
    if (shell(format_text("truncate -s 256m %s.img && mkfs.ext4 -q -F %s.img && "
                          "mkdir %s && mount -o loop %s.img %s",
                          directory, directory, directory, directory, directory)) != 0)
        skip("no loop device to be had");
    return directory;
}

/* Whatever happens, it is thawed: nobody could do it later. */
static void freeze_disk(const char *directory)
{
    CHECK(shell(format_text("(sleep 25; fsfreeze -u %s) >/dev/null 2>&1 & "
                            "fsfreeze -f %s",
                            directory, directory)) == 0,
          "fsfreeze");
}

static void thaw_disk(const char *directory)
{
    CHECK(shell(format_text("fsfreeze -u %s", directory)) == 0, "it was thawed before");
}

static void frozen_spool(void)
{
    const char *disk = mount_loop();
    struct server *server = start_hanging(format_text("%s spool-dir %s", options, disk));
    server_ok(server, "DEBUG POPULATE 200 key 100");
    server_config_set(server, "rdb-key-save-delay", "200000");
    server_save_start(server);
    write_until_spooled(server);
    freeze_disk(disk);
    double longest = write_over(server, 8);
    /* Answered still? */
    redisReply *info = redisCommand(server->connection, "INFO uffd");
    redisReply *save = redisCommand(server->connection, "BGSAVE");
    thaw_disk(disk);
    test_note("the longest wait: %.1f s", longest);
    CHECK(longest < SECONDS_MOST + SLACK, "the server stood still for %.1f s", longest);
    CHECK(info && info->type != REDIS_REPLY_ERROR && save, "INFO, BGSAVE");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save_wait(server);
    CHECK(server_log_lines(server, "protection lifted, the snapshot is given up") == 1,
          "the log does not say why");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 1, "no save has failed");
    check_recovered(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"hung_server", hung_server, 120},
        {"stuck_after_a_second_freeze", stuck_after_a_second_freeze, 120},
        {"hung_in_a_freeze_that_fails", hung_in_a_freeze_that_fails, 30},
        {"late_watchdog", late_watchdog, 120},
        {"hung_opening", hung_opening, 120},
        {"hung_rename", hung_rename, 120},
        {"hung_rewrite", hung_rewrite, 60},
        {"shutdown_in_hung_rename", shutdown_in_hung_rename, 60},
        {"hung_with_heap", hung_with_heap, 120},
        {"hung_with_buffer", hung_with_buffer, 120},
        {"held_upkeep", held_upkeep, 120},
        {"hung_upkeep", hung_upkeep, 180},
        {"hung_with_notes", hung_with_notes, 180},
        {"hung_reader", hung_reader, 120},
        {"frozen_spool", frozen_spool, 120},
        {0},
    };
    return test_run("waits", cases, argc, argv);
}
