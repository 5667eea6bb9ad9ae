/* Values of modules' types, saved by their own callbacks in a child without a heap. */
#include "answers.h"
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"
#include "snapshot.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS        300
#define VALUE_BYTES 3000
/* What a module writes besides: more than the child may have of pages at a time. */
#define MEMO_BYTES (24 << 20)
#define MEMO_LIMIT "buffer-limit 64mb"

static const char *config(void)
{
    const char *directory = getenv("TEST_MODULES");
    return format_text("%srepl-diskless-sync-delay 0\nloadmodule %s/typed.so\n",
                       FILL_CONFIG, directory ? directory : "build/tests/modules");
}

static struct server *start_empty(const char *arguments, const char *fault)
{
    needs_module();
    return server_start(&(struct server_options){
        .config = config(),
        .fault = fault,
        .module_arguments =
            format_text("value-child yes %s", arguments ? arguments : "")});
}

static struct server *start_with(const char *arguments)
{
    struct server *server = start_empty(arguments, "");
    fill(server->connection, FILL_ALL, 50, test_seed());
    server_save(server); /* the layout is proved by other keys */
    server_ok(server, "TYPED.POPULATE %d key: %d %d", KEYS, VALUE_BYTES,
              (int)(test_seed() % 1000));
    return server;
}

static struct server *start(void)
{
    return start_with(NULL);
}

static void point(struct server *server, const char *name, const char *state)
{
    server_ok(server, "UFFD.FAULT %s %s", name, state);
}

static void check_values_by_child(struct server *server)
{
    CHECK(server_info_number(server, "uffd_last_child_values") >= KEYS,
          "values were not saved through the child");
}

static void check_by_child(struct server *server, int saves)
{
    check_fork_free(server, saves);
    check_values_by_child(server);
    redisReply *save = server_ok(server, "UFFD.HISTORY 1")->element[0];
    static const char *const costs[] = {"child_values", "child_fork_usec",
                                        "child_wait_usec", "child_pages",
                                        "child_peak_bytes"};
    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
        double said = server_info_number(server, format_text("uffd_last_%s", costs[i]));
        CHECK(said > 0 && (double)answer_number(save, costs[i]) == said,
              "%s: %.0f, the history has %lld", costs[i], said,
              answer_number(save, costs[i]));
    }
}

static void change_all(struct server *server, int round)
{
    for (int i = 0; i < KEYS; i++)
        redisAppendCommand(server->connection, "TYPED.CHANGE key::%d %d", i, i + round);
    for (int i = 0; i < KEYS; i++) {
        redisReply *reply;
        CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK &&
                  reply->type != REDIS_REPLY_ERROR,
              "a value is not there");
        freeReplyObject(reply);
    }
}

/* Not one value, but data before and after the keys. */
static struct server *start_with_memo(void)
{
    struct server *server = start_empty(MEMO_LIMIT, "");
    fill(server->connection, FILL_ALL, 50, test_seed());
    server_ok(server, "TYPED.MEMO %d 1", MEMO_BYTES);
    return server;
}

/* ---- what is in the dump ---- */

static void as_save_writes_them(void)
{
    struct server *server = start();
    server_ok(server, "TYPED.SHARE shared key::1");
    server_ok(server, "TYPED.NOTE remembered");
    server_ok(server, "PEXPIRE key::2 100000000");
    const char *dump = check_saved_both_ways(server);
    const char *digest = dump_digest(dump, config());
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the dump is wrong");
    check_by_child(server, 2);
    server_stop(server);
}

/* Every value changes between the freeze and the first callback, and again after it. */
static const char *fault_when_all_change(struct server *server)
{
    point(server, "held_saver", "on");
    struct snapshot snapshot = snapshot_begin(server);
    change_all(server, 1);
    point(server, "held_saver", "off");
    change_all(server, 2);
    return snapshot_fault(&snapshot, config());
}

static void as_they_were(void)
{
    struct server *server = start();
    for (int round = 0; round < (test_is_soak() ? 50 : 2); round++) {
        const char *fault = fault_when_all_change(server);
        CHECK(!fault, "%s", fault);
    }
    check_values_by_child(server);
    server_stop(server);
}

/* The case above would notice pages as they are now. */
static void live_pages_are_found(void)
{
    struct server *server = start();
    point(server, "live_pages", "on");
    CHECK(fault_when_all_change(server), "what was changed later was not found");
    server_stop(server);
}

static bool is_saving(struct server *server)
{
    return server_info_number(server, "rdb_bgsave_in_progress") == 1;
}

/* As the values: before the child is asked, and all the time after that. */
static const char *fault_when_memo_changes(struct server *server)
{
    point(server, "held_saver", "on");
    struct snapshot snapshot = snapshot_begin(server);
    server_ok(server, "TYPED.MEMO %d 2", MEMO_BYTES);
    point(server, "held_saver", "off");
    for (int seed = 3; is_saving(server); seed++)
        server_ok(server, "TYPED.MEMO %d %d", MEMO_BYTES, seed);
    return snapshot_fault(&snapshot, config());
}

static void aux_as_it_was(void)
{
    struct server *server = start_with_memo();
    const char *fault = fault_when_memo_changes(server);
    CHECK(!fault, "%s", fault);
    check_fork_free(server, 1);
    CHECK(server_info_number(server, "uffd_last_child_pages_dropped") > 0,
          "it had all pages at once");
    CHECK(server_info_number(server, "uffd_last_child_values") == 0, "there are values");
    server_stop(server);
}

static void aux_live_pages_are_found(void)
{
    struct server *server = start_with_memo();
    point(server, "live_pages", "on");
    CHECK(fault_when_memo_changes(server), "what was changed later was not found");
    server_stop(server);
}

/* A replica gets it too, and loads it where it belongs. */
static void aux_to_a_replica(void)
{
    struct server *master = start();
    server_ok(master, "TYPED.NOTE remembered");
    struct server *replica =
        replica_start(master, &(struct server_options){.config = config()});
    replica_wait_link(replica);
    check_same_data(master, replica);
    server_config_set(replica, "replica-read-only", "no");
    const char *note = server_text(replica, "TYPED.NOTE");
    CHECK(strcmp(note, "remembered") == 0, "the replica has: %s", note);
    check_by_child(master, 2);
    server_stop(replica);
    server_stop(master);
}

/* What a replica of Redis 8.6 may ask for holds for what modules write, too. */
static void uncompressed_for_a_replica(void)
{
    struct server *master = start();
    const char *ours = format_text("%s/ours.rdb", test_directory());
    server_ok(master, "TYPED.MEMO 1000 1");
    receive_uncompressed(master, ours);
    check_by_child(master, 2);
    check_uncompressed_by_fork(master, ours);
    server_stop(master);
}

/* Of all the pages, the child may have a few at a time. */
static void within_a_small_limit(void)
{
    struct server *server = start_with("buffer-limit 8mb");
    server_ok(server, "TYPED.POPULATE 6000 more: %d 7", VALUE_BYTES);
    const char *fault = fault_when_all_change(server);
    CHECK(!fault, "%s", fault);
    CHECK(server_info_number(server, "uffd_last_child_pages_dropped") > 0,
          "nothing was dropped");
    double peak = server_info_number(server, "uffd_last_child_peak_bytes");
    CHECK(peak <= 3 << 20, "it had %.0f bytes of pages", peak);
    server_stop(server);
}

/* What it holds is not there for preserved pages. */
static void counts_within_the_limit(void)
{
    struct server *server = start_with("buffer-limit 32mb");
    server_ok(server, "TYPED.MOOD hang");
    server_save_start(server);
    WAIT_UNTIL(server_info_number(server, "uffd_limit_least_bytes") < 32 << 20, 10,
               "its pages do not count");
    double held = server_info_number(server, "uffd_last_child_peak_bytes");
    double least = server_info_number(server, "uffd_limit_least_bytes");
    CHECK(least >= (32 << 20) - held, "%.0f bytes were left with %.0f of pages", least,
          held);
    server_stop(server);
}

/* A quarter of it. */
static void all_within_a_large_limit(void)
{
    struct server *server = start_empty("buffer-limit 384mb", "");
    server_config_set(server, "rdbcompression", "no");
    server_ok(server, "TYPED.MEMO %d 1", 80 << 20);
    server_save(server);
    CHECK(server_info_number(server, "uffd_last_child_peak_bytes") >= 80 << 20,
          "it had %s bytes at most", server_info(server, "uffd_last_child_peak_bytes"));
    CHECK(server_info_number(server, "uffd_last_child_pages_dropped") == 0,
          "pages were dropped");
    check_fork_free(server, 1);
    server_stop(server);
}

/* There is no other key by which the layout could be proved. */
static void nothing_else(void)
{
    struct server *server = start_empty("", "");
    server_ok(server, "TYPED.POPULATE %d key: %d 1", KEYS, VALUE_BYTES);
    server_save(server);
    check_by_child(server, 1);
    server_stop(server);
}

/* ---- what goes wrong ---- */

static void check_reason_says(struct server *server, const char *why)
{
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, why), "the reason given is: %s", reason);
}

/* A server that does not export what only the child calls is served in all else. */
static void server_lacks_what_it_calls(void)
{
    struct server *server = start_empty("", "no_child_symbols");
    CHECK(server_info_number(server, "uffd_supported") == 1, "it is not served");
    check_finding_says(server, "module-values", "WARN ", "does not export rdbSaveObject");
    server_ok(server, "TYPED.POPULATE %d key: %d 1", KEYS, VALUE_BYTES);
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "no fork");
    check_reason_says(server, "does not export rdbSaveObject");
    server_stop(server);
}

static uint64_t exchange_word(struct server *server, uint64_t address, uint64_t word)
{
    uint64_t before = 0;
    int memory = open(format_text("/proc/%d/mem", (int)server->pid), O_RDWR);
    CHECK(memory >= 0 && pread(memory, &before, 8, (off_t)address) == 8, "cannot read");
    if (word)
        CHECK(pwrite(memory, &word, 8, (off_t)address) == 8, "cannot write");
    close(memory);
    return before;
}

/* The child would call what stands where its callbacks should be. */
static void value_of_no_type(void)
{
    struct server *server = start();
    uint64_t object = 0;
    const char *told = server_text(server, "DEBUG OBJECT key::1");
    CHECK(sscanf(told, "Value at:0x%" SCNx64, &object) == 1, "no address: %s", told);
    uint64_t value = exchange_word(server, object + 8, 0);
    uint64_t type = exchange_word(server, value, object);
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save has not failed");
    const char *error = server_info(server, "uffd_last_error");
    CHECK(strstr(error, "a module's value") && !strstr(error, "has ended"),
          "the reason given is: %s", error);
    exchange_word(server, value, type);
    server_stop(server);
}

static void check_save_fails(struct server *server, const char *why)
{
    const char *dump = server_path(server, "dump.rdb"), *old = server_path(server, "old");
    copy_file(dump, old);
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save has not failed");
    CHECK(files_are_equal(dump, old), "the old dump was touched");
    check_no_temporary_file(server);
    const char *error = server_info(server, "uffd_last_error");
    CHECK(strstr(error, why), "the reason given is: %s", error);
    CHECK(server_children(server) == 0, "a child is left");
}

/* A later save uses fork, as one that goes another way. */
static void check_next_forks(struct server *server)
{
    double forks = server_info_number(server, "uffd_fork_fallbacks");
    server_ok(server, "TYPED.MOOD nothing");
    server_ok(server, "TYPED.MOOD nothing aux");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == forks + 1,
          "the next save was trusted");
    check_reason_says(server, "the child for them has failed");
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
    server_save(server);
    CHECK(server_info_number(server, "uffd_last_child_values") >= KEYS,
          "it was not tried again");
}

static void fails_in_mood(const char *mood, const char *why, const char *silence)
{
    struct server *server = start();
    server_ok(server, "SAVE");
    server_ok(server, format_text("TYPED.MOOD %s", mood));
    point(server, "short_silence", silence);
    check_save_fails(server, why);
    check_next_forks(server);
    server_stop(server);
}

static void crash(void)
{
    fails_in_mood("crash", "has ended", "off");
}

static void hang(void)
{
    fails_in_mood("hang", "silent", "on");
}

static void crash_with_aux(void)
{
    fails_in_mood("crash aux", "has ended", "off");
}

static void hang_with_aux(void)
{
    fails_in_mood("hang aux", "besides values", "on");
}

static void eats_memory(void)
{
    fails_in_mood("eat", "has ended", "off");
}

static void uses_the_api(void)
{
    struct server *server = start();
    server_ok(server, "TYPED.MOOD api");
    server_save(server);
    check_by_child(server, 2);
    server_stop(server);
}

static void no_pages_come(void)
{
    struct server *server = start();
    point(server, "short_silence", "on");
    point(server, "hung_pager", "on");
    server_save_start(server);
    WAIT_UNTIL(server_info_number(server, "uffd_last_child_fork_usec") > 0, 10,
               "no child");
    sleep_msec(1000);
    point(server, "hung_pager", "off");
    CHECK(!server_save_wait(server), "the save has not failed");
    check_next_forks(server);
    server_stop(server);
}

static void no_child_to_be_had(void)
{
    static const char *const points[] = {"no_value_child", "value_child_fork"};
    struct server *server = start();
    for (int i = 0; i < 2; i++) {
        point(server, points[i], "on");
        server_save(server);
        check_reason_says(server, "need a child");
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == i + 1, "no fork");
        point(server, points[i], "off");
    }
    server_save(server);
    check_values_by_child(server);
    server_stop(server);
}

/* ---- what ends it ---- */

static struct server *start_hanging(void)
{
    struct server *server = start();
    server_ok(server, "TYPED.MOOD hang");
    server_save_start(server);
    WAIT_UNTIL(server_children(server) == 1, 10, "no child");
    return server;
}

static void ended_by_the_server(void)
{
    struct server *server = start_hanging();
    /* One with types never goes, and ours not amid a save. */
    server_error(server, "MODULE UNLOAD typed");
    server_error(server, "MODULE UNLOAD uffd");
    CHECK(server_children(server) == 1, "the child is gone");
    server_ok(server, "FLUSHALL");
    wait_until_no_child(server, 10);
    WAIT_UNTIL(server_children(server) == 0, 5, "the child lives");
    check_no_temporary_file(server);
    server_ok(server, "TYPED.POPULATE %d key: %d 1", KEYS, VALUE_BYTES);
    server_ok(server, "TYPED.MOOD nothing");
    server_save(server);
    check_values_by_child(server);
    server_ok(server, "TYPED.MOOD hang");
    server_save_start(server);
    server_stop(server);
}

/* Whoever inherits it may not have reaped it yet. */
static bool is_alive(int child)
{
    char state = 'X';
    FILE *file = fopen(format_text("/proc/%d/stat", child), "r");
    if (file && fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
        state = 'X';
    if (file)
        fclose(file);
    return state != 'X' && state != 'Z';
}

static int child_process(struct server *server)
{
    const char *log = format_text("%s/children", server->directory);
    const char *list[] = {
        "/bin/sh", "-c",
        format_text("cat /proc/%d/task/%d/children", (int)server->pid, (int)server->pid),
        NULL};
    CHECK(run_program(log, list) == 0, "the child is not known");
    FILE *file = fopen(log, "r");
    int child = 0;
    CHECK(file && fscanf(file, "%d", &child) == 1, "the child is not known");
    fclose(file);
    return child;
}

/* SHUTDOWN writes a dump of its own, of what there is by then. */
static void shutdown_saves(void)
{
    struct server *server = start_hanging();
    int child = child_process(server);
    server_ok(server, "TYPED.MOOD nothing");
    change_all(server, 1);
    const char *digest = server_digest(server);
    redisReply *reply = redisCommand(server->connection, "SHUTDOWN SAVE");
    CHECK(!reply, "SHUTDOWN: %s", reply->str);
    CHECK(server_wait_exit(server) == 0, "it has not ended well");
    WAIT_UNTIL(!is_alive(child), 5, "the child has survived");
    check_no_temporary_file(server);
    const char *saved = dump_digest(server_path(server, "dump.rdb"), config());
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
}

/* One without types goes amid a save, which needs nothing of it, and comes again. */
static void other_module_unloaded(void)
{
    const char *directory = getenv("TEST_MODULES");
    const char *load = format_text("MODULE LOAD %s/meddler.so",
                                   directory ? directory : "build/tests/modules");
    struct server *server = start();
    server_ok(server, load);
    point(server, "held_saver", "on");
    struct snapshot snapshot = snapshot_begin(server);
    server_ok(server, "MODULE UNLOAD meddler");
    change_all(server, 1);
    server_ok(server, load);
    point(server, "held_saver", "off");
    const char *fault = snapshot_fault(&snapshot, config());
    CHECK(!fault, "%s", fault);
    check_values_by_child(server);
    server_stop(server);
}

/* Nobody survives it, nobody publishes anything. */
static void ended_with_the_server(void)
{
    struct server *server = start_hanging();
    int child = child_process(server);
    server_kill(server);
    WAIT_UNTIL(!is_alive(child), 5, "the child has survived");
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"as_save_writes_them", as_save_writes_them, 30},
        {"as_they_were", as_they_were, 30},
        {"live_pages_are_found", live_pages_are_found, 30},
        {"aux_as_it_was", aux_as_it_was, 60},
        {"aux_live_pages_are_found", aux_live_pages_are_found, 60},
        {"aux_to_a_replica", aux_to_a_replica, 30},
        {"uncompressed_for_a_replica", uncompressed_for_a_replica, 30},
        {"within_a_small_limit", within_a_small_limit, 30},
        {"all_within_a_large_limit", all_within_a_large_limit, 60},
        {"counts_within_the_limit", counts_within_the_limit, 30},
        {"nothing_else", nothing_else, 30},
        {"server_lacks_what_it_calls", server_lacks_what_it_calls, 30},
        {"value_of_no_type", value_of_no_type, 30},
        {"crash", crash, 30},
        {"hang", hang, 30},
        {"crash_with_aux", crash_with_aux, 30},
        {"hang_with_aux", hang_with_aux, 30},
        {"eats_memory", eats_memory, 30},
        {"uses_the_api", uses_the_api, 30},
        {"no_pages_come", no_pages_come, 30},
        {"no_child_to_be_had", no_child_to_be_had, 30},
        {"ended_by_the_server", ended_by_the_server, 30},
        {"shutdown_saves", shutdown_saves, 30},
        {"other_module_unloaded", other_module_unloaded, 30},
        {"ended_with_the_server", ended_with_the_server, 30},
        {0},
    };
    return test_run("value_child", cases, argc, argv);
}
