/* The module's commands: what the server knows of them, and that whoever calls them
 * wrongly, or at the wrong moment, gets a clear error and changes nothing. */
#include "answers.h"
#include "replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const commands[] = {"UFFD.STATUS",    "UFFD.HISTORY", "UFFD.DOCTOR",
                                       "UFFD.RESETSTAT", "UFFD.HELP",    "UFFD.BACKUP",
                                       "UFFD.DIRTYRATE"};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))
/* All but the last two (test_backup.c, test_dirty_rate.c) answer anywhere. */
#define ANSWER_ANYWHERE (COMMANDS - 2)

/* ---- calls that are wrong, or at an unusual moment -------------------------------- */

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
    struct server *server = answering_start("");
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
    struct server *server = answering_start("");
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
    struct server *server = answering_start("");
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
    struct server *server =
        answering_start("loading-process-events-interval-bytes 1024\n");
    struct server observer = *server;
    observer.connection = server_connect(server);
    server_config_set(server, "key-load-delay", "100");
    redisAppendCommand(server->connection, "DEBUG RELOAD");
    int done = 0;
    while (!done)
        redisBufferWrite(server->connection, &done);
    WAIT_UNTIL(server_info_number(&observer, "loading") != 0, 5, "it does not load");
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
    struct server *master = answering_start("");
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
    struct server *server = answering_start("cluster-enabled yes\n");
    CHECK(strncmp(server_error(server, "GET key"), "CLUSTERDOWN", 11) == 0, "it works");
    call_all(server);
    server_save(server);
    check_last_save(server, "command", "ok");
    server_stop(server);
}

static void without_permission(void)
{
    struct server *server = answering_start("");
    server_save(server);
    server_ok(server,
              "ACL SETUSER guest on >secret ~* +@all -@admin -@dangerous "
              "-uffd.status -uffd.history -uffd.resetstat -uffd.doctor -uffd.help "
              "-uffd.dirtyrate -uffd.backup +acl");
    server_ok(server, "AUTH guest secret");
    for (size_t i = 0; i < COMMANDS; i++) {
        /* What lacks an argument is refused for that. */
        bool backup = strcmp(commands[i], "UFFD.BACKUP") == 0;
        const char *error =
            server_error(server, backup ? "UFFD.BACKUP STATUS" : commands[i]);
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
        if (strcmp(answer_text(list->element[i], "name"), "uffd") == 0) {
            CHECK(answer_number(list->element[i], "ver") ==
                      major * 10000 + minor * 100 + patch,
                  "MODULE LIST says %lld", answer_number(list->element[i], "ver"));
            return;
        }
    fail("MODULE LIST has no uffd");
}

static void described(void)
{
    struct server *server = answering_start("");
    redisReply *help = server_ok(server, "UFFD.HELP");
    CHECK(help->elements == 2 * COMMANDS, "HELP has %d lines", (int)help->elements);
    for (size_t i = 0; i < COMMANDS; i++) {
        redisReply *docs = server_ok(server, "COMMAND DOCS %s", commands[i]);
        CHECK(docs->elements == 2, "COMMAND DOCS %s", commands[i]);
        CHECK(strlen(answer_text(docs->element[1], "summary")) > 10, "summary");
        CHECK(strcmp(answer_text(docs->element[1], "group"), "module") == 0, "group");
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

static void maps(void)
{
    struct server *server = answering_start("");
    server_save(server);
    const char *flat = answer_bytes(server, "UFFD.STATUS");
    CHECK(flat[0] == '*', "RESP2: %.20s", flat);
    const char *map = strstr(answer_bytes(server, "HELLO 3\r\nUFFD.STATUS"), "\r\n%");
    CHECK(map && strstr(map, "\r\nversion\r\n"), "RESP3: no map");
    map = answer_bytes(server, "HELLO 3\r\nUFFD.HISTORY");
    CHECK(strstr(map, "*1\r\n%") && strstr(map, "\r\ncause\r\n"), "RESP3: no map");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"maps", maps, 20},
        {"wrong_arguments", wrong_arguments, 20},
        {"in_transaction_and_script", in_transaction_and_script, 20},
        {"while_saving", while_saving, 30},
        {"while_loading", while_loading, 30},
        {"on_replica", on_replica, 30},
        {"in_cluster", in_cluster, 20},
        {"without_permission", without_permission, 20},
        {"described", described, 20},
        {0},
    };
    return test_run("commands", cases, argc, argv);
}
