/* The module comes and goes; its settings take what is right and keep the old
 * value otherwise. */
#include "answers.h"
#include "fill.h"
#include "replicas.h"
#include "snapshot.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static struct server *start_filled(bool without_module, uint64_t seed)
{
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .without_module = without_module});
    fill(server->connection, FILL_ALL, 100, seed);
    return server;
}

static void load(struct server *server)
{
    server_ok(server, "MODULE LOAD %s", module_path());
    server->has_module = true;
}

static void save_and_check(struct server *server)
{
    const char *digest = server_digest(server);
    server_save(server);
    const char *dump = server_path(server, "dump.rdb");
    check_dump(dump, true);
    const char *loaded = dump_digest(dump, FILL_CONFIG);
    CHECK(loaded && strcmp(loaded, digest) == 0, "the loaded data differ");
}

static void loaded_at_run_time(void)
{
    needs_module();
    struct server *server = start_filled(true, test_seed());
    load(server);
    save_and_check(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* A process that was stopped and goes on: its threads are on their way back to where they
 * waited when the module is told to go, and must not miss it. */
static void unloaded_when_continued(void)
{
    needs_module();
    struct server *server = server_start(NULL);
    for (int round = 0; round < 30; round++) {
        CHECK(kill(server->pid, SIGSTOP) == 0, "SIGSTOP");
        redisAppendCommand(server->connection, "MODULE UNLOAD uffd");
        for (int done = 0; !done;)
            CHECK(redisBufferWrite(server->connection, &done) == REDIS_OK, "sending");
        CHECK(kill(server->pid, SIGCONT) == 0, "SIGCONT");
        redisReply *reply;
        CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK,
              "round %d: %s", round, server->connection->errstr);
        CHECK(reply->type == REDIS_REPLY_STATUS, "%s", reply->str);
        load(server);
    }
    server_stop(server);
}

/* Redis 8.0 has a type of its own that only a fork can save: a large keyspace is looked
 * through for its values bit by bit, and until that is done saves fork. */
static void loaded_late(void)
{
    needs_module();
    struct server *server = start_filled(true, test_seed());
    server_ok(server, "DEBUG POPULATE 180000 key 8");
    server_config_set(server, "hz", "100"); /* a bit at each tick */
    load(server);
    double end = patient_seconds() + 60;
    int saves = 0;
    do {
        CHECK(patient_seconds() < end, "it is never done");
        server_save(server);
        saves++;
    } while (server_info_number(server, "uffd_forks_replaced") == 0);
    save_and_check(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == saves - 1, "not counted");
    test_note("%d saves forked: %s", saves - 1,
              server_info(server, "uffd_last_fallback_reason"));
    server_stop(server);
}

static void loaded_with_arguments(void)
{
    needs_module();
    struct server *server = start_filled(true, test_seed());
    server_ok(server, "MODULE LOAD %s buffer-limit 64mb fallback no", module_path());
    server->has_module = true;
    const char *limit = server_config_get(server, "uffd.buffer-limit");
    CHECK(strcmp(limit, "67108864") == 0 || strcmp(limit, "64mb") == 0,
          "uffd.buffer-limit is %s", limit);
    CHECK(strcmp(server_config_get(server, "uffd.fallback"), "no") == 0, "uffd.fallback");
    save_and_check(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* Without the module a save makes a child again: what it writes to the log says so. */
static void check_forks_again(struct server *server)
{
    int before = server_log_lines(server, ":C ");
    server_config_set(server, "rdb-key-save-delay", "100");
    server_save(server);
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(server_log_lines(server, ":C ") > before, "no child process");
    check_dump(server_path(server, "dump.rdb"), true);
}

static void unloaded_and_loaded_again(void)
{
    needs_module();
    struct server *server = start_filled(false, test_seed());
    save_and_check(server);
    for (int round = 0; round < 3; round++) {
        server_ok(server, "MODULE UNLOAD uffd");
        server->has_module = false;
        CHECK(!server_info(server, "uffd_state"), "the module is still there");
        check_forks_again(server);
        load(server);
        save_and_check(server);
        check_fork_free(server, 1);
    }
    server_ok(server, "MODULE UNLOAD uffd");
    server_stop(server);
}

/* The threads' stacks hold lists of the C library's that a forked child puts in order for
 * itself: what it writes there must not reach the parent, which goes on with them. */
static void live_whole_lives(const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .without_module = true, .fault = fault});
    fill(server->connection, FILL_ALL, 100, test_seed());
    for (int rounds = test_is_soak() ? 100 : 2; rounds; rounds--) {
        load(server);
        server_config_set(server, "uffd.enabled", "no");
        check_forks_again(server);
        server_config_set(server, "uffd.enabled", "yes");
        save_and_check(server);
        check_fork_free(server, 1);
        server_ok(server, "MODULE UNLOAD uffd");
        server->has_module = false;
        check_forks_again(server);
    }
    CHECK(server_log_count(server, "crashed by signal") == 0, "a child crashed");
    server_stop(server);
}

static void whole_life(void)
{
    live_whole_lives(NULL);
}

/* As in a jail that has no devices. */
static void life_in_jail(void)
{
    live_whole_lives("no_zero_device");
}

/* As under a kernel that does not tell the device's memory from any other. */
static void life_with_plain_device(void)
{
    live_whole_lives("plain_zero_device");
}

static void unload_refused_while_saving(void)
{
    needs_module();
    struct server *server = start_filled(false, test_seed());
    server_config_set(server, "rdb-key-save-delay", "1000");
    server_save_start(server);
    const char *error = server_error(server, "MODULE UNLOAD uffd");
    test_note("%s", error);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save is over too soon");
    server_config_set(server, "rdb-key-save-delay", "0");
    CHECK(server_save_wait(server), "the save failed");
    check_dump(server_path(server, "dump.rdb"), true);
    sleep_msec(200);
    server_ok(server, "MODULE UNLOAD uffd");
    server->has_module = false;
    check_forks_again(server);
    server_stop(server);
}

static const char *const wrong_values[][2] = {
    {"buffer-limit", "0"},
    {"buffer-limit", "-1"},
    {"buffer-limit", "12zb"},
    {"buffer-limit", ""},
    {"buffer-limit", "many"},
    {"buffer-policy", "later"},
    {"buffer-policy", ""},
    {"compression", "perhaps"},
    {"huge-pages", "2"},
    {"fallback", "maybe"},
    {"enabled", "on and off"},
    {"spool-dir", "/nowhere/at/all"},
    {"spool-dir", "/etc/passwd"},
    {"buffer-limit", "1mb"},
    {"threads", "17"},
    {"threads", "many"},
    {"buffer-limit", "0%"},
    {"buffer-limit", "101%"},
};
#define WRONG_VALUES (sizeof wrong_values / sizeof *wrong_values)

static void wrong_values_set(void)
{
    needs_module();
    struct server *server = start_filled(false, test_seed());
    for (size_t i = 0; i < WRONG_VALUES; i++) {
        const char *name = format_text("uffd.%s", wrong_values[i][0]);
        const char *before = server_config_get(server, name);
        redisReply *reply =
            server_command(server, "CONFIG SET %s %s", name, wrong_values[i][1]);
        CHECK(reply->type == REDIS_REPLY_ERROR, "%s took \"%s\"", name,
              wrong_values[i][1]);
        const char *after = server_config_get(server, name);
        CHECK(strcmp(before, after) == 0, "%s was %s, is %s", name, before, after);
    }
    save_and_check(server);
    check_fork_free(server, 1);
    server_stop(server);
}

static void wrong_values_at_load(void)
{
    needs_module();
    struct server *server = start_filled(true, test_seed());
    for (size_t i = 0; i < WRONG_VALUES; i++) {
        redisReply *reply = server_command(server, "MODULE LOAD %s %s %s", module_path(),
                                           wrong_values[i][0], wrong_values[i][1]);
        CHECK(reply->type == REDIS_REPLY_ERROR, "loaded with %s \"%s\"",
              wrong_values[i][0], wrong_values[i][1]);
    }
    server_error(server, "MODULE LOAD %s no-such-setting 1", module_path());
    server_error(server, "MODULE LOAD %s buffer-limit", module_path());
    check_forks_again(server);
    load(server);
    save_and_check(server);
    server_stop(server);
}

/* A server that is told nonsense by its configuration does not start. */
static void wrong_value_in_configuration(void)
{
    needs_module();
    char *log = NULL;
    struct server *server = server_try_start(
        &(struct server_options){.module_arguments = "buffer-limit 12zb"}, &log);
    CHECK(!server, "the server started");
    CHECK(strstr(log, "buffer-limit"), "the log does not name the setting");
}

static void settings_in_configuration(void)
{
    needs_module();
    static const char *const right[][3] = {
        {"buffer-policy", "spool", "abort"},
        {"compression", "yes", "no"},
        {"huge-pages", "yes", "always"},
        {"fallback", "yes", "no"},
        {"enabled", "yes", "no"},
    };
    struct server *server = start_filled(false, test_seed());
    char *arguments = format_text("buffer-limit 128mb");
    for (size_t i = 0; i < sizeof right / sizeof *right; i++) {
        const char *name = format_text("uffd.%s", right[i][0]);
        const char *value = server_config_get(server, name);
        CHECK(i == 1 || i == 2 || strcmp(value, right[i][1]) == 0, "%s is %s", name,
              value);
        server_config_set(server, name, right[i][2]);
        CHECK(strcmp(server_config_get(server, name), right[i][2]) == 0, "%s", name);
        arguments = format_text("%s %s %s", arguments, right[i][0], right[i][2]);
    }
    server_config_set(server, "uffd.buffer-limit", "100mb");
    CHECK(server_info_number(server, "uffd_buffer_limit_bytes") == 100 << 20,
          "the limit");
    server_stop(server);
    server = server_start(&(struct server_options){.module_arguments = arguments});
    for (size_t i = 0; i < sizeof right / sizeof *right; i++)
        CHECK(strcmp(server_config_get(server, format_text("uffd.%s", right[i][0])),
                     right[i][2]) == 0,
              "%s", right[i][0]);
    CHECK(server_info_number(server, "uffd_buffer_limit_bytes") == 128 << 20,
          "the limit");
    server_stop(server);
    server = server_start(
        &(struct server_options){.config = "uffd.enabled no\nuffd.buffer-limit 99mb"});
    CHECK(strcmp(server_config_get(server, "uffd.enabled"), "no") == 0, "uffd.enabled");
    CHECK(server_info_number(server, "uffd_buffer_limit_bytes") == 99 << 20, "the limit");
    server_stop(server);
}

static void switched_off(void)
{
    needs_module();
    struct server *server = start_filled(false, test_seed());
    server_config_set(server, "uffd.enabled", "no");
    check_forks_again(server);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "uffd_forks_replaced");
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 0,
          "being switched off counts as a fallback");
    server_config_set(server, "uffd.enabled", "yes");
    save_and_check(server);
    check_fork_free(server, 1);
    server_stop(server);
}

static int gets_huge_pages(struct server *server)
{
    char line[128];
    int enabled = -1;
    FILE *file = fopen(format_text("/proc/%d/status", (int)server->pid), "r");
    while (file && fgets(line, sizeof(line), file))
        sscanf(line, "THP_enabled: %d", &enabled);
    if (file)
        fclose(file);
    if (enabled < 0)
        skip("this kernel does not tell THP_enabled");
    return enabled;
}

/* Who started the server has switched them off, as a server does by itself where
 * huge pages are given unasked. */
static void huge_pages_as_before(void)
{
    needs_module();
    CHECK(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) == 0, "prctl");
    struct server *server = server_start(NULL);
    static const struct {
        const char *setting, *value;
        int expected;
    } steps[] = {
        {"uffd.huge-pages", "no", 0},  {"uffd.enabled", "no", 0},
        {"uffd.huge-pages", "yes", 0}, {"uffd.enabled", "yes", 1},
        {"uffd.enabled", "no", 0},     {"uffd.enabled", "yes", 1},
    };
    CHECK(gets_huge_pages(server) == 1, "not after loading");
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        server_config_set(server, steps[i].setting, steps[i].value);
        CHECK(gets_huge_pages(server) == steps[i].expected, "%s %s: not %d",
              steps[i].setting, steps[i].value, steps[i].expected);
    }
    server_ok(server, "MODULE UNLOAD uffd");
    server->has_module = false;
    CHECK(gets_huge_pages(server) == 0, "not as before after unloading");
    server_stop(server);
    /* Where saves fork, they stay off, and the doctor tells. */
    server = server_start(&(struct server_options){.fault = "no_userfaultfd"});
    CHECK(gets_huge_pages(server) == 0, "lifted for a server that forks");
    check_finding_says(server, "huge-pages", "WARN ", "PR_SET_THP_DISABLE");
    server_stop(server);
    CHECK(prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0) == 0, "prctl");
    server = server_start(NULL);
    server_config_set(server, "uffd.huge-pages", "no");
    CHECK(gets_huge_pages(server) == 1, "switched off though it was on before");
    server_stop(server);
}

/* As arm64 kernels may be: with 16 or 64 KB. */
static void other_page_size(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "other_pages"});
    fill(server->connection, FILL_ALL, 100, test_seed());
    check_finding_says(server, "kernel", "FAIL ", "pages of 65536 bytes");
    server_save(server);
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, "pages have 65536 bytes"), "the reason is '%s'", reason);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "a save without fork");
}

/* A change of settings in the middle of a save harms nothing. */
static void switched_while_saving(void)
{
    needs_module();
    struct server *server = start_filled(false, test_seed());
    server_config_set(server, "rdb-key-save-delay", "1000");
    const char *digest = server_digest(server);
    server_save_start(server);
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.compression", "no");
    server_config_set(server, "uffd.huge-pages", "no");
    server_config_set(server, "uffd.buffer-policy", "block");
    server_ok(server, "SET later value");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save is over too soon");
    CHECK(server_save_wait(server), "the save failed");
    const char *loaded = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(loaded && strcmp(loaded, digest) == 0, "the loaded data differ");
    check_fork_free(server, 1);
    server_stop(server);
}

/* The module is lied to about the server. It says so in one line, and what to do; saves
 * are the server's own, and counted. */
static void check_unknown(const char *fault, const char *said)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .fault = fault});
    fill(server->connection, FILL_ALL, 100, test_seed());
    CHECK(server_log_lines(server, "keep using fork") == 1, "not one line in the log");
    CHECK(server_log_count(server, said) == 1, "the log does not say \"%s\"", said);
    CHECK(server_log_count(server, "use a build of a server version") == 1,
          "the log does not say what to do");
    CHECK(server_info_number(server, "uffd_supported") == 0, "uffd_supported");
    CHECK(strstr(server_info(server, "uffd_unsupported_reason"), said), "the reason: %s",
          server_info(server, "uffd_unsupported_reason"));
    for (int saves = 1; saves <= 2; saves++) {
        server_save(server);
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == saves, "not counted");
        CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "replaced");
    }
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    server_config_set(server, "uffd.fallback", "no");
    server_error(server, "BGSAVE");
    server_stop(server);
}

static void calls_not_patched(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){.fault = "no_guard"});
    const char *reason = server_info(server, "uffd_unsupported_reason");
    CHECK(strstr(reason, "cannot be guarded"), "the reason: %s", reason);
    CHECK(server_log_lines(server, "keep using fork: allocator: ") == 1, "the log");
    redisReply *lines = server_ok(server, "UFFD.DOCTOR");
    for (size_t i = 0; i < lines->elements; i++) {
        const char *line = lines->element[i]->str;
        bool failed = strncmp(line, "FAIL", 4) == 0;
        CHECK(failed == (strstr(line, "cannot be guarded") != NULL), "%s", line);
        CHECK(!strstr(line, "MODULE UNLOAD"), "%s", line);
    }
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "not counted");
    server_stop(server);
}

static void newer_than_known(void)
{
    check_unknown("newer_server", "99.9.9");
}

static bool forks_for_array(struct server *server)
{
    server_command(server, "BGSAVE");
    return strstr(server_info(server, "uffd_last_fallback_reason"), "(ARRAY)") != NULL;
}

static void check_served_again(struct server *server)
{
    server_ok(server, "DEL array");
    /* What was freed is used again. */
    server_ok(server, "DEBUG POPULATE 30000 later 50");
    WAIT_UNTIL(server_info_number(server, "uffd_supported") == 1, 10, "the reason is: %s",
               server_info(server, "uffd_unsupported_reason"));
    server_save(server);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), "");
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    server_stop(server);
}

/* Seen by a look at some keys: no save is begun. */
static void array_is_seen(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = "save \"\"\n", .module_arguments = "fallback no"});
    if (!server_knows(server, "arset"))
        not_applicable("this server has no arrays");
    server_ok(server, "ARSET array 5 value");
    CHECK(forks_for_array(server), "a save was begun");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 0, "a save was begun");
    check_served_again(server);
}

/* Met by a save among many keys: this one fails, the next ones fork. */
static void array_is_met(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = "save \"\"\n"
                                           "stop-writes-on-bgsave-error no\n",
                                 .module_arguments = "fallback no"});
    if (!server_knows(server, "arset"))
        not_applicable("this server has no arrays");
    server_ok(server, "DEBUG POPULATE 50000 key 20");
    server_save(server);
    server_ok(server, "ARSET array 5 value");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    CHECK(strstr(server_info(server, "uffd_last_error"), "an array (ARRAY)"),
          "the save failed for: %s", server_info(server, "uffd_last_error"));
    CHECK(forks_for_array(server), "another save was begun");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 1, "it was tried again");
    sleep_msec(2500);
    CHECK(forks_for_array(server), "it is taken to be gone");
    check_served_again(server);
}

/* `program` copied to `copy`, with another version's last digit wherever it tells its own. */
static int copy_as_other_version(const char *program, const char *copy, char *version)
{
    FILE *from = fopen(program, "rb"), *to = fopen(copy, "wb");
    CHECK(from && to && fseek(from, 0, SEEK_END) == 0, "%s cannot be copied", program);
    size_t length = (size_t)ftell(from), digits = strlen(version);
    char *bytes = malloc(length);
    rewind(from);
    CHECK(bytes && fread(bytes, 1, length, from) == length, "%s", program);
    char *last = version + digits - 1, other = *last == '9' ? '8' : '9';
    int found = 0;
    for (char *at = bytes;
         (at = memmem(at, length - (size_t)(at - bytes), version, digits)); found++)
        at[digits - 1] = other;
    *last = other;
    CHECK(fwrite(bytes, 1, length, to) == length && fclose(to) == 0, "%s", copy);
    CHECK(chmod(copy, 0755) == 0, "%s", copy);
    fclose(from);
    free(bytes);
    return found;
}

/* Of a version that has a table: what says so is no number, but what is proved. */
static void point_release(void)
{
    needs_module();
    struct server *known = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    char *version = strdup(server_version(known)), program[4096] = "";
    const char *link = format_text("/proc/%d/exe", known->own_pid);
    CHECK(readlink(link, program, sizeof(program) - 1) > 0, "%s", link);
    const char *copy = server_path(known, "server");
    if (!copy_as_other_version(program, copy, version))
        not_applicable("another program starts it");
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .command = copy});
    CHECK(strcmp(server_version(server), version) == 0, "it says that it is %s, not %s",
          server_version(server), version);
    fill(server->connection, FILL_ALL, 100, test_seed());
    save_and_check(server);
    check_fork_free(server, 1);
    server_stop(server);
    server_stop(known);
}

static void structures_elsewhere(void)
{
    check_unknown("moved_layout", "does not match");
}

/* The server is known and its variables are where they should be, but its keys are
 * not, or not all that they consist of: what walks see is compared with what the server
 * says, before the first save and at load. */
static void check_disproved(struct server *server, const char *said)
{
    save_and_check(server);
    CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "replaced");
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "not counted");
    wait_for_info(server, "uffd_supported", "0", 3);
    CHECK(strstr(server_info(server, "uffd_unsupported_reason"), said), "the reason: %s",
          server_info(server, "uffd_unsupported_reason"));
    int lines = server_log_count(server, said);
    CHECK(lines == 1 || lines == 2, "the log says \"%s\" %d times", said, lines);
    server_stop(server);
}

static void keys_elsewhere(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "moved_keyspace"});
    CHECK(server_info_number(server, "uffd_supported") == 1, "judged without keys");
    fill(server->connection, FILL_ALL, 100, test_seed());
    check_disproved(server, "seems to have");
}

/* As where a server puts four bytes more into its objects: Valkey 9.2 with
 * forkless-infrastructure-enabled. */
static void keys_shifted(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "shifted_keys"});
    fill(server->connection, FILL_ALL, 100, test_seed());
    check_disproved(server, "does not match the known layout");
}

static void values_elsewhere(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .fault = "moved_streams", .without_module = true});
    fill(server->connection, FILL_STRINGS | FILL_STREAMS, 20, test_seed());
    load(server);
    CHECK(server_info_number(server, "uffd_supported") == 0, "not judged at load");
    check_disproved(server, "a stream would be saved wrongly");
}

/* … and judges rightly what is as it should be: every type, also those that come later,
 * also what nobody may look at any more. */
static void keys_proved(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    server_ok(server, "DEBUG SET-ACTIVE-EXPIRE 0");
    server_ok(server, "SET gone value PX 1");
    server_ok(server, "SETRANGE huge 3000000 x");
    fill(server->connection, FILL_ALL, 100, test_seed());
    sleep_msec(20);
    load(server);
    CHECK(server_info(server, "cmdstat_dump"), "nothing was compared");
    CHECK(server_info_number(server, "expired_keys") == 0, "a key was made to expire");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* ---- the server's frees ------------------------------------------------------------ */

#ifndef PR_SET_MDWE
#define PR_SET_MDWE              65
#define PR_MDWE_REFUSE_EXEC_GAIN 1
#endif

/* Whether values that die during a save are put off, and that it is told if not. */
static void check_frees(struct server *server, const char *keys, bool put_off)
{
    server_ok(server, "DEBUG POPULATE 2000 %s 1000", keys);
    server_config_set(server, "rdb-key-save-delay", "500");
    server_save_start(server);
    for (int i = 0; i < 500; i++)
        server_ok(server, "SET %s:%d new", keys, i);
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1, "too slow");
    long long bytes = server_info_number(server, "uffd_deferred_free_bytes");
    CHECK(put_off ? bytes >= 500000 : bytes == 0, "%lld bytes put off", bytes);
    server_save_wait(server);
    server_config_set(server, "rdb-key-save-delay", "0");
    check_finding(server, "allocator", put_off ? "OK " : "WARN ");
    CHECK(server_log_lines(server, "frees are not put off during saves") == !put_off,
          "the log");
    save_and_check(server);
    check_fork_free(server, 2);
}

static void frees_are_reached(void)
{
    needs_module();
    /* By the path by which it will come again. */
    struct server *server = server_start(&(struct server_options){
        .config = format_text("%s\nloadmodule %s\n", FILL_CONFIG, module_path()),
        .without_module = true});
    server->has_module = true;
    fill(server->connection, FILL_ALL, 100, test_seed());
    check_frees(server, "key", true);
    /* Code that has been changed stays so. */
    server_ok(server, "MODULE UNLOAD uffd");
    server->has_module = false;
    server_ok(server, "DEBUG RELOAD");
    load(server);
    check_frees(server, "later", true);
    server_stop(server);
}

static void frees_when_loaded_late(void)
{
    needs_module();
    struct server *server = start_filled(true, test_seed());
    load(server);
    check_frees(server, "key", server_allocator_is_library(server));
    server_stop(server);
}

/* As systemd's MemoryDenyWriteExecute has it. */
static void frees_where_code_is_fixed(void)
{
    needs_module();
    CHECK(prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0, "prctl");
    struct server *server = start_filled(false, test_seed());
    check_frees(server, "key", server_allocator_is_library(server));
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"unloaded_when_continued", unloaded_when_continued, 60},
        {"loaded_at_run_time", loaded_at_run_time, 20},
        {"loaded_late", loaded_late, 120},
        {"loaded_with_arguments", loaded_with_arguments, 20},
        {"unloaded_and_loaded_again", unloaded_and_loaded_again, 40},
        {"whole_life", whole_life, 90},
        {"life_in_jail", life_in_jail, 90},
        {"life_with_plain_device", life_with_plain_device, 90},
        {"unload_refused_while_saving", unload_refused_while_saving, 30},
        {"wrong_values_set", wrong_values_set, 20},
        {"wrong_values_at_load", wrong_values_at_load, 30},
        {"wrong_value_in_configuration", wrong_value_in_configuration, 20},
        {"settings_in_configuration", settings_in_configuration, 20},
        {"switched_off", switched_off, 20},
        {"huge_pages_as_before", huge_pages_as_before, 20},
        {"switched_while_saving", switched_while_saving, 30},
        {"calls_not_patched", calls_not_patched, 20},
        {"newer_than_known", newer_than_known, 60},
        {"array_is_seen", array_is_seen, 60},
        {"array_is_met", array_is_met, 60},
        {"other_page_size", other_page_size, 40},
        {"point_release", point_release, 40},
        {"structures_elsewhere", structures_elsewhere, 60},
        {"keys_elsewhere", keys_elsewhere, 60},
        {"keys_shifted", keys_shifted, 60},
        {"values_elsewhere", values_elsewhere, 60},
        {"keys_proved", keys_proved, 60},
        {"frees_are_reached", frees_are_reached, 40},
        {"frees_when_loaded_late", frees_when_loaded_late, 40},
        {"frees_where_code_is_fixed", frees_where_code_is_fixed, 40},
        {0},
    };
    return test_run("lifecycle", cases, argc, argv);
}
