/* Another version in place of the one that runs, while clients write: the file is replaced,
 * MODULE UNLOAD, MODULE LOAD. OLD_MODULE is what is there first (`make test-upgrade`); without
 * it, it is the other build of the same source. */
#include "counters.h"
#include "fill.h"
#include "overwriter.h"
#include "snapshot.h"
#include "writers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTIONS 3
#define JSON_KEYS   20000
#define JSON_BYTES  200

static const char *old_module(void)
{
    const char *old = getenv("OLD_MODULE");
    if (!old || !*old)
        old = getenv("RELEASED_MODULE");
    return old && *old ? old : module_path();
}

/* As dpkg and install do: another file, then its name. */
static void replace(const char *path, const char *by)
{
    const char *copy = format_text("%s.new", path);
    const char *words[] = {"cp", by, copy, NULL};
    CHECK(run_program(format_text("%s/cp", test_directory()), words) == 0, "cp");
    CHECK(rename(copy, path) == 0, "rename");
}

/* It is refused while one of the saves that come all the time is running. */
static void unload(struct server *server)
{
    redisReply *reply;
    WAIT_UNTIL((reply = server_command(server, "MODULE UNLOAD uffd"))->type !=
                   REDIS_REPLY_ERROR,
               60, "MODULE UNLOAD: %s", reply->str);
    server->has_module = false;
    CHECK(!server_info(server, "uffd_state"), "it is still there");
}

/* Saves of this version, under the writes; the last one's content is known. */
static void save_some(struct server *server)
{
    WAIT_UNTIL(server_info_number(server, "rdb_bgsave_in_progress") == 0, 60, "a save");
    double before = server_info_number(server, "uffd_forks_replaced");
    server_save(server);
    struct snapshot snapshot = snapshot_begin(server);
    const char *fault = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!fault, "%s", fault);
    CHECK(server_info_number(server, "uffd_forks_replaced") == before + 2 &&
              server_info_number(server, "uffd_fork_fallbacks") == 0,
          "forked: %s", server_info(server, "uffd_last_fallback_reason"));
}

/* A path that the loader does not know yet leads to the new file. */
static void change(struct server *server, const char *path, const char *to, int slashes)
{
    const char *name = strrchr(path, '/') + 1;
    const char *path_again =
        format_text("%.*s%.*s%s", (int)(name - path), path, slashes, "//////", name);
    replace(path, to);
    server_save_start(server);
    unload(server);
    const char *refused = server_error(server, "MODULE LOAD %s", path);
    test_note("%s", refused);
    server_ok(server, "MODULE LOAD %s", path_again);
    server->has_module = true;
    test_note("uffd %s", server_info(server, "uffd_version"));
}

static void under_load(void)
{
    uint64_t seed = test_seed();
    needs_module();
    char *path = format_text("%s/rdb_uffd.so", test_directory());
    replace(path, old_module());
    struct server *server = server_start(&(struct server_options){
        .config = format_text("%sloadmodule %s buffer-limit 64mb\n", FILL_CONFIG, path),
        .without_module = true});
    server->has_module = true;
    fill(server->connection, FILL_ALL, 100, seed);
    json_fill(server->connection, JSON_KEYS, JSON_BYTES, seed);
    struct counters *counters = counters_start(server, CONNECTIONS);
    struct writers *writers = writers_start(server, CONNECTIONS, 100, seed);
    writers_pace(writers, 2000);
    struct overwriter *overwriter =
        overwriter_start(server, JSON_KEYS, JSON_BYTES, OVERWRITE_SET, seed);
    server_save(server);
    change(server, path, module_path(), 1);
    save_some(server);
    if (getenv("OLD_MODULE") || test_is_soak()) {
        /* And back, as who is not content does. */
        change(server, path, old_module(), 2);
        save_some(server);
    }
    CHECK(overwriter_stop(overwriter, NULL) > 0 && writers_stop(writers) > 0,
          "nobody has written");
    counters_stop(counters);
    counters_check(counters, server, 0);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"under_load", under_load, 120},
        {0},
    };
    return test_run("upgrade", cases, argc, argv);
}
