/* The module goes: what it has patched is put back, all of it or nothing, and nobody who
 * is still in its code notices. */
#include "fill.h"
#include "replicas.h"
#include "snapshot.h"
#include "writers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT        60
#define SECONDS      5
#define SOAK_SECONDS 600
#define SAVE_EVERY   10
#define LARGE        (1 << 18)

static void load(struct server *server)
{
    server_ok(server, "MODULE LOAD %s", module_path());
    server->has_module = true;
}

static void unload(struct server *server)
{
    server_ok(server, "MODULE UNLOAD uffd");
    server->has_module = false;
}

static struct server *start(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    load(server);
    return server;
}

/* ---- another module has patched the same call ------------------------------------ */

static const char *patcher(void)
{
    const char *directory = getenv("TEST_MODULES");
    return format_text("%s/patcher.so", directory ? directory : "build/tests/modules");
}

/* Unloading is refused and said why, saves go on without fork, and once the other one is
 * gone all is as it should be. */
static void patched(const char *symbol, const char *library)
{
    struct server *server = start();
    if (strcmp(symbol, "kill") != 0 && !server_allocator_is_library(server))
        not_applicable("its allocator is built in: no import, no library");
    server_ok(server, "MODULE LOAD %s %s %s", patcher(), symbol, library);
    for (int times = 1; times <= 2; times++) {
        server_error(server, "MODULE UNLOAD uffd");
        int lines = server_log_lines(
            server, format_text("cannot be unloaded now: %s() was replaced by ", symbol));
        CHECK(lines == times, "%d lines in the log", lines);
        CHECK(server_log_lines(server, "patcher.so since: unload what did that first, or "
                                       "restart the server") == times,
              "it does not say by whom, and what to do");
    }
    check_saved_both_ways(server);
    check_fork_free(server, 1);
    server_ok(server, "MODULE UNLOAD patcher");
    unload(server);
    check_saved_both_ways(server);
    load(server);
    check_saved_both_ways(server);
    check_fork_free(server, 1);
    unload(server);
    server_stop(server);
}

static void kill_is_patched(void)
{
    patched("kill", "main");
}

static void free_is_patched(void)
{
    patched("free", "main");
}

/* By the allocator, in a library of its own. */
static void madvise_is_patched(void)
{
    patched("madvise", "mallctl");
}

/* ---- while threads are in its code ----------------------------------------------- */

static void threads_are_in_it(void)
{
    uint64_t seed = test_seed();
    needs_module();
    setenv("MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:0,background_thread:true", 1);
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "slow_guard"});
    fill(server->connection, FILL_ALL, COUNT, seed);
    struct writers *writers = writers_start(server, 1, COUNT, seed);
    pid_t garbage = garbage_start(server, LARGE);
    double end = clock_seconds() + (test_is_soak() ? SOAK_SECONDS : SECONDS);
    int rounds = 0;
    for (; clock_seconds() < end; rounds++) {
        if (rounds % SAVE_EVERY == 0)
            server_save(server);
        sleep_msec((long)(random_next(&seed) % 5));
        wait_for_info(server, "uffd_state", "idle", 5);
        unload(server);
        load(server);
    }
    test_note("%d times", rounds);
    kill(garbage, SIGKILL);
    writers_stop(writers);
    wait_until_no_child(server, 10);
    server_ok(server, "FLUSHALL");
    fill(server->connection, FILL_ALL, COUNT, seed);
    check_saved_both_ways(server);
    unload(server);
    check_saved_both_ways(server);
    server_stop(server);
}

/* ---- another version -------------------------------------------------------------- */

static bool has_mapped(struct server *server, const char *path)
{
    struct stat status;
    char line[1024];
    bool found = false;
    CHECK(stat(path, &status) == 0, "%s", path);
    FILE *maps = fopen(format_text("/proc/%d/maps", (int)server->pid), "r");
    while (maps && fgets(line, sizeof(line), maps)) {
        unsigned long inode = 0;
        sscanf(line, "%*s %*s %*s %*s %lu", &inode);
        found |= inode == status.st_ino && strstr(line, "module.so");
    }
    CHECK(maps && fclose(maps) == 0, "no maps");
    return found;
}

/* The code that was unloaded is still there, and the loader goes by the path: it must not
 * be taken for what lies there now. */
static void another_file(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    const char *path = server_path(server, "module.so");
    const char *next = server_path(server, "next.so");
    const char *install[] = {"install", "-m", "0755", module_path(), path, NULL};
    CHECK(run_program(NULL, install) == 0, "cannot copy the module");
    install[4] = next;
    server_ok(server, "MODULE LOAD %s", path);
    server_ok(server, "MODULE UNLOAD uffd");
    server_ok(server, "MODULE LOAD %s", path);
    server_ok(server, "MODULE UNLOAD uffd");
    CHECK(run_program(NULL, install) == 0 && rename(next, path) == 0,
          "cannot replace it");
    if (server_command(server, "MODULE LOAD %s", path)->type == REDIS_REPLY_ERROR) {
        CHECK(server_log_lines(server,
                               "another file lies there: load it by another path") == 1,
              "the log does not say so");
        server_ok(server, "MODULE LOAD %s//module.so", server->directory);
    }
    CHECK(has_mapped(server, path), "it is the code of the file that was there before");
    server->has_module = true;
    check_saved_both_ways(server);
    check_fork_free(server, 1);
    server_stop(server);
}

int main(int argc, char **argv)
{
    int limit = test_is_soak() ? 1200 : 60;
    const struct test_case cases[] = {
        {"kill_is_patched", kill_is_patched, 30},
        {"free_is_patched", free_is_patched, 30},
        {"madvise_is_patched", madvise_is_patched, 30},
        {"threads_are_in_it", threads_are_in_it, limit},
        {"another_file", another_file, 20},
        {0},
    };
    return test_run("leaving", cases, argc, argv);
}
