/* The module's commands: what they answer, and that whoever calls them wrongly, or
 * at the wrong moment, gets a clear error and changes nothing. */
#include "fill.h"
#include "replicas.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define KEYS      20000
#define SLOW_SAVE "100" /* microseconds a key */

static struct server *start(const char *config)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = format_text("save \"\"\n%s%s", FILL_CONFIG, config), .fault = ""});
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    return server;
}

/* ---- replies --------------------------------------------------------------------- */

/* The value of a name in a map that was sent as a flat array. */
static redisReply *field(redisReply *map, const char *name)
{
    CHECK(map->type == REDIS_REPLY_ARRAY && map->elements % 2 == 0, "not a flat map");
    for (size_t i = 0; i < map->elements; i += 2)
        if (strcmp(map->element[i]->str, name) == 0)
            return map->element[i + 1];
    fail("there is no field %s", name);
}

static const char *text(redisReply *map, const char *name)
{
    redisReply *value = field(map, name);
    CHECK(value->type == REDIS_REPLY_STRING || value->type == REDIS_REPLY_STATUS,
          "%s is no text", name);
    return value->str;
}

static long long number(redisReply *map, const char *name)
{
    redisReply *value = field(map, name);
    CHECK(value->type == REDIS_REPLY_INTEGER, "%s is no number", name);
    return value->integer;
}

/* The newest save of the history. */
static redisReply *last_save(struct server *server)
{
    redisReply *history = server_ok(server, "UFFD.HISTORY 1");
    CHECK(history->elements == 1, "%d saves", (int)history->elements);
    return history->element[0];
}

static void check_last_save(struct server *server, const char *cause, const char *result)
{
    redisReply *save = last_save(server);
    CHECK(strcmp(text(save, "cause"), cause) == 0 &&
              strcmp(text(save, "result"), result) == 0,
          "the last save: cause %s, result %s; expected %s, %s", text(save, "cause"),
          text(save, "result"), cause, result);
}

/* What the server sends back for lines of inline commands, as bytes. */
static const char *raw(struct server *server, const char *lines)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)server->port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(connect(connection, (struct sockaddr *)&address, sizeof(address)) == 0,
          "cannot connect");
    char *all = format_text("%s\r\nQUIT\r\n", lines);
    CHECK(write(connection, all, strlen(all)) == (ssize_t)strlen(all), "write");
    size_t size = 1 << 20, length = 0;
    char *answer = malloc(size);
    ssize_t got;
    while ((got = read(connection, answer + length, size - length - 1)) > 0)
        length += (size_t)got;
    answer[length] = '\0';
    close(connection);
    return answer;
}

/* ---- what they answer ------------------------------------------------------------ */

static void status(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    redisReply *idle = server_ok(server, "UFFD.STATUS");
    CHECK(strcmp(text(idle, "state"), "idle") == 0, "state");
    CHECK(number(idle, "save_id") == 0, "save_id");
    server_save_start(server);
    redisReply *saving = server_ok(server, "UFFD.STATUS");
    CHECK(strcmp(text(saving, "state"), "saving") == 0, "state");
    CHECK(strcmp(text(saving, "save_cause"), "command") == 0, "save_cause");
    CHECK(number(saving, "save_id") == 1, "save_id");
    sleep_msec(300);
    long long elapsed = number(server_ok(server, "UFFD.STATUS"), "save_elapsed_msec");
    CHECK(elapsed >= 300 && elapsed < 5000, "save_elapsed_msec is %lld", elapsed);
    CHECK(server_save_wait(server), "the save failed");
    CHECK(number(server_ok(server, "UFFD.STATUS"), "snapshots_ok") == 1, "snapshots_ok");
    /* Every field is in INFO, too. */
    for (size_t i = 0; i < idle->elements; i += 2) {
        const char *name = format_text("uffd_%s", idle->element[i]->str);
        CHECK(server_info(server, name), "INFO has no %s", name);
    }
    server_stop(server);
}

static void maps(void)
{
    struct server *server = start("");
    server_save(server);
    const char *flat = raw(server, "UFFD.STATUS");
    CHECK(flat[0] == '*', "RESP2: %.20s", flat);
    const char *map = strstr(raw(server, "HELLO 3\r\nUFFD.STATUS"), "\r\n%");
    CHECK(map && strstr(map, "\r\nversion\r\n"), "RESP3: no map");
    map = raw(server, "HELLO 3\r\nUFFD.HISTORY");
    CHECK(strstr(map, "*1\r\n%") && strstr(map, "\r\ncause\r\n"), "RESP3: no map");
    server_stop(server);
}

static void check_figures(redisReply *save, long long id)
{
    CHECK(number(save, "id") == id, "id %lld", number(save, "id"));
    CHECK(number(save, "keys") == KEYS, "keys %lld", number(save, "keys"));
    CHECK(number(save, "freeze_usec") > 0, "freeze_usec");
    CHECK(number(save, "duration_msec") >= 1000, "duration_msec");
    CHECK(number(save, "file_bytes") > KEYS * 10, "file_bytes");
    CHECK(number(save, "faults") >= 10, "faults %lld", number(save, "faults"));
    CHECK(number(save, "pages_preserved") >= 10, "pages_preserved");
    CHECK(number(save, "buffer_peak_bytes") >= 10 * 4096, "buffer_peak_bytes");
    long long p50 = number(save, "fault_wait_p50_usec");
    long long p99 = number(save, "fault_wait_p99_usec");
    long long longest = number(save, "fault_wait_max_usec");
    CHECK(p50 > 0 && p50 <= p99 && p99 <= longest && longest < 60000000,
          "waits: p50 %lld, p99 %lld, max %lld", p50, p99, longest);
}

static void history(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    CHECK(server_ok(server, "UFFD.HISTORY")->elements == 0, "saves before the first one");
    double before = (double)time(NULL) * 1000 - 1000;
    for (int save = 1; save <= 2; save++) {
        server_save_start(server);
        for (int i = 0; i < 50; i++)
            server_ok(server, "SET key:%d changed", i * 400);
        CHECK(server_ok(server, "UFFD.HISTORY")->elements == (size_t)save - 1,
              "a save that has not ended is there");
        CHECK(server_save_wait(server), "the save failed");
    }
    redisReply *all = server_ok(server, "UFFD.HISTORY");
    CHECK(all->elements == 2, "%d saves", (int)all->elements);
    check_figures(all->element[0], 2);
    check_figures(all->element[1], 1);
    check_last_save(server, "command", "ok");
    CHECK(text(all->element[0], "reason")[0] == '\0', "a reason");
    double started = (double)number(all->element[1], "started_msec");
    CHECK(started >= before && started < before + 60000, "started_msec %f", started);
    CHECK(server_ok(server, "UFFD.HISTORY 1")->elements == 1, "count 1");
    CHECK(server_ok(server, "UFFD.HISTORY 9223372036854775807")->elements == 2, "count");
    server_stop(server);
}

static void causes(void)
{
    struct server *server = start("");
    server_config_set(server, "repl-diskless-sync", "yes");
    server_config_set(server, "repl-diskless-sync-delay", "0");
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 10);
    check_last_save(server, "aof rewrite", "ok");
    server_ok(server, "SET some change");
    server_config_set(server, "save", "1 1");
    wait_for_info_above(server, "uffd_snapshots_ok", 1.5, 10);
    wait_until_no_child(server, 10);
    server_config_set(server, "save", "");
    check_last_save(server, "save point", "ok");
    struct server *replica = replica_start(server, NULL);
    replica_wait_link(replica);
    wait_until_no_child(server, 10);
    check_last_save(server, "replica", "ok");
    server_config_set(server, "repl-diskless-sync", "no");
    server_ok(replica, "REPLICAOF NO ONE");
    server_ok(replica, "DEBUG CHANGE-REPL-ID");
    replica_follow(replica, server);
    replica_wait_link(replica);
    wait_until_no_child(server, 10);
    check_last_save(server, "replica", "ok");
    check_fork_free(server, 4);
    server_stop(replica);
    server_stop(server);
}

static void results(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    server_ok(server, "UFFD.FAULT output_write on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save did not fail");
    server_ok(server, "UFFD.FAULT output_write off");
    check_last_save(server, "command", "failed");
    CHECK(strstr(text(last_save(server), "reason"), "Input/output error"), "reason: %s",
          text(last_save(server), "reason"));
    CHECK(server_log_lines(server, "uffd: save 1 failed: Input/output error") == 1,
          "the log");
    server_save_start(server);
    server_ok(server, "FLUSHALL");
    wait_until_no_child(server, 10);
    check_last_save(server, "command", "cancelled");
    redisReply *counted = server_ok(server, "UFFD.STATUS");
    CHECK(number(counted, "snapshots_failed") == 1 &&
              number(counted, "snapshots_cancelled") == 1,
          "%lld failed, %lld cancelled", number(counted, "snapshots_failed"),
          number(counted, "snapshots_cancelled"));
    /* A limit too small for the heap: the server's own fork. */
    server_ok(server, "UFFD.FAULT spool_open on");
    server_save(server);
    check_last_save(server, "command", "forked");
    CHECK(strstr(text(last_save(server), "reason"), "spool"), "reason: %s",
          text(last_save(server), "reason"));
    server_config_set(server, "uffd.fallback", "no");
    server_error(server, "BGSAVE");
    check_last_save(server, "command", "refused");
    CHECK(number(last_save(server), "id") == 4, "id");
    server_stop(server);
}

static void resetstat(void)
{
    struct server *server = start("");
    server_save(server);
    server_ok(server, "UFFD.FAULT spool_open on");
    server_save(server);
    redisReply *before = server_ok(server, "UFFD.STATUS");
    CHECK(number(before, "fork_fallbacks") == 1 && number(before, "snapshots_ok") == 1,
          "the counters do not count");
    CHECK(strcmp(server_text(server, "UFFD.RESETSTAT"), "OK") == 0, "the answer");
    redisReply *after = server_ok(server, "UFFD.STATUS");
    static const char *const counters[] = {"snapshots_ok", "snapshots_failed",
                                           "snapshots_cancelled", "forks_replaced",
                                           "fork_fallbacks"};
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        CHECK(number(after, counters[i]) == 0, "%s is not 0", counters[i]);
    CHECK(text(after, "last_fallback_reason")[0] == '\0', "last_fallback_reason");
    CHECK(server_ok(server, "UFFD.HISTORY")->elements == 0, "the history is not empty");
    server_ok(server, "UFFD.FAULT spool_open off");
    server_save(server);
    CHECK(number(last_save(server), "id") == 3, "numbers begin anew");
    server_stop(server);
}

/* The finding of this name, as its line. */
static const char *finding(struct server *server, const char *name)
{
    redisReply *lines = server_ok(server, "UFFD.DOCTOR");
    for (size_t i = 0; i < lines->elements; i++) {
        const char *line = lines->element[i]->str;
        if (strlen(line) > 5 && strncmp(line + 5, name, strlen(name)) == 0 &&
            line[5 + strlen(name)] == ':')
            return line;
    }
    fail("no finding %s", name);
}

static void check_finding(struct server *server, const char *name, const char *status)
{
    const char *line = finding(server, name);
    CHECK(strncmp(line, status, strlen(status)) == 0, "expected %s: %s", status, line);
    bool remedy = strstr(line, " - remedy: ");
    CHECK(remedy == (strcmp(status, "OK ") != 0), "remedy: %s", line);
}

static void doctor(void)
{
    struct server *server = start("");
    static const char *const fine[] = {"server", "allocator",    "privilege",
                                       "kernel", "buffer-limit", "fallback"};
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
        check_finding(server, fine[i], "OK ");
    server_config_set(server, "uffd.huge-pages", "no");
    check_finding(server, "huge-pages", "WARN ");
    server_config_set(server, "uffd.huge-pages", "yes");
    server_config_set(server, "uffd.spool-dir", "/dev/shm");
    check_finding(server, "spool-dir", "WARN ");
    server_config_set(server, "uffd.buffer-policy", "block");
    check_finding(server, "spool-dir", "OK ");
    server_config_set(server, "uffd.buffer-policy", "spool");
    char *gone = server_path(server, "gone");
    CHECK(mkdir(gone, 0755) == 0, "mkdir");
    server_config_set(server, "uffd.spool-dir", gone);
    check_finding(server, "spool-dir", "OK ");
    CHECK(rmdir(gone) == 0, "rmdir");
    check_finding(server, "spool-dir", "FAIL ");
    server_save(server);
    check_finding(server, "fallback", "WARN ");
    CHECK(strstr(finding(server, "fallback"), "1 saves fell back"), "%s",
          finding(server, "fallback"));
    const char *maps = strstr(raw(server, "HELLO 3\r\nUFFD.DOCTOR"), "*10\r\n%4");
    CHECK(maps && strstr(maps, "\r\nremedy\r\n"), "RESP3: no maps");
    server_stop(server);
}

/* What will fall back is said before it has happened. */
static void doctor_foresees(void)
{
    struct server *server = start("aof-use-rdb-preamble no\n");
    check_finding(server, "fallback", "OK ");
    server_config_set(server, "appendonly", "yes");
    wait_until_no_child(server, 10);
    server_ok(server, "UFFD.RESETSTAT");
    check_finding(server, "fallback", "WARN ");
    CHECK(strstr(finding(server, "fallback"), "CONFIG SET aof-use-rdb-preamble yes"),
          "%s", finding(server, "fallback"));
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 10);
    CHECK(strstr(finding(server, "fallback"), "; 1 saves fell back so far"), "%s",
          finding(server, "fallback"));
    server_ok(server, "UFFD.RESETSTAT");
    server_config_set(server, "aof-use-rdb-preamble", "yes");
    check_finding(server, "fallback", "OK ");
    server_stop(server);
}

/* ---- the log --------------------------------------------------------------------- */

static void log_of_a_save(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    server_save_start(server);
    sleep_msec(300);
    CHECK(server_log_lines(server, "uffd: save 1 started: cause command, freeze ") == 1,
          "no line at the start");
    CHECK(server_log_lines(server, "uffd: save 1 ok") == 0, "ended before the end");
    CHECK(server_save_wait(server), "the save failed");
    CHECK(server_log_lines(server, "uffd: save 1 started") == 1, "started");
    CHECK(server_log_lines(server, "uffd: save 1 ok: cause command, ") == 1, "ended");
    CHECK(server_log_lines(server, "uffd: save") == 2, "more lines than two");
    /* Too long a line would have lost its end. */
    CHECK(server_log_lines(server, "longest 0 us)") == 1, "cut off");
    server_stop(server);
}

/* Every save fails; the warnings come to an end. */
static void warnings_are_limited(void)
{
    struct server *server = start("");
    server_config_set(server, "stop-writes-on-bgsave-error", "no");
    server_ok(server, "UFFD.FAULT output_write on");
    for (int i = 0; i < 20; i++) {
        server_save_start(server);
        server_save_wait(server);
    }
    int lines = server_log_lines(server, "uffd: save") -
                server_log_lines(server, " started: cause");
    CHECK(lines == 10, "%d warnings", lines);
    CHECK(server_log_count(server, "Background saving error") == 20,
          "the server's own lines");
    server_stop(server);
}

/* ---- calls that are wrong -------------------------------------------------------- */

static const char *const commands[] = {"UFFD.STATUS", "UFFD.HISTORY",
                                       "UFFD.DOCTOR", "UFFD.RESETSTAT",
                                       "UFFD.HELP",   "UFFD.DIRTYRATE"};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))
/* All but the last, which waits (test_dirty_rate.c), answer anywhere. */
#define ANSWER_ANYWHERE (COMMANDS - 1)

static void wrong_arguments(void)
{
    static const struct {
        const char *command, *error;
    } calls[] = {
        {"UFFD.STATUS x", "ERR wrong number of arguments for 'uffd.status' command"},
        {"UFFD.HISTORY 1 2", "ERR wrong number of arguments for 'uffd.history' command"},
        {"UFFD.HISTORY x", "ERR value is not an integer or out of range"},
        {"UFFD.HISTORY 1.5", "ERR value is not an integer or out of range"},
        {"UFFD.HISTORY 9223372036854775808",
         "ERR value is not an integer or out of range"},
        {"UFFD.HISTORY 0", "ERR count must be positive"},
        {"UFFD.HISTORY -1", "ERR count must be positive"},
        {"UFFD.RESETSTAT all",
         "ERR wrong number of arguments for 'uffd.resetstat' command"},
        {"UFFD.DOCTOR me", "ERR wrong number of arguments for 'uffd.doctor' command"},
        {"UFFD.HELP me", "ERR wrong number of arguments for 'uffd.help' command"},
    };
    struct server *server = start("");
    server_save(server);
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        const char *error = server_error(server, calls[i].command);
        CHECK(strcasecmp(error, calls[i].error) == 0, "%s: %s", calls[i].command, error);
    }
    server_error(server, "UFFD.HISTORY %s", "");
    CHECK(server_ok(server, "UFFD.HISTORY")->elements == 1, "something was changed");
    server_stop(server);
}

/* Each command once, on a connection where all must be answered without an error. */
static void call_all(struct server *server)
{
    for (size_t i = 0; i < ANSWER_ANYWHERE; i++)
        server_ok(server, commands[i]);
}

static void in_transaction_and_script(void)
{
    struct server *server = start("");
    server_ok(server, "MULTI");
    call_all(server);
    redisReply *replies = server_ok(server, "EXEC");
    CHECK(replies->elements == ANSWER_ANYWHERE, "EXEC");
    for (size_t i = 0; i < ANSWER_ANYWHERE; i++)
        CHECK(replies->element[i]->type != REDIS_REPLY_ERROR, "%s: %s", commands[i],
              replies->element[i]->str);
    server_ok(server, "EVAL %s 0", "return redis.call('UFFD.STATUS')");
    server_ok(server, "EVAL %s 0", "return redis.call('UFFD.HISTORY', 5)");
    const char *error =
        server_error(server, "EVAL %s 0", "return redis.call('UFFD.RESETSTAT')");
    CHECK(strstr(error, "not allowed from script"), "%s", error);
    error = server_error(server, "EVAL %s 0", "return redis.call('UFFD.HISTORY', 'x')");
    CHECK(strstr(error, "not an integer"), "%s", error);
    server_stop(server);
}

static void while_saving(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    server_save_start(server);
    call_all(server);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "over too soon");
    CHECK(server_save_wait(server), "the save failed");
    check_last_save(server, "command", "ok");
    server_stop(server);
}

static void while_loading(void)
{
    struct server *server = start("loading-process-events-interval-bytes 1024\n");
    struct server observer = *server;
    observer.connection = server_connect(server);
    server_config_set(server, "key-load-delay", "100");
    redisAppendCommand(server->connection, "DEBUG RELOAD");
    int done = 0;
    while (!done)
        redisBufferWrite(server->connection, &done);
    double end = clock_seconds() + 5;
    while (server_info_number(&observer, "loading") == 0)
        CHECK(clock_seconds() < end, "it does not load");
    call_all(&observer);
    CHECK(server_info_number(&observer, "loading") == 1, "over too soon");
    server_config_set(&observer, "key-load-delay", "0");
    redisReply *reply;
    CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK &&
              reply->type == REDIS_REPLY_STATUS,
          "DEBUG RELOAD");
    server_stop(server);
}

/* Also without its master and its data. */
static void on_replica(void)
{
    struct server *master = start("");
    struct server *replica = replica_start(
        master, &(struct server_options){.config = "replica-serve-stale-data no\n"});
    replica_wait_link(replica);
    call_all(replica);
    server_stop(master);
    wait_for_info(replica, "master_link_status", "down", 10);
    CHECK(strncmp(server_error(replica, "GET key"), "MASTERDOWN", 10) == 0, "not stale");
    call_all(replica);
    server_stop(replica);
}

/* Also of a cluster that does not work yet: nothing of theirs belongs to a slot. */
static void in_cluster(void)
{
    struct server *server = start("cluster-enabled yes\n");
    CHECK(strncmp(server_error(server, "GET key"), "CLUSTERDOWN", 11) == 0, "it works");
    call_all(server);
    server_save(server);
    check_last_save(server, "command", "ok");
    server_stop(server);
}

static void without_permission(void)
{
    struct server *server = start("");
    server_save(server);
    server_ok(server,
              "ACL SETUSER guest on >secret ~* +@all -@admin -@dangerous "
              "-uffd.status -uffd.history -uffd.resetstat -uffd.doctor -uffd.help "
              "-uffd.dirtyrate +acl");
    server_ok(server, "AUTH guest secret");
    for (size_t i = 0; i < COMMANDS; i++) {
        const char *error = server_error(server, commands[i]);
        CHECK(strncmp(error, "NOPERM ", 7) == 0, "%s: %s", commands[i], error);
    }
    server_ok(server, "ACL SETUSER guest +uffd.status");
    server_ok(server, "UFFD.STATUS");
    server_ok(server, "ACL SETUSER default on nopass");
    server_ok(server, "AUTH default x");
    CHECK(server_ok(server, "UFFD.HISTORY")->elements == 1, "something was changed");
    server_stop(server);
}

/* ---- what the server knows of them ----------------------------------------------- */

static bool has_text(redisReply *list, const char *wanted)
{
    for (size_t i = 0; i < list->elements; i++)
        if (list->element[i]->str && strcasecmp(list->element[i]->str, wanted) == 0)
            return true;
    return false;
}

static bool is_in_category(struct server *server, const char *command,
                           const char *category)
{
    redisReply *info = server_ok(server, "COMMAND INFO %s", command);
    return has_text(info->element[0]->element[6], category);
}

/* Servers before 7.2 know no categories for commands of modules; ACL CAT of some
 * later ones leaves them out. */
static void check_categories(struct server *server)
{
    if (atof(server_info(server, "redis_version")) < 7.15)
        return;
    CHECK(is_in_category(server, "uffd.resetstat", "@admin") &&
              is_in_category(server, "uffd.history", "@admin"),
          "admin");
    CHECK(!is_in_category(server, "uffd.status", "@admin"), "admin: status");
    CHECK(is_in_category(server, "uffd.resetstat", "@dangerous") &&
              is_in_category(server, "uffd.status", "@dangerous"),
          "dangerous");
    CHECK(!is_in_category(server, "uffd.help", "@dangerous"), "dangerous: help");
}

/* One version, in INFO and as the number that the server keeps. */
static void check_module_version(struct server *server)
{
    int major, minor, patch;
    CHECK(sscanf(server_info(server, "uffd_version"), "%d.%d.%d", &major, &minor,
                 &patch) == 3,
          "uffd_version is %s", server_info(server, "uffd_version"));
    redisReply *list = server_ok(server, "MODULE LIST");
    for (size_t i = 0; i < list->elements; i++)
        if (strcmp(text(list->element[i], "name"), "uffd") == 0) {
            CHECK(number(list->element[i], "ver") == major * 10000 + minor * 100 + patch,
                  "MODULE LIST says %lld", number(list->element[i], "ver"));
            return;
        }
    fail("MODULE LIST has no uffd");
}

static void described(void)
{
    struct server *server = start("");
    redisReply *help = server_ok(server, "UFFD.HELP");
    CHECK(help->elements == 2 * COMMANDS, "HELP has %d lines", (int)help->elements);
    for (size_t i = 0; i < COMMANDS; i++) {
        redisReply *docs = server_ok(server, "COMMAND DOCS %s", commands[i]);
        CHECK(docs->elements == 2, "COMMAND DOCS %s", commands[i]);
        CHECK(strlen(text(docs->element[1], "summary")) > 10, "summary");
        CHECK(strcmp(text(docs->element[1], "group"), "module") == 0, "group");
        bool found = false;
        for (size_t line = 0; line < help->elements; line += 2)
            found |=
                strncmp(help->element[line]->str, commands[i], strlen(commands[i])) == 0;
        CHECK(found, "UFFD.HELP does not tell of %s", commands[i]);
    }
    redisReply *info = server_ok(server, "COMMAND INFO uffd.resetstat");
    redisReply *flags = info->element[0]->element[2];
    CHECK(info->element[0]->element[1]->integer == 1, "arity");
    CHECK(has_text(flags, "admin") && has_text(flags, "noscript"), "flags");
    info = server_ok(server, "COMMAND INFO uffd.history");
    CHECK(info->element[0]->element[1]->integer == -1, "arity");
    check_categories(server);
    check_module_version(server);
    server_stop(server);
}

/* ---- what the operator is told of them ------------------------------------------- */

static const char *document(const char *variable, const char *otherwise)
{
    const char *path = getenv(variable);
    FILE *file = fopen(path ? path : otherwise, "r");
    CHECK(file, "no %s", path ? path : otherwise);
    char *content = calloc(1, 1 << 20);
    size_t length = fread(content, 1, (1 << 20) - 1, file);
    fclose(file);
    CHECK(length > 0, "nothing in %s", otherwise);
    return content;
}

/* That a name stands there, between backquotes. */
static void check_described(const char *content, const char *name)
{
    CHECK(strstr(content, format_text("`%s`", name)), "%s is not described", name);
}

/* INFO has all fields that the README has, and the other way round. */
static void info_in_readme(void)
{
    struct server *server = start("");
    const char *info = server_text(server, "INFO uffd");
    const char *readme = document("README_FILE", "README.md");
    const char *section = strstr(readme, "\n## INFO\n"), *end, *at;
    CHECK(section && (end = strstr(section + 1, "\n## ")), "the README has no ## INFO");
    section = format_text("%.*s", (int)(end - section), section);
    int fields = 0;
    for (at = info; (at = strstr(at, "\nuffd_")); fields++) {
        at++;
        check_described(section, format_text("%.*s", (int)strcspn(at, ":"), at));
    }
    CHECK(fields > 40, "INFO has %d fields", fields);
    for (at = section; (at = strstr(at, "`uffd_")); fields--) {
        at++;
        int length = (int)strcspn(at, "`");
        CHECK(strstr(info, format_text("\n%.*s:", length, at)), "INFO has no %.*s",
              length, at);
    }
    CHECK(fields == 0, "some are described twice");
    server_stop(server);
}

static void answers_in_manual(void)
{
    struct server *server = start("");
    const char *manual = document("OPERATIONS_FILE", "docs/OPERATIONS.md");
    server_save(server);
    redisReply *save = last_save(server),
               *rate = server_command(server, "UFFD.DIRTYRATE 1");
    for (size_t i = 0; i < save->elements; i += 2)
        check_described(manual, save->element[i]->str);
    for (size_t i = 0; rate->type != REDIS_REPLY_ERROR && i < rate->elements; i += 2)
        check_described(manual, rate->element[i]->str);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"status", status, 30},
        {"maps", maps, 20},
        {"history", history, 30},
        {"causes", causes, 60},
        {"results", results, 30},
        {"doctor", doctor, 20},
        {"doctor_foresees", doctor_foresees, 20},
        {"resetstat", resetstat, 20},
        {"log_of_a_save", log_of_a_save, 30},
        {"warnings_are_limited", warnings_are_limited, 60},
        {"wrong_arguments", wrong_arguments, 20},
        {"in_transaction_and_script", in_transaction_and_script, 20},
        {"while_saving", while_saving, 30},
        {"while_loading", while_loading, 30},
        {"on_replica", on_replica, 30},
        {"in_cluster", in_cluster, 20},
        {"without_permission", without_permission, 20},
        {"described", described, 20},
        {"info_in_readme", info_in_readme, 20},
        {"answers_in_manual", answers_in_manual, 20},
        {0},
    };
    return test_run("commands", cases, argc, argv);
}
