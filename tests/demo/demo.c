/* The demonstration behind `make run`: servers under writes, saved in the background with
 * fork, as they are without the module, without fork, and with fork on the module's huge
 * pages; what clients felt meanwhile as a picture, all dumps proved.
 *
 *   demo MODULE CONFIGURATION
 */
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "chart.h"
#include "fill.h"
#include "load.h"
#include "rdbfile.h"
#include "spark.h"

#define PLAIN_KEYS    700000
#define PLAIN_BYTES   1300
#define COUNT         400 /* of every type */
#define BAR_WIDTH     40
#define SEED          20231117
#define PAGE_BYTES    4096
#define LIMIT_SECONDS 600

#define SECONDS_SHOWN_BEFORE 0.3
#define SECONDS_SHOWN_AFTER  0.2
#define COLUMNS_OF_AXIS      13
#define COLUMNS_MOST         120

struct result {
    double freeze_usec;
    double pages;
    double save_msec;
    double file_bytes;
    double memory_bytes; /* held for pages that changed */
    int children;
    double began, ended; /* CLOCK_REALTIME, seconds */
    struct load_sample *samples;
    size_t sample_count;
    double commands; /* answered during the save */
    double worst_msec, mostly_msec;
};

static const char *module_file, *configuration_file;

static double wall_seconds(struct timespec time)
{
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

enum way { FORK, FORK_HUGE, FORKLESS };

static const char *const names[] = {"with fork, as it is without the module",
                                    "with fork, on the module's huge pages",
                                    "without fork"};

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

static struct server *start(bool with_module)
{
    char *text = format_text("%s\n%s", with_module ? configuration() : "", FILL_CONFIG);
    struct server *server =
        server_start(&(struct server_options){.config = text, .without_module = true});
    server->has_module = with_module;
    printf("\nredis-server %s %s the module on port %d, %s\n",
           server_info(server, "redis_version"), with_module ? "with" : "without",
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
static void show_progress(struct server *server, bool forkless, double started)
{
    static double shown;
    double done = server_info_number(server, forkless ? "uffd_keys_saved"
                                                      : "current_save_keys_processed");
    double total = server_info_number(server, forkless ? "uffd_keys_total"
                                                       : "current_save_keys_total");
    double part = total > 0 ? done / total : 0, seconds = now_seconds() - started;
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

static void wait_with_progress(struct server *server, bool forkless,
                               struct result *result)
{
    while (server_info_number(server, "rdb_bgsave_in_progress") == 1) {
        int children = server_children(server);
        if (children > result->children)
            result->children = children;
        show_progress(server, forkless, result->began);
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

static int by_wait(const void *a, const void *b)
{
    double first = *(const double *)a, second = *(const double *)b;
    return (first > second) - (first < second);
}

/* Of what was due while the save ran. */
static void measure_waits(struct result *result)
{
    double *waits = calloc(result->sample_count + 1, sizeof *waits);
    size_t count = 0;
    CHECK(waits, "no memory");
    for (size_t i = 0; i < result->sample_count; i++) {
        const struct load_sample *sample = &result->samples[i];
        if (sample->seconds + sample->msec / 1e3 >= result->began &&
            sample->seconds < result->ended)
            waits[count++] = sample->msec;
    }
    CHECK(count > 0, "nothing was answered during the save");
    qsort(waits, count, sizeof *waits, by_wait);
    result->worst_msec = waits[count - 1];
    result->mostly_msec = waits[count * 99 / 100];
    result->commands = (double)count * LOAD_BATCH;
    free(waits);
}

static void collect(struct server *server, bool forkless, struct result *result)
{
    struct stat dump;
    CHECK(stat(server_path(server, "dump.rdb"), &dump) == 0, "there is no dump.rdb");
    result->file_bytes = (double)dump.st_size;
    result->ended = wall_seconds(dump.st_mtim);
    result->save_msec = (result->ended - result->began) * 1e3;
    result->memory_bytes = server_info_number(server, "rdb_last_cow_size");
    result->freeze_usec = server_info_number(server, forkless ? "uffd_last_freeze_usec"
                                                              : "latest_fork_usec");
    result->pages = forkless ? server_info_number(server, "uffd_last_pages_preserved")
                             : result->memory_bytes / PAGE_BYTES;
    measure_waits(result);
}

/* Until it has begun the clients only read, so that the digest is that of its instant. */
static void save_under_load(struct server *server, bool forkless, struct result *result)
{
    const char *port = format_text("%d", server->port);
    struct load *load = load_start(server, PLAIN_KEYS, PLAIN_BYTES, SEED);
    sleep_msec(400);
    result->began = now_seconds();
    CHECK(run_program(NULL, (const char *[]){"redis-cli", "-p", port, "BGSAVE", NULL}) ==
              0,
          "redis-cli BGSAVE failed");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1 ||
              server_info_number(server, "rdb_saves") > 0,
          "no save was started");
    load_write(load);
    wait_with_progress(server, forkless, result);
    sleep_msec((long)(SECONDS_SHOWN_AFTER * 1e3));
    result->samples = load_stop(load, &result->sample_count);
}

static struct result save(struct server *server, enum way way)
{
    struct result result = {0};
    bool forkless = way == FORKLESS;
    printf(
        "redis-cli BGSAVE, %s: %d reads a second before it, as many writes during it\n",
        names[way], LOAD_BATCH * LOAD_PER_SECOND);
    if (server->has_module)
        server_config_set(server, "uffd.enabled", forkless ? "yes" : "no");
    sleep_msec(300);
    const char *digest = server_digest(server);
    save_under_load(server, forkless, &result);
    collect(server, forkless, &result);
    CHECK(result.children == (forkless ? 0 : 1), "%d child processes were seen",
          result.children);
    prove(server, digest);
    return result;
}

/* Those left beside the axis. */
static int columns_of_chart(const struct screen *screen)
{
    int columns = screen->columns < COLUMNS_MOST ? screen->columns : COLUMNS_MOST;
    return columns > 2 * COLUMNS_OF_AXIS ? columns - COLUMNS_OF_AXIS : COLUMNS_OF_AXIS;
}

static void print_chart(const char *title, const struct chart_frame *frame,
                        const struct result *result)
{
    printf("\n  %s\n", title);
    chart_print(frame, result->samples, result->sample_count, result->began,
                result->ended);
}

static void print_charts(const struct result *results)
{
    const struct result *fork = &results[FORK], *forkless = &results[FORKLESS];
    struct screen screen = screen_look();
    struct chart_frame frame = {
        .before = SECONDS_SHOWN_BEFORE,
        .after = fmax(forkless->save_msec, fork->save_msec) / 1e3 + SECONDS_SHOWN_AFTER,
        .most_msec = fmax(forkless->worst_msec, fork->worst_msec),
        .columns = columns_of_chart(&screen),
        .unicode = screen.unicode,
    };
    printf("\nHow long %d commands waited for their replies, the worst at each moment\n",
           LOAD_BATCH);
    print_chart(names[FORK], &frame, fork);
    print_chart(names[FORKLESS], &frame, forkless);
}

static void print_row(const char *name, const char *format, double forkless, double fork,
                      double fork_huge)
{
    char a[32], b[32], c[32];
    snprintf(a, sizeof a, format, forkless);
    snprintf(b, sizeof b, format, fork);
    snprintf(c, sizeof c, format, fork_huge);
    printf("  %-34s %12s %12s %12s\n", name, a, b, c);
}

#define ROW(name, format, value)                                                         \
    print_row(name, format, results[FORKLESS].value, results[FORK].value,                \
              results[FORK_HUGE].value)

static void print_table(const struct result *results)
{
    printf("\n  %-34s %12s %12s %12s\n  %-34s %12s %12s %12s\n", "", "without", "with",
           "with fork,", "", "fork", "fork", "huge pages");
    ROW("freeze (fork) of the server, ms", "%.2f", freeze_usec / 1e3);
    ROW("worst reply, ms", "%.1f", worst_msec);
    ROW("99 of 100 replies within, ms", "%.2f", mostly_msec);
    ROW("pages preserved (copied)", "%.0f", pages);
    ROW("memory for them, MB", "%.1f", memory_bytes / 1e6);
    ROW("save, ms", "%.0f", save_msec);
    ROW("commands answered during the save", "%.0f", commands);
    ROW("file, MB", "%.1f", file_bytes / 1e6);
    ROW("child processes", "%.0f", children);
}

static void demonstrate(void)
{
    struct result results[3];
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct server *server = start(false);
    fill_server(server);
    results[FORK] = save(server, FORK);
    server_stop(server);
    server = start(true);
    fill_server(server);
    results[FORKLESS] = save(server, FORKLESS);
    check_fork_free(server, 1);
    results[FORK_HUGE] = save(server, FORK_HUGE);
    print_charts(results);
    print_table(results);
    server_stop(server);
    puts("\nAll dumps are exact.");
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: demo MODULE CONFIGURATION\n");
        return 2;
    }
    setlocale(LC_CTYPE, "");
    module_file = argv[1];
    configuration_file = argv[2];
    int code = test_run_alone("demo", demonstrate, LIMIT_SECONDS);
    if (code)
        puts("FAILED");
    return code;
}
