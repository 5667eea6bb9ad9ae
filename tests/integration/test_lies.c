/* Layout files: a server that is served by one, files that are wrong, and files that lie.
 *
 * A lie is a right file with one number moved, or exchanged for another's. What comes of it
 * must be no wrong dump: the file is refused, or saves fork, or the number does not matter and
 * the dump is what SAVE writes. The server must live on, each time with a module that is
 * loaded anew. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fill.h"
#include "replicas.h"
#include "snapshot.h"

#define LIES       40
#define SOAK_LIES  200
#define KEYS       40
#define LINES_MAX  100
#define LINE_BYTES 128

struct layout {
    char lines[LINES_MAX][LINE_BYTES];
    int count;
};

/* What the module knows of this server, as a file says it. */
static struct layout layout_of(struct server *server)
{
    struct layout layout = {0};
    const char *tool = getenv("LAYOUTS_TOOL");
    CHECK(tool, "LAYOUTS_TOOL is not set");
    FILE *output = popen(format_text("%s --known %s %s", tool, server_name(server),
                                     server_version(server)),
                         "r");
    CHECK(output, "%s: %s", tool, strerror(errno));
    while (layout.count < LINES_MAX &&
           fgets(layout.lines[layout.count], LINE_BYTES, output))
        layout.count++;
    CHECK(pclose(output) == 0 && layout.count > 10, "%s said nothing", tool);
    return layout;
}

static const char *write_layout(const struct layout *layout)
{
    const char *path = format_text("%s/layout", test_directory());
    FILE *file = fopen(path, "w");
    CHECK(file, "%s: %s", path, strerror(errno));
    for (int i = 0; i < layout->count; i++)
        fputs(layout->lines[i], file);
    CHECK(fclose(file) == 0, "%s: %s", path, strerror(errno));
    return path;
}

static char *line_of(struct layout *layout, const char *name)
{
    for (int i = 0; i < layout->count; i++)
        if (strncmp(layout->lines[i], name, strlen(name)) == 0 &&
            layout->lines[i][strlen(name)] == ' ')
            return layout->lines[i];
    fail("a layout has no %s", name);
}

/* ---- data ------------------------------------------------------------------------ */

static bool has_field_times(struct server *server)
{
    return server_knows(server, "HPEXPIRE");
}

/* What fill() leaves out: other databases, streams with all that belongs to them. */
static void fill_more(struct server *server)
{
    fill(server->connection, FILL_ALL, KEYS, 4711);
    for (int i = 0; i < 4; i++) {
        const char *key = format_text("groups:%d", i);
        for (int entry = 0; entry < 30; entry++)
            server_ok(server, "XADD %s * name value%d", key, entry);
        server_ok(server, "XGROUP CREATE %s one 0", key);
        server_ok(server, "XGROUP CREATE %s other $", key);
        server_ok(server, "XREADGROUP GROUP one reader COUNT 10 STREAMS %s >", key);
        server_ok(server, "XREADGROUP GROUP one second COUNT 5 STREAMS %s >", key);
        server_ok(server, "HSET times:%d field value other value", i);
        if (has_field_times(server))
            server_ok(server, "HPEXPIRE times:%d 1000000000 FIELDS 1 field", i);
    }
    server_ok(server, "SELECT 3");
    for (int i = 0; i < 20; i++)
        server_ok(server, "SET third:%d value", i);
    server_ok(server, "SELECT 0");
}

static struct server *start_with_data(const char *fault, bool with_module)
{
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG DISKLESS_CONFIG,
                                              .fault = fault,
                                              .without_module = !with_module});
    fill_more(server);
    return server;
}

static void load(struct server *server, const char *path)
{
    server_ok(server, "MODULE LOAD %s layout-file %s", module_path(), path);
    server->has_module = true;
}

static void unload(struct server *server)
{
    /* A save that has just ended may not have let go of everything. */
    double end = patient_seconds() + 10;
    while (server_command(server, "MODULE UNLOAD uffd")->type == REDIS_REPLY_ERROR) {
        CHECK(patient_seconds() < end, "the module cannot be unloaded");
        sleep_msec(5);
    }
    server->has_module = false;
}

/* ---- what a save makes of it ----------------------------------------------------- */

static const char *save_once(struct server *server)
{
    unlink(server_path(server, "background.rdb"));
    save_twice_at_once(server, "reference.rdb", "background.rdb", "0");
    if (!server_save_wait(server))
        return format_text("the save failed: %s", server_info(server, "uffd_last_error"));
    return rdb_difference(server_path(server, "reference.rdb"),
                          server_path(server, "background.rdb"));
}

/* BGSAVE in one go with SAVE. NULL, or what is wrong: twice, since a second may pass between
 * the two (Valkey 9.1 counts the idle time of each key as it is written). */
static const char *save_and_compare(struct server *server)
{
    return save_once(server) ? save_once(server) : NULL;
}

static bool is_supported(struct server *server)
{
    return server_info_number(server, "uffd_supported") == 1;
}

/* ---- a transfer ------------------------------------------------------------------ */

/* … which but for its aux fields, with the offset, is what SAVE writes. */
static const char *transfer_and_compare(struct server *server)
{
    const char *path = format_text("%s/received.rdb", test_directory());
    /* The clocks of accesses go on between the two. */
    server_config_set(server, "maxmemory-policy", "noeviction");
    server_config_set(server, "dbfilename", "reference.rdb");
    server_ok(server, "SAVE");
    receive_dump(server, NULL, path);
    return rdb_keys_difference(server_path(server, "reference.rdb"), path);
}

/* … and for a tool that wants no data: what it has got of the server alone. */
static const char *functions_of(struct server *server)
{
    const char *path = format_text("%s/functions-%d.rdb", test_directory(), rand());
    receive_dump(server, "rdb-filter-only functions", path);
    return path;
}

/* ---- files that are right, and that are wrong ------------------------------------ */

/* A version that no table knows. */
static void served(void)
{
    needs_module();
    struct server *server = start_with_data("newer_server", false);
    struct layout layout = layout_of(server);
    snprintf(line_of(&layout, "version"), LINE_BYTES, "version 99.9.9\n");
    load(server, write_layout(&layout));
    CHECK(is_supported(server), "%s", server_info(server, "uffd_unsupported_reason"));
    const char *difference = save_and_compare(server);
    CHECK(!difference, "%s", difference);
    check_fork_free(server, 1);
    difference = transfer_and_compare(server);
    CHECK(!difference, "%s", difference);
    check_fork_free(server, 2);
    CHECK(strstr(server_config_get(server, "uffd.layout-file"), "/layout"), "CONFIG GET");
    server_error(server, "CONFIG SET uffd.layout-file /another");
    server_stop(server);
}

/* Of each kind a value must be compared, and these are too long for it: the main thread does
 * not read them all to find that out. */
static void many_large_values(void)
{
    needs_module();
    struct server *server = start_with_data(NULL, false);
    struct layout layout = layout_of(server);
    const char *path = write_layout(&layout);
    server_ok(server, "EVAL %s 0",
              "for\tkey=1,2000\tdo\tlocal\tlarge={'HSET','large:'..key};"
              "for\tfield=1,700\tdo\tlarge[2*field+1]=field;"
              "large[2*field+2]=string.rep('x',100)\tend;"
              "redis.call(unpack(large))\tend");
    double began = patient_seconds();
    load(server, path);
    double seconds = patient_seconds() - began;
    test_note("loaded in %.2f s", seconds);
    CHECK(seconds < 1, "loading took %.2f s", seconds);
    CHECK(is_supported(server), "%s", server_info(server, "uffd_unsupported_reason"));
    server_stop(server);
}

/* One key of a kind, anywhere in a table that is small enough to be looked through: it is
 * found, or the first save would end at it. */
static void every_kind_is_met(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    struct layout layout = layout_of(server);
    const char *path = write_layout(&layout);
    for (int round = 0; round < (test_is_soak() ? 400 : 25); round++) {
        server_ok(server, "FLUSHALL");
        server_ok(server, "DEBUG POPULATE 45 key:%d", round);
        server_ok(server, "RPUSH list:%d a", round);
        server_ok(server, "SADD numbers:%d 1", round);
        server_ok(server, "SADD members:%d a", round);
        server_ok(server, "HSET hash:%d a b", round);
        server_ok(server, "ZADD sorted:%d 1 a", round);
        server_ok(server, "SET number:%d 123456", round);
        server_ok(server, "SET expires:%d text EX 10000", round);
        load(server, path);
        server_save_start(server);
        CHECK(server_save_wait(server), "round %d: %s", round,
              server_info(server, "uffd_last_error"));
        unload(server);
    }
    server_stop(server);
}

static void set_by_configuration(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.without_module = true});
    struct layout layout = layout_of(server);
    const char *path = write_layout(&layout);
    server_stop(server);
    server = server_start(&(struct server_options){
        .config = format_text(FILL_CONFIG "uffd.layout-file %s", path)});
    CHECK(is_supported(server), "%s", server_info(server, "uffd_unsupported_reason"));
    fill_more(server);
    /* Has it proved: the tick that met the first keys looks again after a minute. */
    server_save(server);
    const char *difference = save_and_compare(server);
    CHECK(!difference, "%s", difference);
    check_fork_free(server, 2);
    server_stop(server);
}

/* Says what is wrong and where, and saves by fork; once that is mended, serves. */
static void check_wrong(struct server *server, const char *path, const char *said)
{
    load(server, path);
    const char *reason = server_info(server, "uffd_unsupported_reason");
    CHECK(!is_supported(server) && strstr(reason, said), "not '%s' but: %s", said,
          reason);
    CHECK(server_log_count(server, said), "the log does not say '%s'", said);
    const char *difference = save_and_compare(server);
    CHECK(!difference, "%s", difference);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "not counted");
    unload(server);
}

static void wrong_files(void)
{
    /* What stands in the place of whose line, and what is said of it. */
    static const struct {
        const char *name, *line, *said;
    } lines[] = {
        {"pid", "piid 0", "'piid' is nothing that a layout has"},
        {"pid", "pid zero", "'zero' of pid is no number"},
        {"dbnum", "dbnum 70000", "dbnum is at most 65535"},
        {"dbnum", "pid 0", "pid is there twice"},
        {"client_request", "client_request 231", "client_request is a multiple of 2"},
        {"client_request", "client_request 64", "client_request cannot be 64"},
        {"no_compression", "no_compression 47", "no_compression is no bit of its own"},
        {"no_checksum", "no_checksum 33", "no_checksum is no bit of its own"},
        {"family", "family redis-1.0", "there is no family 'redis-1.0'"},
        {"version", "version 1.2.3", "1.2.3, and this is"},
    };
    needs_module();
    struct server *server = start_with_data(NULL, false);
    const struct layout right = layout_of(server);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        struct layout wrong = right;
        snprintf(line_of(&wrong, lines[i].name), LINE_BYTES, "%s\n", lines[i].line);
        check_wrong(server, write_layout(&wrong), lines[i].said);
    }
    struct layout half = right;
    half.count /= 2;
    check_wrong(server, write_layout(&half), "is missing");
    check_wrong(server, module_path(), "layout-file line 1:");
    check_wrong(server, "/dev/null", "server is missing");
    check_wrong(server, "/nowhere/layout", "cannot be opened: No such file");
    check_wrong(server, test_directory(), "cannot be read: Is a directory");
    load(server, write_layout(&right));
    CHECK(is_supported(server), "%s", server_info(server, "uffd_unsupported_reason"));
    server_stop(server);
}

/* ---- lies ------------------------------------------------------------------------ */

static long number_in(const char *line)
{
    const char *value = strchr(line, ' ');
    return value ? strtol(value, NULL, 10) : 0;
}

static bool is_number(const char *line)
{
    const char *value = strchr(line, ' ');
    return value && value[1] >= '0' && value[1] <= '9' &&
           strncmp(line, "version", 7) != 0;
}

static int random_line(const struct layout *layout, uint64_t *random)
{
    for (;;) {
        int line = (int)(random_next(random) % (uint64_t)layout->count);
        if (is_number(layout->lines[line]))
            return line;
    }
}

/* Moves the number of one line; what has been done. */
static const char *lie(struct layout *layout, int line, uint64_t *random)
{
    static const long steps[] = {-16, -8, -4, 4, 8, 16};
    char *text = layout->lines[line];
    long old = number_in(text), new = old;
    char *name = strndup(text, strcspn(text, " "));
    while (new == old || new < 0) {
        uint64_t choice = random_next(random) % 8;
        if (choice < 6)
            new = old + steps[choice];
        else if (choice == 6)
            new = number_in(layout->lines[random_line(layout, random)]);
        else
            new = (long)(random_next(random) % (uint64_t)(2 * old + 64));
    }
    snprintf(text, LINE_BYTES, "%s %ld\n", name, new);
    return format_text("%s %ld instead of %ld", name, new, old);
}

/* The evictions decide which clocks the dump has. */
static void draw_policy(struct server *server, uint64_t *random)
{
    static const char *const policies[] = {"noeviction", "allkeys-lru", "allkeys-lfu"};
    server_config_set(server, "maxmemory-policy", policies[random_next(random) % 3]);
}

/* 'r'efused, or 'f'orked, 's'erved: the save; the transfer; that of functions only. */
static char *judge(struct server *server, const char *functions, const char *what)
{
    char *verdict = format_text("rrr");
    if (!is_supported(server))
        return verdict;
    for (int i = 0; i < 3; i++) {
        double replaced = server_info_number(server, "uffd_forks_replaced");
        const char *difference =
            i == 0   ? save_and_compare(server)
            : i == 1 ? transfer_and_compare(server)
                     : rdb_keys_difference(functions, functions_of(server));
        CHECK(!difference, "%s, kind %d of save: %s", what, i, difference);
        verdict[i] =
            server_info_number(server, "uffd_forks_replaced") > replaced ? 's' : 'f';
    }
    return verdict;
}

static void tell(struct server *server, const struct layout *wrong, const char *functions,
                 const char *what)
{
    load(server, write_layout(wrong));
    char *verdict = judge(server, functions, what);
    if (getenv("TELL"))
        printf("%s %s\n", verdict, what);
    unload(server);
}

static void tell_lie(struct server *server, const struct layout *right,
                     const char *functions, int line, uint64_t seed)
{
    uint64_t random = seed;
    struct layout wrong = *right;
    const char *what = lie(&wrong, line, &random);
    draw_policy(server, &random);
    tell(server, &wrong, functions, what);
}

/* Those that have been believed once: what is read is often nothing that looks wrong. */
static void lies_once_believed(void)
{
    needs_module();
    static const struct {
        const char *name;
        long step;
    } lies[] = {
        {"client_request", 4},     {"client_request", -4}, {"client_request", -165},
        {"dict_exponents", 4},     {"module_types", 8},    {"type_load", 8},
        {"expiring_listpack", -8}, {"rdb_pipe_read", 44},  {"rdb_pipe_read", 16},
        {"database_bytes", 16},    {"child_info_pipe", 4},
    };
    struct server *server = start_with_data(NULL, false);
    const struct layout right = layout_of(server);
    const char *functions = functions_of(server);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        struct layout wrong = right;
        char *line = line_of(&wrong, lies[i].name);
        long number = number_in(line);
        if (!number)
            continue;
        snprintf(line, LINE_BYTES, "%s %ld\n", lies[i].name, number + lies[i].step);
        tell(server, &wrong, functions,
             format_text("%s %+ld", lies[i].name, lies[i].step));
    }
    server_stop(server);
}

/* Wherever a wish may be by the rules of the file, nothing but one is taken for it. */
static void requests_elsewhere(void)
{
    needs_module();
    uint64_t random = test_seed();
    struct server *server = start_with_data(NULL, false);
    struct layout right = layout_of(server);
    const char *functions = functions_of(server);
    long number = number_in(line_of(&right, "client_request"));
    for (long words = -15; words < 16; words++) {
        if (!words || (!test_is_soak() && random_next(&random) % 8))
            continue;
        struct layout wrong = right;
        snprintf(line_of(&wrong, "client_request"), LINE_BYTES, "client_request %ld\n",
                 number + 8 * words);
        tell(server, &wrong, functions, format_text("client_request %+ld", 8 * words));
    }
    server_stop(server);
}

/* Each member in turn, from one on that is drawn, so that few runs tell all of them. */
static void offsets_moved(void)
{
    needs_module();
    uint64_t random = test_seed();
    struct server *server = start_with_data(NULL, false);
    struct layout right = layout_of(server);
    const char *functions = functions_of(server);
    int line = random_line(&right, &random);
    for (int i = 0; i < (test_is_soak() ? SOAK_LIES : LIES); i++) {
        do
            line = (line + 1) % right.count;
        while (!is_number(right.lines[line]));
        tell_lie(server, &right, functions, line, random_next(&random));
    }
    load(server, write_layout(&right));
    CHECK(strncmp(judge(server, functions, "the truth"), "ss", 2) == 0,
          "the truth is not believed");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"served", served, 30},
        {"many_large_values", many_large_values, 60},
        {"every_kind_is_met", every_kind_is_met, 120},
        {"set_by_configuration", set_by_configuration, 30},
        {"wrong_files", wrong_files, 60},
        {"lies_once_believed", lies_once_believed, 120},
        {"requests_elsewhere", requests_elsewhere, 120},
        {"offsets_moved", offsets_moved, 1200},
        {0},
    };
    return test_run("lies", cases, argc, argv);
}
