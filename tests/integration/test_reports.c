/* What the operator is told of saves: UFFD.STATUS, UFFD.HISTORY and the counters, by
 * UFFD.DOCTOR, in the log; and that the documents name all of it. */
#include "answers.h"
#include "replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- status and history ---------------------------------------------------------- */

static void status(void)
{
    struct server *server = answering_start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    redisReply *idle = server_ok(server, "UFFD.STATUS");
    CHECK(strcmp(answer_text(idle, "state"), "idle") == 0, "state");
    CHECK(answer_number(idle, "save_id") == 0, "save_id");
    double began = clock_seconds();
    server_save_start(server);
    redisReply *saving = server_ok(server, "UFFD.STATUS");
    CHECK(strcmp(answer_text(saving, "state"), "saving") == 0, "state");
    CHECK(strcmp(answer_text(saving, "save_cause"), "command") == 0, "save_cause");
    CHECK(answer_number(saving, "save_id") == 1, "save_id");
    sleep_msec(300);
    long long elapsed =
        answer_number(server_ok(server, "UFFD.STATUS"), "save_elapsed_msec");
    CHECK(elapsed >= 300 && (double)elapsed <= (clock_seconds() - began) * 1000,
          "save_elapsed_msec is %lld", elapsed);
    CHECK(server_save_wait(server), "the save failed");
    CHECK(answer_number(server_ok(server, "UFFD.STATUS"), "snapshots_ok") == 1,
          "snapshots_ok");
    /* Every field is in INFO, too. */
    for (size_t i = 0; i < idle->elements; i += 2) {
        const char *name = format_text("uffd_%s", idle->element[i]->str);
        CHECK(server_info(server, name), "INFO has no %s", name);
    }
    server_stop(server);
}

static void check_figures(redisReply *save, long long id)
{
    CHECK(answer_number(save, "id") == id, "id %lld", answer_number(save, "id"));
    CHECK(answer_number(save, "keys") == ANSWER_KEYS, "keys %lld",
          answer_number(save, "keys"));
    CHECK(answer_number(save, "freeze_usec") > 0, "freeze_usec");
    CHECK(answer_number(save, "duration_msec") >= 1000, "duration_msec");
    CHECK(answer_number(save, "file_bytes") > ANSWER_KEYS * 10, "file_bytes");
    CHECK(answer_number(save, "faults") >= 10, "faults %lld",
          answer_number(save, "faults"));
    CHECK(answer_number(save, "pages_preserved") >= 10, "pages_preserved");
    CHECK(answer_number(save, "buffer_peak_bytes") >= 10 * 4096, "buffer_peak_bytes");
    long long p50 = answer_number(save, "fault_wait_p50_usec");
    long long p99 = answer_number(save, "fault_wait_p99_usec");
    long long longest = answer_number(save, "fault_wait_max_usec");
    CHECK(p50 > 0 && p50 <= p99 && p99 <= longest && longest < 60000000,
          "waits: p50 %lld, p99 %lld, max %lld", p50, p99, longest);
}

static void history(void)
{
    struct server *server = answering_start("");
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
    CHECK(answer_text(all->element[0], "reason")[0] == '\0', "a reason");
    double started = (double)answer_number(all->element[1], "started_msec");
    CHECK(started >= before && started < before + 60000, "started_msec %f", started);
    CHECK(server_ok(server, "UFFD.HISTORY 1")->elements == 1, "count 1");
    CHECK(server_ok(server, "UFFD.HISTORY 9223372036854775807")->elements == 2, "count");
    server_stop(server);
}

static void causes(void)
{
    struct server *server = answering_start("");
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
    struct server *server = answering_start("");
    server_config_set(server, "rdb-key-save-delay", SLOW_SAVE);
    server_ok(server, "UFFD.FAULT output_write on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save did not fail");
    server_ok(server, "UFFD.FAULT output_write off");
    check_last_save(server, "command", "failed");
    CHECK(strstr(answer_text(last_save(server), "reason"), "Input/output error"),
          "reason: %s", answer_text(last_save(server), "reason"));
    CHECK(server_log_lines(server, "uffd: save 1 failed: Input/output error, writing "
                                   "temp-") == 1,
          "the log");
    server_save_start(server);
    server_ok(server, "FLUSHALL");
    wait_until_no_child(server, 10);
    check_last_save(server, "command", "cancelled");
    redisReply *counted = server_ok(server, "UFFD.STATUS");
    CHECK(answer_number(counted, "snapshots_failed") == 1 &&
              answer_number(counted, "snapshots_cancelled") == 1,
          "%lld failed, %lld cancelled", answer_number(counted, "snapshots_failed"),
          answer_number(counted, "snapshots_cancelled"));
    /* A limit too small for the heap: the server's own fork. */
    server_ok(server, "UFFD.FAULT spool_open on");
    server_save(server);
    check_last_save(server, "command", "forked");
    CHECK(strstr(answer_text(last_save(server), "reason"), "spool"), "reason: %s",
          answer_text(last_save(server), "reason"));
    double fork_usec = server_info_number(server, "latest_fork_usec");
    double paused = (double)answer_number(last_save(server), "freeze_usec");
    CHECK(paused > 0 && paused <= fork_usec, "paused for %.0f us, forked for %.0f",
          paused, fork_usec);
    server_config_set(server, "uffd.fallback", "no");
    server_error(server, "BGSAVE");
    check_last_save(server, "command", "refused");
    CHECK(answer_number(last_save(server), "id") == 4, "id");
    server_stop(server);
}

static void resetstat(void)
{
    struct server *server = answering_start("");
    server_save(server);
    server_ok(server, "UFFD.FAULT spool_open on");
    server_save(server);
    redisReply *before = server_ok(server, "UFFD.STATUS");
    CHECK(answer_number(before, "fork_fallbacks") == 1 &&
              answer_number(before, "snapshots_ok") == 1,
          "the counters do not count");
    CHECK(strcmp(server_text(server, "UFFD.RESETSTAT"), "OK") == 0, "the answer");
    redisReply *after = server_ok(server, "UFFD.STATUS");
    static const char *const counters[] = {"snapshots_ok", "snapshots_failed",
                                           "snapshots_cancelled", "forks_replaced",
                                           "fork_fallbacks"};
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        CHECK(answer_number(after, counters[i]) == 0, "%s is not 0", counters[i]);
    CHECK(answer_text(after, "last_fallback_reason")[0] == '\0', "last_fallback_reason");
    CHECK(server_ok(server, "UFFD.HISTORY")->elements == 0, "the history is not empty");
    server_ok(server, "UFFD.FAULT spool_open off");
    server_save(server);
    CHECK(answer_number(last_save(server), "id") == 3, "numbers begin anew");
    server_stop(server);
}

/* ---- the doctor ------------------------------------------------------------------ */

static void doctor(void)
{
    struct server *server = answering_start("");
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
    check_finding_says(server, "fallback", "WARN ", "1 saves fell back");
    server_config_set(server, "uffd.fallback", "no");
    check_finding_says(server, "spool-dir", "FAIL ", "is refused (fallback no)");
    server_config_set(server, "uffd.enabled", "no");
    check_finding_says(server, "fallback", "WARN ", "CONFIG SET uffd.enabled yes");
    server_config_set(server, "uffd.enabled", "yes");
    const char *maps =
        strstr(answer_bytes(server, "HELLO 3\r\nUFFD.DOCTOR"), "*16\r\n%4");
    CHECK(maps && strstr(maps, "\r\nremedy\r\n"), "RESP3: no maps");
    server_stop(server);
}

/* What will fall back is said before it has happened, and beside what has. */
static void doctor_foresees(void)
{
    struct server *server = answering_start("aof-use-rdb-preamble no\n");
    check_finding_says(server, "append-only", "OK ", "BGREWRITEAOF by hand falls back");
    server_config_set(server, "appendonly", "yes");
    wait_until_no_child(server, 10);
    server_ok(server, "UFFD.RESETSTAT");
    check_finding_says(server, "append-only", "WARN ",
                       "CONFIG SET aof-use-rdb-preamble yes");
    check_finding(server, "fallback", "OK ");
    server_ok(server, "BGREWRITEAOF");
    wait_until_no_child(server, 10);
    check_finding(server, "append-only", "WARN ");
    check_finding_says(server, "fallback", "WARN ", "1 saves fell back to fork");
    server_ok(server, "UFFD.RESETSTAT");
    server_config_set(server, "aof-use-rdb-preamble", "yes");
    check_finding(server, "append-only", "OK ");
    check_finding(server, "fallback", "OK ");
    check_finding(server, "replication", "OK ");
    check_finding_says(server, "cluster", "OK ", "not in cluster mode");
    server_stop(server);
}

/* ---- the log --------------------------------------------------------------------- */

static void log_of_a_save(void)
{
    struct server *server = answering_start("");
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
    struct server *server = answering_start("");
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

/* ---- the documents --------------------------------------------------------------- */

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

static const char *reference_section(const char *name)
{
    const char *reference = document("REFERENCE_FILE", "docs/SETTINGS-AND-INFO.md");
    const char *section = strstr(reference, format_text("\n## %s\n", name)), *end;
    CHECK(section && (end = strstr(section + 1, "\n## ")), "no ## %s", name);
    return format_text("%.*s", (int)(end - section), section);
}

/* INFO has all fields that are described, and the other way round. */
static void info_in_reference(void)
{
    struct server *server = answering_start("");
    const char *info = server_text(server, "INFO uffd");
    const char *section = reference_section("INFO"), *at;
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

/* The same of the settings; each has a row with its values and its default. */
static void settings_in_reference(void)
{
    struct server *server = answering_start("");
    const char *section = reference_section("Settings"), *at;
    redisReply *set = server_command(server, "CONFIG GET uffd.*");
    size_t rows = 0;
    CHECK(set->type == REDIS_REPLY_ARRAY && set->elements > 10, "no settings");
    for (size_t i = 0; i < set->elements; i += 2) {
        const char *name = set->element[i]->str + strlen("uffd.");
        const char *value = set->element[i + 1]->str;
        const char *row = strstr(section, format_text("\n| `%s` |", name));
        CHECK(row, "%s is not described", name);
        row = format_text("%.*s", (int)strcspn(row + 1, "\n"), row + 1);
        check_described(row, *value ? value : "\"\"");
    }
    for (at = section; (at = strstr(at, "\n| `")); at++)
        rows++;
    CHECK(rows == set->elements / 2, "%zu are described", rows);
    server_stop(server);
}

static void answers_in_manual(void)
{
    struct server *server = answering_start("");
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
        {"history", history, 30},
        {"causes", causes, 60},
        {"results", results, 30},
        {"doctor", doctor, 20},
        {"doctor_foresees", doctor_foresees, 20},
        {"resetstat", resetstat, 20},
        {"log_of_a_save", log_of_a_save, 30},
        {"warnings_are_limited", warnings_are_limited, 60},
        {"info_in_reference", info_in_reference, 20},
        {"settings_in_reference", settings_in_reference, 20},
        {"answers_in_manual", answers_in_manual, 20},
        {0},
    };
    return test_run("reports", cases, argc, argv);
}
