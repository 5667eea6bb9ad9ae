/* The demonstration behind `make run`: one server under writes, saved in the
 * background without fork and then with it, both dumps proved, side by side.
 *
 *   demo MODULE CONFIGURATION
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "fill.h"
#include "rdbfile.h"
#include "writers.h"

#define PLAIN_KEYS    600000
#define PLAIN_BYTES   200
#define COUNT         400 /* of every type */
#define CONNECTIONS   4
#define BAR_WIDTH     40
#define SEED          20231117
#define PAGE_BYTES    4096
#define LIMIT_SECONDS 600

struct result {
    double freeze_usec;
    double pages;
    double save_msec;
    double file_bytes;
    double memory_bytes; /* held for pages that changed */
    long commands;       /* answered during the save */
    int children;
};

static const char *module_file, *configuration_file;

static double wall_seconds(struct timespec time)
{
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return wall_seconds(time);
}

/* The sample configuration as it is, but for the module's path. */
static char *configuration(void)
{
    FILE *file = fopen(configuration_file, "r");
    CHECK(file, "%s cannot be read", configuration_file);
    char line[4096], path[4096], *text = strdup("");
    CHECK(realpath(module_file, path), "%s is not there: run make", module_file);
    bool loads = false;
    while (fgets(line, sizeof line, file)) {
        char *arguments = strncmp(line, "loadmodule ", 11) == 0 ? line + 11 : NULL;
        if (arguments) {
            arguments += strcspn(arguments, " \n");
            text = format_text("%sloadmodule %s%s", text, path, arguments);
            loads = true;
        } else {
            text = format_text("%s%s", text, line);
        }
    }
    fclose(file);
    CHECK(loads, "%s has no loadmodule line", configuration_file);
    return text;
}

static struct server *start(void)
{
    char *text = format_text("%s\n%s", configuration(), FILL_CONFIG);
    struct server *server =
        server_start(&(struct server_options){.config = text, .without_module = true});
    server->has_module = true;
    printf("redis-server %s on port %d, %s\n", server_info(server, "redis_version"),
           server->port, server_info(server, "os"));
    return server;
}

static void fill_server(struct server *server)
{
    server_ok(server, "DEBUG POPULATE %d key %d", PLAIN_KEYS, PLAIN_BYTES);
    fill(server->connection, FILL_ALL, COUNT, SEED);
    server_ok(server, "SELECT 1");
    fill(server->connection, FILL_ALL - FILL_FUNCTIONS, COUNT, SEED + 1);
    server_ok(server, "SELECT 0");
    printf("filled: %lld keys of every type, %s used\n", server_integer(server, "DBSIZE"),
           server_info(server, "used_memory_human"));
}

/* The server hears of a child's progress once a second; the module knows. */
static void show_progress(struct server *server, double started)
{
    static double shown;
    bool forkless = strcmp(server_info(server, "uffd_state"), "idle") != 0;
    double done = server_info_number(server, forkless ? "uffd_keys_saved"
                                                      : "current_save_keys_processed");
    double total = server_info_number(server, forkless ? "uffd_keys_total"
                                                       : "current_save_keys_total");
    double part = total > 0 ? done / total : 0, seconds = now() - started;
    if (isatty(STDOUT_FILENO)) {
        int filled = (int)(part * BAR_WIDTH);
        printf("\r  [%.*s%*s] %3.0f %%  %.1f s", filled,
               "########################################", BAR_WIDTH - filled, "",
               part * 100, seconds);
        fflush(stdout);
    } else if (seconds - shown >= 1 || seconds < shown) {
        printf("  saving: %3.0f %% of the keys after %.1f s\n", part * 100, seconds);
        shown = seconds;
    }
}

static void wait_with_progress(struct server *server, double started,
                               struct result *result)
{
    while (server_info_number(server, "rdb_bgsave_in_progress") == 1) {
        int children = server_children(server);
        if (children > result->children)
            result->children = children;
        show_progress(server, started);
        sleep_msec(20);
    }
    if (isatty(STDOUT_FILENO))
        printf("\r%*s\r", BAR_WIDTH + 24, "");
    CHECK(server_save_wait(server), "the save failed");
}

static void prove(struct server *server, const char *digest)
{
    const char *dump = server_path(server, "dump.rdb");
    check_dump(dump, true);
    puts("  redis-check-rdb: the file is whole, its checksum right");
    const char *loaded = dump_digest(dump, FILL_CONFIG);
    CHECK(loaded, "a second server refuses the file");
    CHECK(strcmp(loaded, digest) == 0, "loaded data have digest %s, not %s", loaded,
          digest);
    printf("  a second server loads it: DEBUG DIGEST %.12s..., as at the instant of the "
           "snapshot\n",
           digest);
}

static void collect(struct server *server, bool forkless, double started,
                    struct result *result)
{
    struct stat dump;
    CHECK(stat(server_path(server, "dump.rdb"), &dump) == 0, "there is no dump.rdb");
    result->file_bytes = (double)dump.st_size;
    result->save_msec = (wall_seconds(dump.st_mtim) - started) * 1e3;
    result->memory_bytes = server_info_number(server, "rdb_last_cow_size");
    result->freeze_usec = server_info_number(server, forkless ? "uffd_last_freeze_usec"
                                                              : "latest_fork_usec");
    result->pages = forkless ? server_info_number(server, "uffd_last_pages_preserved")
                             : result->memory_bytes / PAGE_BYTES;
}

static struct result save(struct server *server, struct writers *writers, bool forkless)
{
    struct result result = {0};
    printf("\nredis-cli BGSAVE, uffd.enabled %s\n", forkless ? "yes" : "no");
    server_config_set(server, "uffd.enabled", forkless ? "yes" : "no");
    sleep_msec(300);
    server_ok(server, "CLIENT PAUSE 600000 WRITE");
    const char *digest = server_digest(server);
    double started = now();
    const char *port = format_text("%d", server->port);
    CHECK(run_program(NULL, (const char *[]){"redis-cli", "-p", port, "BGSAVE", NULL}) ==
              0,
          "redis-cli BGSAVE failed");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1 ||
              server_info_number(server, "rdb_saves") > 0,
          "no save was started");
    server_ok(server, "CLIENT UNPAUSE");
    long before = writers_commands(writers);
    wait_with_progress(server, started, &result);
    result.commands = writers_commands(writers) - before;
    collect(server, forkless, started, &result);
    printf("  freeze %.2f ms, %.0f pages preserved, saved in %.0f ms, %.1f MB\n",
           result.freeze_usec / 1e3, result.pages, result.save_msec,
           result.file_bytes / 1e6);
    CHECK(result.children == (forkless ? 0 : 1), "%d child processes were seen",
          result.children);
    prove(server, digest);
    return result;
}

static void print_row(const char *name, const char *format, double without, double with)
{
    char a[32], b[32];
    snprintf(a, sizeof a, format, without);
    snprintf(b, sizeof b, format, with);
    printf("  %-34s %14s %14s\n", name, a, b);
}

static void print_table(const struct result *without, const struct result *with)
{
    printf("\n  %-34s %14s %14s\n", "", "without fork", "with fork");
    print_row("freeze (fork) of the server, ms", "%.2f", without->freeze_usec / 1e3,
              with->freeze_usec / 1e3);
    print_row("pages preserved (copied)", "%.0f", without->pages, with->pages);
    print_row("memory for them, MB", "%.1f", without->memory_bytes / 1e6,
              with->memory_bytes / 1e6);
    print_row("save, ms", "%.0f", without->save_msec, with->save_msec);
    print_row("commands answered during the save", "%.0f", (double)without->commands,
              (double)with->commands);
    print_row("file, MB", "%.1f", without->file_bytes / 1e6, with->file_bytes / 1e6);
    print_row("child processes", "%.0f", without->children, with->children);
}

static void demonstrate(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct server *server = start();
    fill_server(server);
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, SEED + 2);
    printf("%d connections write to it from now on\n", CONNECTIONS);
    struct result without = save(server, writers, true);
    check_fork_free(server, 1);
    struct result with = save(server, writers, false);
    writers_stop(writers);
    print_table(&without, &with);
    server_stop(server);
    puts("\nBoth dumps are exact.");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: demo MODULE CONFIGURATION\n");
        return 2;
    }
    module_file = argv[1];
    configuration_file = argv[2];
    int code = test_run_alone("demo", demonstrate, LIMIT_SECONDS);
    if (code)
        puts("FAILED");
    return code;
}
