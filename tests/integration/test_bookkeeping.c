/* The server, its clients and its operators see a background save as ever. */
#include "fill.h"
#include "rdbfile.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS      20000
#define SLOW_SAVE "100" /* microseconds a key: some three seconds */

static struct server *start_slow(const char *config)
{
    struct server *server = server_start(
        &(struct server_options){.config = format_text("%s%s", FILL_CONFIG, config)});
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    return server;
}

/* A dump of one key, and a save of many that has just begun. */
static struct server *start_saving_over_old_dump(char **old_dump)
{
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    *old_dump = server_path(server, "old.rdb");
    server_ok(server, "SET old data");
    server_ok(server, "SAVE");
    copy_file(server_path(server, "dump.rdb"), *old_dump);
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    server_save_start(server);
    sleep_msec(200);
    return server;
}

static bool is_saving(struct server *server)
{
    return server_info_number(server, "rdb_bgsave_in_progress") == 1;
}

static void wait_until_idle(struct server *server)
{
    WAIT_UNTIL(!is_saving(server), 1, "the save was not ended within a second");
}

static void check_no_temporary_file(struct server *server)
{
    const char *left;
    /* A thread of the server may be about to remove it. */
    WAIT_UNTIL(!(left = server_temporary_file(server)), 1, "left behind: %s", left);
}

static void no_child_process(void)
{
    needs_module();
    struct server *server = start_slow("");
    server_save_start(server);
    for (int i = 0; i < 20; i++) {
        int children = server_children(server);
        CHECK(children == 0, "%d child processes", children);
        sleep_msec(10);
    }
    CHECK(is_saving(server), "the save is over too soon");
    CHECK(server_temporary_file(server), "no temporary file while saving");
    CHECK(server_save_wait(server), "the save failed");
    check_no_temporary_file(server);
    check_fork_free(server, 1);
    server_stop(server);
}

static void info_while_saving(void)
{
    struct server *server = start_slow("");
    server_ok(server, "SET one more");
    double began = clock_seconds();
    server_save_start(server);
    CHECK(server_info_number(server, "current_save_keys_total") == KEYS + 1,
          "current_save_keys_total is %s",
          server_info(server, "current_save_keys_total"));
    double processed = 0, seconds = 0;
    while (is_saving(server)) {
        double now = server_info_number(server, "current_save_keys_processed");
        double time = server_info_number(server, "rdb_current_bgsave_time_sec");
        processed = now > processed ? now : processed;
        seconds = time > seconds ? time : seconds;
        sleep_msec(20);
    }
    CHECK(processed > 1000 && processed <= KEYS + 1, "%d keys processed were reported",
          (int)processed);
    CHECK(seconds >= 1 && seconds < clock_seconds() - began + 1,
          "rdb_current_bgsave_time_sec was %g", seconds);
    server_stop(server);
}

static void info_after_saving(void)
{
    struct server *server = start_slow("");
    for (int i = 0; i < 100; i++)
        server_ok(server, "SET before:%d value", i);
    double start_time = server_info_number(server, "rdb_last_save_time");
    double forks = server_info_number(server, "total_forks");
    sleep_msec(1100);
    double began = clock_seconds();
    server_save_start(server);
    for (int i = 0; i < 50; i++)
        server_ok(server, "SET key:%d changed", i * 100);
    CHECK(is_saving(server), "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    /* Saved are the changes up to the beginning. */
    CHECK(server_info_number(server, "rdb_changes_since_last_save") == 50,
          "rdb_changes_since_last_save is %s",
          server_info(server, "rdb_changes_since_last_save"));
    CHECK(server_info_number(server, "rdb_last_save_time") > start_time,
          "rdb_last_save_time stands still");
    CHECK(server_integer(server, "LASTSAVE") ==
              (long long)server_info_number(server, "rdb_last_save_time"),
          "LASTSAVE");
    double seconds = server_info_number(server, "rdb_last_bgsave_time_sec");
    CHECK(seconds >= 1 && seconds < clock_seconds() - began + 1,
          "rdb_last_bgsave_time_sec is %g", seconds);
    CHECK(server_info_number(server, "rdb_current_bgsave_time_sec") == -1,
          "rdb_current_bgsave_time_sec");
    CHECK(server_info_number(server, "total_forks") == forks + 1, "total_forks");
    CHECK(server_info_number(server, "latest_fork_usec") > 0, "latest_fork_usec");
    CHECK(server_info_number(server, "rdb_last_cow_size") > 0, "rdb_last_cow_size");
    server_stop(server);
}

static void module_info(void)
{
    needs_module();
    struct server *server = start_slow("");
    CHECK(strcmp(server_info(server, "uffd_state"), "idle") == 0, "uffd_state");
    CHECK(strstr(server_text(server, "INFO uffd"), "uffd_state:idle"), "INFO uffd");
    server_save_start(server);
    CHECK(strcmp(server_info(server, "uffd_state"), "saving") == 0, "uffd_state is %s",
          server_info(server, "uffd_state"));
    for (int i = 0; i < KEYS; i += 10)
        server_ok(server, "SETRANGE key:%d 0 changed", i);
    CHECK(is_saving(server), "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    WAIT_UNTIL(strcmp(server_info(server, "uffd_state"), "idle") == 0, 1,
               "uffd_state is %s", server_info(server, "uffd_state"));
    double freeze = server_info_number(server, "uffd_last_freeze_usec");
    CHECK(freeze > 0 && freeze < 1e6, "uffd_last_freeze_usec is %g", freeze);
    CHECK(server_info_number(server, "latest_fork_usec") >= freeze,
          "latest_fork_usec is less than the freeze");
    CHECK(server_info_number(server, "uffd_last_save_msec") > 1000,
          "uffd_last_save_msec");
    double pages = server_info_number(server, "uffd_last_pages_preserved");
    CHECK(pages > 100 && pages < 20000, "uffd_last_pages_preserved is %g", pages);
    CHECK(server_info_number(server, "uffd_last_faults") > 0, "uffd_last_faults");
    CHECK(server_info_number(server, "rdb_last_cow_size") >= pages * 4096,
          "rdb_last_cow_size is less than the pages preserved");
    CHECK(server_info_number(server, "uffd_snapshots_ok") == 1, "uffd_snapshots_ok");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 0,
          "uffd_snapshots_failed");
    CHECK(server_info_number(server, "uffd_buffer_limit_bytes") == 256 << 20,
          "uffd_buffer_limit_bytes");
    CHECK(server_info_number(server, "uffd_buffer_peak_bytes") > 0 &&
              server_info_number(server, "uffd_buffer_peak_bytes") <= 256 << 20,
          "uffd_buffer_peak_bytes");
    server_stop(server);
}

static void second_save(void)
{
    struct server *server = start_slow("");
    server_save_start(server);
    const char *in_progress = "ERR Background save already in progress";
    const char *error = server_error(server, "BGSAVE");
    CHECK(strcmp(error, in_progress) == 0, "BGSAVE: %s", error);
    error = server_error(server, "BGSAVE SCHEDULE");
    CHECK(strcmp(error, in_progress) == 0, "BGSAVE SCHEDULE: %s", error);
    error = server_error(server, "SAVE");
    CHECK(strcmp(error, in_progress) == 0, "SAVE: %s", error);
    CHECK(server_save_wait(server), "the save failed");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save(server);
    check_fork_free(server, 2);
    server_stop(server);
}

/* BGSAVE SCHEDULE waits for the end of an AOF rewrite. */
static void scheduled_save(void)
{
    struct server *server = start_slow("");
    server_ok(server, "BGREWRITEAOF");
    CHECK(server_info_number(server, "aof_rewrite_in_progress") == 1, "no AOF rewrite");
    server_error(server, "BGSAVE");
    const char *answer = server_text(server, "BGSAVE SCHEDULE");
    CHECK(strcmp(answer, "Background saving scheduled") == 0, "%s", answer);
    server_config_set(server, "rdb-key-save-delay", "0");
    double saves = server_info_number(server, "rdb_saves");
    while (server_info_number(server, "aof_rewrite_in_progress") == 1 ||
           server_info_number(server, "rdb_saves") == saves)
        sleep_msec(20);
    CHECK(server_save_wait(server), "the save failed");
    check_dump(server_path(server, "dump.rdb"), true);
    server_stop(server);
}

static void save_in_transaction(void)
{
    struct server *server = start_slow("");
    server_config_set(server, "rdb-key-save-delay", "0");
    double saves = server_info_number(server, "rdb_saves");
    server_ok(server, "MULTI");
    server_ok(server, "SET in transaction");
    server_ok(server, "BGSAVE");
    server_ok(server, "EXEC");
    while (server_info_number(server, "rdb_saves") == saves)
        sleep_msec(20);
    CHECK(server_save_wait(server), "the save failed");
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    check_fork_free(server, 1);
    server_stop(server);
}

/* What a child says of its copies ("Fork CoW for RDB: ...") the module says of the pages
 * it has kept, in a line of its own; with a fork the server's line is there again. */
static void check_cost_is_logged(struct server *server, int forked, int kept)
{
    int lines = server_log_lines(server, "Fork CoW for RDB: current");
    CHECK(lines == forked, "%d lines of a child's cost, not %d", lines, forked);
    lines = server_log_lines(server, "pages preserved, buffer peak");
    CHECK(lines == kept, "%d lines of the module's cost, not %d", lines, kept);
}

static void log_lines(void)
{
    struct server *server = start_slow("");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save(server);
    CHECK(server_log_count(server, "Background saving started by pid ") == 1, "started");
    CHECK(server_log_count(server, "DB saved on disk") == 1, "saved");
    CHECK(server_log_count(server, "Background saving terminated with success") == 1,
          "terminated");
    bool module = server->has_module;
    check_cost_is_logged(server, !module, module);
    if (module) {
        server_config_set(server, "uffd.enabled", "no");
        server_save(server);
        check_cost_is_logged(server, 1, 1);
    }
    server_stop(server);
}

static void end_of_shutdown(struct server *server)
{
    int code = server_wait_exit(server);
    CHECK(code == 0, "the server ended with code %d", code);
    check_no_temporary_file(server);
}

static void shutdown_without_saving(void)
{
    char *old_dump;
    struct server *server = start_saving_over_old_dump(&old_dump);
    void *reply = redisCommand(server->connection, "SHUTDOWN NOSAVE");
    CHECK(!reply, "SHUTDOWN was refused");
    end_of_shutdown(server);
    CHECK(files_are_equal(old_dump, server_path(server, "dump.rdb")),
          "the old dump was changed");
}

static void shutdown_with_saving(void)
{
    char *old_dump;
    struct server *server = start_saving_over_old_dump(&old_dump);
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "SET later value");
    const char *digest = server_digest(server);
    void *reply = redisCommand(server->connection, "SHUTDOWN SAVE");
    CHECK(!reply, "SHUTDOWN was refused");
    end_of_shutdown(server);
    const char *loaded = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(loaded && strcmp(loaded, digest) == 0, "the last change was not saved");
}

/* SIGTERM is what service managers send. */
static void terminated_by_signal(void)
{
    char *old_dump;
    struct server *server = start_saving_over_old_dump(&old_dump);
    kill(server->pid, SIGTERM);
    end_of_shutdown(server);
    CHECK(files_are_equal(old_dump, server_path(server, "dump.rdb")),
          "the old dump was changed");
}

static void flush_ends_the_save(void)
{
    char *old_dump;
    struct server *server = start_saving_over_old_dump(&old_dump);
    server_ok(server, "FLUSHALL");
    wait_until_idle(server);
    check_no_temporary_file(server);
    CHECK(files_are_equal(old_dump, server_path(server, "dump.rdb")),
          "the old dump was changed");
    CHECK(strcmp(server_info(server, "rdb_last_bgsave_status"), "ok") == 0,
          "a save ended on request counts as failed");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "SET after flush");
    server_save(server);
    check_dump(server_path(server, "dump.rdb"), true);
    server_stop(server);
}

static void reload_while_saving(void)
{
    struct server *server = start_slow("");
    const char *digest = server_digest(server);
    server_save_start(server);
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "SET later value");
    server_ok(server, "DEBUG RELOAD");
    CHECK(server_integer(server, "EXISTS later") == 1, "the reload lost data");
    const char *reloaded = server_digest(server);
    CHECK(strcmp(reloaded, digest) != 0, "the later change is not there");
    CHECK(server_save_wait(server), "the save failed");
    check_no_temporary_file(server);
    const char *loaded = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(loaded && (strcmp(loaded, digest) == 0 || strcmp(loaded, reloaded) == 0),
          "the dump is neither of the two states");
    check_dump(server_path(server, "dump.rdb"), true);
    server_stop(server);
}

/* What strace saw: calls that make a process, not a thread. */
static int processes_made(const char *trace)
{
    FILE *file = fopen(trace, "r");
    char line[4096];
    int count = 0;
    CHECK(file, "strace wrote nothing");
    while (fgets(line, sizeof line, file)) {
        bool makes = strstr(line, "fork(") ||
                     (strstr(line, "clone") && !strstr(line, "CLONE_THREAD") &&
                      !strstr(line, "resumed"));
        if (makes && ++count == 1)
            test_note("seen: %.100s", line);
    }
    fclose(file);
    return count;
}

static pid_t start_trace(struct server *server, const char *trace)
{
    char *errors = format_text("%s/strace-errors", test_directory());
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen(errors, "w", stderr))
            _exit(1);
        execlp("strace", "strace", "-f", "-e", "trace=fork,vfork,clone,clone3", "-o",
               trace, "-p", format_text("%d", (int)server->pid), (char *)NULL);
        _exit(127);
    }
    char *find = format_text("grep -qs attached '%s'", errors);
    for (int i = 0; system(find) != 0; i++) {
        if (i == 100 || waitpid(pid, NULL, WNOHANG) == pid)
            skip("strace cannot attach here");
        sleep_msec(20);
    }
    return pid;
}

static int processes_of_a_save(struct server *server, const char *name)
{
    char *trace = format_text("%s/%s", test_directory(), name);
    pid_t tracer = start_trace(server, trace);
    server_save(server);
    kill(tracer, SIGINT);
    waitpid(tracer, NULL, 0);
    return processes_made(trace);
}

/* First with the server's own fork, to know that one would be seen. */
static void system_calls(void)
{
    if (run_program(NULL, (const char *[]){"strace", "-V", NULL}) != 0)
        skip("no strace");
    struct server *server = server_start(NULL);
    fill(server->connection, FILL_ALL, 50, test_seed());
    if (server->has_module)
        server_config_set(server, "uffd.enabled", "no");
    int count = processes_of_a_save(server, "trace-with-fork");
    CHECK(count == 1, "%d processes seen to be made by a save with fork", count);
    if (server->has_module) {
        server_config_set(server, "uffd.enabled", "yes");
        count = processes_of_a_save(server, "trace");
        CHECK(count == 0, "a process was made");
    }
    server_stop(server);
}

/* The debugger of scripts forks for its session: a real process. */
static redisContext *start_debugging(struct server *server)
{
    redisContext *client = server_connect(server);
    freeReplyObject(redisCommand(client, "SCRIPT DEBUG YES"));
    redisAppendCommand(client, "EVAL %s 0", "return redis.call('dbsize')");
    int done = 0, children = 0;
    redisBufferWrite(client, &done);
    WAIT_UNTIL((children = server_children(server)), 5, "no child process");
    CHECK(children == 1, "%d child processes", children);
    return client;
}

static void script_debugger_forks(void)
{
    struct server *server = server_start(NULL);
    fill(server->connection, FILL_ALL, 50, test_seed());
    redisContext *client = start_debugging(server);
    server_save(server);
    check_dump(server_path(server, "dump.rdb"), true);
    redisFree(client);
    check_fork_free(server, 1);
    server_stop(server);
}

/* What the script asks the module for must not be taken from memory that only the parent
 * has. */
static void script_debugger_asks(void)
{
    needs_module();
    struct server *server = server_start(NULL);
    fill(server->connection, FILL_ALL, 50, test_seed());
    server_save(server);
    redisContext *client = server_connect(server);
    freeReplyObject(redisCommand(client, "SCRIPT DEBUG YES"));
    redisAppendCommand(client, "EVAL %s 0",
                       "redis.pcall('info', 'everything') redis.pcall('uffd.status') "
                       "redis.pcall('uffd.doctor') redis.pcall('uffd.dirtyrate') "
                       "return redis.call('dbsize')");
    redisReply *reply;
    bool ended = false;
    /* Not before it has stopped: what comes together with EVAL is the parent's. */
    CHECK(redisGetReply(client, (void **)&reply) == REDIS_OK, "no session");
    redisAppendCommand(client, "continue");
    while (!ended && redisGetReply(client, (void **)&reply) == REDIS_OK)
        for (size_t i = 0; i < reply->elements; i++)
            ended |= strstr(reply->element[i]->str, "<endsession>") != NULL;
    CHECK(ended, "the session has crashed");
    CHECK(server_log_count(server, "crashed by signal") == 0, "a child crashed");
    server_stop(server);
}

/* Its process shares all memory that is frozen, and leaves while it still is. */
static void script_debugger_while_saving(void)
{
    struct server *server = start_slow("");
    fill(server->connection, FILL_ALL, 50, test_seed());
    const char *digest = server_digest(server);
    server_save_start(server);
    redisContext *client = start_debugging(server);
    for (int i = 0; i < KEYS; i += 10)
        server_ok(server, "SETRANGE key:%d 0 changed", i);
    redisFree(client);
    for (int i = 0; i < KEYS; i += 10)
        server_ok(server, "SETRANGE key:%d 0 again", i);
    CHECK(is_saving(server), "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
    check_fork_free(server, 1);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"no_child_process", no_child_process, 30},
        {"info_while_saving", info_while_saving, 30},
        {"info_after_saving", info_after_saving, 30},
        {"module_info", module_info, 30},
        {"second_save", second_save, 30},
        {"scheduled_save", scheduled_save, 30},
        {"save_in_transaction", save_in_transaction, 30},
        {"log_lines", log_lines, 20},
        {"shutdown_without_saving", shutdown_without_saving, 20},
        {"shutdown_with_saving", shutdown_with_saving, 20},
        {"terminated_by_signal", terminated_by_signal, 20},
        {"flush_ends_the_save", flush_ends_the_save, 20},
        {"reload_while_saving", reload_while_saving, 30},
        {"system_calls", system_calls, 30},
        {"script_debugger_asks", script_debugger_asks, 30},
        {"script_debugger_forks", script_debugger_forks, 20},
        {"script_debugger_while_saving", script_debugger_while_saving, 30},
        {0},
    };
    return test_run("bookkeeping", cases, argc, argv);
}
