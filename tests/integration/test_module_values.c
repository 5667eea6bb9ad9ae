/* Values and aux fields of types that modules define. As long as there are none, saves are
 * made without fork; the first one is noticed, whichever way it comes. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"
#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *test_module(const char *name)
{
    const char *directory = getenv("TEST_MODULES");
    return format_text("%s/%s", directory ? directory : "build/tests/modules", name);
}

static const char *typed_module(void)
{
    return test_module("typed.so");
}

/* Lines for a server that has the types before our module is loaded. */
static const char *config_with(const char *how)
{
    return format_text("%srepl-diskless-sync-delay 0\nloadmodule %s %s\n", FILL_CONFIG,
                       typed_module(), how);
}

/* A server with a key of its own types: without any, no layout is proved. */
static struct server *start_with(const char *config)
{
    struct server *server = server_start(&(struct server_options){.config = config});
    server_ok(server, "SET plain value");
    return server;
}

static struct server *start(const char *how)
{
    return start_with(config_with(how));
}

static struct server *start_again(struct server *server, const char *config)
{
    server_kill(server);
    return server_start(
        &(struct server_options){.config = config, .directory = server->directory});
}

static void load_ours(struct server *server)
{
    server_ok(server, "MODULE LOAD %s", module_path());
    server->has_module = true;
}

/* Whether the last save had its values from a child without a heap, where there is such. */
static bool had_child(struct server *server)
{
    const char *usec = server_info(server, "uffd_last_child_fork_usec");
    return usec && atof(usec) > 0;
}

/* The server's next save is as of one that has no types. */
static void check_types_do_not_matter(struct server *server)
{
    if (!server->has_module)
        return;
    double replaced = server_info_number(server, "uffd_forks_replaced");
    double fallbacks = server_info_number(server, "uffd_fork_fallbacks");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == fallbacks,
          "it fell back to fork: %s", server_info(server, "uffd_last_fallback_reason"));
    CHECK(server_info_number(server, "uffd_forks_replaced") == replaced + 1,
          "no fork was replaced");
    CHECK(!had_child(server), "there was a child");
}

/* The server's next save takes this into account: it forks, or has a child. */
static void check_matters(struct server *server, const char *why)
{
    if (!server->has_module)
        return;
    double fallbacks = server_info_number(server, "uffd_fork_fallbacks");
    server_save(server);
    if (had_child(server) &&
        server_info_number(server, "uffd_fork_fallbacks") == fallbacks)
        return;
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == fallbacks + 1,
          "it was not known");
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, why), "the reason given is: %s", reason);
}

static void check_values_matter(struct server *server)
{
    check_matters(server, "values of module 'typed' exist");
}

static void check_dump_of(struct server *server, const char *how)
{
    const char *digest = dump_digest(server_path(server, "dump.rdb"), config_with(how));
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the dump is wrong");
}

/* ---- none ---- */

static void unused(void)
{
    struct server *server = start("plain");
    fill(server->connection, FILL_ALL, 20, test_seed());
    check_types_do_not_matter(server);
    server_ok(server, "SET typed:0 text");
    check_types_do_not_matter(server);
    check_dump_of(server, "plain");
    check_fork_free(server, 2);
    server_stop(server);
}

/* Our module first, then what has the types; and the other way round, with keys that have
 * to be looked through. */
static void unused_in_any_order(void)
{
    needs_module();
    struct server *server = start_with(FILL_CONFIG);
    server_ok(server, "MODULE LOAD %s plain", typed_module());
    check_types_do_not_matter(server);
    server_ok(server, "MODULE UNLOAD uffd");
    load_ours(server);
    check_types_do_not_matter(server);
    server_ok(server, "TYPED.SET key text");
    check_values_matter(server);
    check_dump_of(server, "plain");
    server_stop(server);
}

static void without_types(void)
{
    struct server *server = start("untyped");
    server_ok(server, "TYPED.PING");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

/* ---- the first one ---- */

static void by_command(void)
{
    static const char *const commands[] = {"TYPED.SET key text", "TYPED.BLOB key 100 1",
                                           "TYPED.ADD key member"};
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        struct server *server = start("plain");
        check_types_do_not_matter(server);
        server_ok(server, commands[i]);
        check_values_matter(server);
        check_dump_of(server, "plain");
        server_stop(server);
    }
}

/* With our module in the server before the types. */
static void by_command_of_a_later_module(void)
{
    needs_module();
    struct server *server = start_with(FILL_CONFIG);
    server_ok(server, "MODULE LOAD %s plain", typed_module());
    check_types_do_not_matter(server);
    server_ok(server, "EVAL %s 0", "redis.call('TYPED.ADD', 'key', 'member')");
    check_values_matter(server);
    check_dump_of(server, "plain");
    server_stop(server);
}

static void by_restore(void)
{
    struct server *other = start("plain");
    server_ok(other, "TYPED.SET key text");
    redisReply *dumped = server_ok(other, "DUMP key");
    struct server *server = start("plain");
    check_types_do_not_matter(server);
    server_ok(server, "RESTORE key 0 %b", dumped->str, dumped->len);
    check_values_matter(server);
    check_dump_of(server, "plain");
    server_stop(other);
    server_stop(server);
}

static void by_loading(void)
{
    const char *config = config_with("plain");
    struct server *server = start("plain");
    server_ok(server, "TYPED.POPULATE 30 key 300 1");
    const char *digest = server_digest(server);
    server_save(server);
    server = start_again(server, config);
    CHECK(strcmp(server_digest(server), digest) == 0, "it was not loaded");
    check_values_matter(server);
    server_stop(server);
}

static void by_loading_commands(void)
{
    const char *config =
        format_text("%sappendonly yes\nappendfsync always\n", config_with("plain"));
    struct server *server = start_with(config);
    server_ok(server, "TYPED.SET key text");
    const char *digest = server_digest(server);
    server = start_again(server, config);
    CHECK(strcmp(server_digest(server), digest) == 0, "it was not loaded");
    check_values_matter(server);
    server_stop(server);
}

static void by_replication(void)
{
    const struct server_options options = {.config = config_with("plain")};
    struct server *master = start("plain");
    struct server *replica = replica_start(master, &options);
    replica_wait_link(replica);
    check_types_do_not_matter(replica);
    server_ok(master, "TYPED.ADD key member");
    check_same_data(master, replica);
    check_values_matter(replica);
    struct server *second = replica_start(master, &options);
    replica_wait_link(second);
    check_same_data(master, second);
    check_values_matter(second);
    server_stop(second);
    server_stop(replica);
    server_stop(master);
}

/* One that is there is copied, renamed, moved, and the first one is gone. */
static void by_another(void)
{
    struct server *server = start("plain");
    server_ok(server, "TYPED.BLOB key 1000 1");
    server_ok(server, "TYPED.SHARE second key");
    server_ok(server, "COPY key copied DB 3");
    server_ok(server, "RENAME second renamed");
    server_ok(server, "MOVE renamed 2");
    server_ok(server, "SWAPDB 0 2");
    server_ok(server, "FLUSHDB");
    check_values_matter(server);
    check_dump_of(server, "plain");
    server_stop(server);
}

static void there_before(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = config_with("plain"), .without_module = true});
    server_ok(server, "SET plain value");
    server_ok(server, "SELECT 5");
    server_ok(server, "TYPED.ADD key member");
    load_ours(server);
    check_values_matter(server);
    check_dump_of(server, "plain");
    server_stop(server);
}

/* ---- one that nobody has noticed ---- */

/* The walk meets it: that save fails and costs nothing, and none after it. */
static void met_by_a_save(void)
{
    needs_module();
    struct server *server = start("hidden");
    check_types_do_not_matter(server);
    server_ok(server, "TYPED.SET key text");
    server_save_start(server);
    CHECK(!server_save_wait(server), "a dump without the value was believed");
    check_no_temporary_file(server);
    check_matters(server, "a save has met a value");
    check_dump_of(server, "plain");
    server = start_again(server, config_with("hidden"));
    check_values_matter(server);
    server_stop(server);
}

/* Not even the place where it would be noticed is found. */
static void never_noticed(void)
{
    needs_module();
    struct server *server = start("secret");
    check_matters(server, "would not be noticed");
    server_stop(server);
}

/* It is not the module's variable, but the server's, where that has one. */
static void linked_as_once(void)
{
    needs_module();
    const char *module = test_module("typed_old.so");
    struct server *server =
        start_with(format_text("%sloadmodule %s plain\n", FILL_CONFIG, module));
    check_types_do_not_matter(server);
    server_ok(server, "TYPED.SET key text");
    check_values_matter(server);
    server_stop(server);
}

/* ---- aux fields ---- */

static void aux_fields(void)
{
    struct server *server = start("");
    server_ok(server, "TYPED.NOTE remembered");
    check_matters(server, "module 'typed' writes data of its own");
    if (server->has_module && !had_child(server))
        CHECK(server_log_count(server, "'typed' writes data of its own") == 1,
              "not logged once");
    server = start_again(server, config_with(""));
    const char *note = server_text(server, "TYPED.NOTE");
    CHECK(strcmp(note, "remembered") == 0, "the aux field is %s", note);
    server_stop(server);
}

/* Those that are only written if there is something to write. */
static void aux_fields_if_any(void)
{
    struct server *server = start("sparing");
    check_types_do_not_matter(server);
    server_ok(server, "TYPED.NOTE remembered");
    server_save(server);
    if (strcmp(server_name(server), "redis") == 0 &&
        strncmp(server_version(server), "7.0.", 4) == 0)
        not_applicable("this server has no such fields");
    server = start_again(server, config_with("sparing"));
    const char *note = server_text(server, "TYPED.NOTE");
    CHECK(strcmp(note, "remembered") == 0, "the aux field is %s", note);
    server_stop(server);
}

/* ---- what they are saved for ---- */

static void saved_and_loaded(void)
{
    struct server *server = start("");
    server_ok(server, "TYPED.POPULATE 300 key 1000 %d", (int)(test_seed() % 1000));
    for (int i = 0; i < 300; i++)
        server_ok(server, "TYPED.CHANGE key:%d %d", i, i);
    server_ok(server, "TYPED.SHARE shared key:1");
    const char *digest = server_digest(server);
    server_save(server);
    server = start_again(server, config_with(""));
    CHECK(strcmp(server_digest(server), digest) == 0, "what was loaded is not the same");
    check_dump_of(server, "");
    server_stop(server);
}

/* They go to replicas, and to a file of commands. */
static void replicated_and_appended(void)
{
    const char *config = format_text("%sappendonly yes\n", config_with(""));
    const struct server_options options = {.config = config};
    struct server *master = server_start(&options);
    server_ok(master, "TYPED.POPULATE 30 key 1000 1");
    server_ok(master, "BGREWRITEAOF");
    wait_until_no_child(master, 10);
    struct server *replica = replica_start(master, &options);
    replica_wait_link(replica);
    check_same_data(master, replica);
    const char *digest = server_digest(master);
    server_kill(replica);
    master = start_again(master, config);
    CHECK(strcmp(server_digest(master), digest) == 0, "what was loaded is not the same");
    server_config_set(master, "aof-use-rdb-preamble", "no");
    server_ok(master, "BGREWRITEAOF");
    wait_until_no_child(master, 10);
    master = start_again(master, config);
    CHECK(strcmp(server_digest(master), digest) == 0, "the commands are not the same");
    server_stop(master);
}

/* ---- those of others ---- */

/* Through the child, and as they were before `change`. */
static void check_saved_by_child(struct server *server, const char *config,
                                 void (*change)(struct server *))
{
    server_config_set(server, "uffd.value-child", "yes");
    server_ok(server, "UFFD.FAULT held_saver on");
    struct snapshot snapshot = snapshot_begin(server);
    change(server);
    server_ok(server, "UFFD.FAULT held_saver off");
    const char *fault = snapshot_fault(&snapshot, config);
    CHECK(!fault, "%s", fault);
    CHECK(had_child(server) && server_info_number(server, "uffd_fork_fallbacks") == 0,
          "it was not saved through the child");
}

static void check_vectors_matter(struct server *server)
{
    check_matters(server, "values of module 'vectorset' exist");
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the dump is wrong");
}

static void add_vectors(struct server *server)
{
    for (int i = 0; i < 100; i++)
        server_ok(server, "VADD vectors VALUES 3 %d %d 1 element-%d", i, i % 7, i);
}

/* A type that is built into the server: there before the module, and made by a command. */
static void vector_sets(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    fill(server->connection, FILL_ALL, 10, test_seed());
    if (!server_knows(server, "VADD"))
        not_applicable("this server has no sets of vectors");
    add_vectors(server);
    load_ours(server);
    check_vectors_matter(server);
    server_ok(server, "FLUSHALL");
    server_ok(server, "SET plain value");
    server_ok(server, "MODULE UNLOAD uffd");
    load_ours(server);
    check_types_do_not_matter(server);
    server_ok(server, "VADD vectors VALUES 2 1 1 one");
    check_vectors_matter(server);
    server_stop(server);
}

static void change_vectors(struct server *server)
{
    for (int i = 0; i < 150; i += 2)
        server_ok(server, "VADD vectors VALUES 3 %d 1 %d element-%d", i % 7, i, i);
    for (int i = 1; i < 100; i += 3)
        server_ok(server, "VREM vectors element-%d", i);
}

static void vector_sets_by_child(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .fault = ""});
    if (!server_knows(server, "VADD"))
        not_applicable("this server has no sets of vectors");
    fill(server->connection, FILL_ALL, 10, test_seed());
    add_vectors(server);
    check_saved_by_child(server, FILL_CONFIG, change_vectors);
    server_stop(server);
}

#define DOCUMENTS 300

/* As Debian has it: four types of values, an index with what belongs to it. */
static const char *search_config(void)
{
    static const char module[] = "/usr/lib/redis/modules/redisearch.so";
    if (access(module, R_OK) != 0)
        skip("%s is not there", module);
    return format_text("%sloadmodule %s\n", FILL_CONFIG, module);
}

static struct server *start_with_search(struct server *again, bool without_module)
{
    const char *config = search_config();
    if (again)
        server_kill(again);
    return server_start(
        &(struct server_options){.config = config,
                                 .directory = again ? again->directory : NULL,
                                 .fault = "",
                                 .without_module = without_module});
}

static const char *search(struct server *server, const char *query)
{
    redisReply *reply =
        server_ok(server, "FT.SEARCH idx %s LIMIT 0 %d", query, DOCUMENTS);
    char *answer = format_text("%lld:", reply->element[0]->integer);
    for (size_t i = 1; i < reply->elements; i++)
        if (reply->element[i]->type == REDIS_REPLY_STRING)
            answer = format_text("%s %s", answer, reply->element[i]->str);
    return answer;
}

static void add_documents(struct server *server)
{
    int first = (int)server_integer(server, "DBSIZE");
    for (int i = first; i < first + DOCUMENTS; i++)
        server_ok(server, "FT.ADD idx doc%d 1.0 FIELDS text %s number %d tag %s", i,
                  i % 2 ? "odd" : "even", i % DOCUMENTS, i % 7 ? "other" : "seven");
}

/* Saved, and loaded by a server without us. */
static void search_indexes_saved(void (*save)(struct server *))
{
    static const char *const queries[] = {"even", "@number:[20,60]", "@tag:{seven}"};
    const char *answers[3];
    struct server *server = start_with_search(NULL, false);
    server_ok(server, "SET plain value");
    check_types_do_not_matter(server);
    if (strcmp(server_name(server), "valkey") == 0 &&
        strncmp(server_version(server), "8.0.", 4) != 0)
        not_applicable("the first index crashes it, without this module too");
    server_ok(server, "FT.CREATE idx SCHEMA text TEXT number NUMERIC tag TAG");
    add_documents(server);
    for (size_t i = 0; i < 3; i++)
        answers[i] = search(server, queries[i]);
    save(server);
    server = start_with_search(server, true);
    for (size_t i = 0; i < 3; i++) {
        const char *answer = search(server, queries[i]);
        CHECK(strcmp(answer, answers[i]) == 0, "%s: %.200s, not %.200s", queries[i],
              answer, answers[i]);
    }
    server_stop(server);
}

static void check_indexes_matter(struct server *server)
{
    check_matters(server, "values of module 'ft' exist");
}

static void search_indexes(void)
{
    search_indexes_saved(check_indexes_matter);
}

static void check_indexes_by_child(struct server *server)
{
    check_saved_by_child(server, search_config(), add_documents);
}

static void search_indexes_by_child(void)
{
    needs_module();
    search_indexes_saved(check_indexes_by_child);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"unused", unused, 30},
        {"unused_in_any_order", unused_in_any_order, 30},
        {"without_types", without_types, 30},
        {"by_command", by_command, 30},
        {"by_command_of_a_later_module", by_command_of_a_later_module, 30},
        {"by_restore", by_restore, 30},
        {"by_loading", by_loading, 30},
        {"by_loading_commands", by_loading_commands, 30},
        {"by_replication", by_replication, 30},
        {"by_another", by_another, 30},
        {"there_before", there_before, 30},
        {"met_by_a_save", met_by_a_save, 30},
        {"never_noticed", never_noticed, 30},
        {"linked_as_once", linked_as_once, 30},
        {"aux_fields", aux_fields, 30},
        {"aux_fields_if_any", aux_fields_if_any, 30},
        {"saved_and_loaded", saved_and_loaded, 30},
        {"replicated_and_appended", replicated_and_appended, 30},
        {"vector_sets", vector_sets, 30},
        {"vector_sets_by_child", vector_sets_by_child, 30},
        {"search_indexes", search_indexes, 30},
        {"search_indexes_by_child", search_indexes_by_child, 30},
        {0},
    };
    return test_run("module_values", cases, argc, argv);
}
