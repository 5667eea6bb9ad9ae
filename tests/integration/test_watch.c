/* uffd-watch, as people and scripts call it, against real servers. */
#include "fill.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define WORDS_MAX 70

static struct server *start(const char *config)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = format_text("save \"\"\n%s", config)});
    server_ok(server, "DEBUG POPULATE 10000 key 100");
    return server;
}

static const char *address_of(struct server *server)
{
    return format_text("127.0.0.1:%d", server->port);
}

/* Runs it without a terminal; returns all it printed. */
static const char *watch(int code, const char *const *words)
{
    const char *program = getenv("UFFD_WATCH"), *all[WORDS_MAX + 2] = {0};
    all[0] = program ? program : "./uffd-watch";
    for (int i = 0; i < WORDS_MAX && words[i]; i++)
        all[i + 1] = words[i];
    char *path = format_text("%s/watch-output", test_directory());
    unlink(path);
    int got = run_program(path, all);
    FILE *file = fopen(path, "r");
    CHECK(file, "no output");
    char *text = calloc(1, 65536);
    size_t length = fread(text, 1, 65535, file);
    fclose(file);
    CHECK(got == code, "exit code %d, not %d: %.*s", got, code, (int)length, text);
    return text;
}
#define WATCH(code, ...) watch(code, (const char *const[]){__VA_ARGS__, NULL})

static void expect(const char *text, const char *part)
{
    CHECK(strstr(text, part), "\"%s\" is not in:\n%s", part, text);
}

/* ---- formats --------------------------------------------------------------------- */

static void once(void)
{
    struct server *one = start(""), *two = start("");
    server_save(one);
    const char *text = WATCH(0, "--once", address_of(one), address_of(two));
    expect(text, address_of(one));
    expect(text, address_of(two));
    expect(text, "idle");
    CHECK(!strchr(text, '\033'), "escape sequences without a terminal");
    server_config_set(one, "rdb-key-save-delay", "200");
    server_save_start(one);
    sleep_msec(500);
    text = WATCH(0, "--once", address_of(one));
    expect(text, "saving");
    expect(text, "10000");
    /* The server knows when it began, who looks for the first time does not. */
    expect(text, " s left");
    CHECK(server_save_wait(one), "the save failed");
}

/* ---- on a terminal --------------------------------------------------------------- */

/* Starts it on a terminal of its own, which the descriptor is the other end of. */
static pid_t watcher;

static int watch_on_terminal(const char *address, const char *interval)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY), slave = -1;
    CHECK(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0, "no terminal");
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    CHECK(slave >= 0, "%s", ptsname(master));
    const char *program = getenv("UFFD_WATCH");
    watcher = fork();
    CHECK(watcher >= 0, "fork");
    if (watcher == 0) {
        dup2(slave, STDOUT_FILENO);
        program = program ? program : "./uffd-watch";
        execl(program, program, "--interval", interval, address, (char *)NULL);
        _exit(127);
    }
    close(slave);
    return master;
}

static int watch_in_colour(const char *address)
{
    setenv("TERM", "xterm", 1);
    unsetenv("NO_COLOR");
    return watch_on_terminal(address, "0.3");
}

/* Some writes, so that there are faults, and what the terminal shows meanwhile. */
static const char *write_and_read(struct server *server, int master, double seconds)
{
    size_t size = 65536, length = 0;
    char *text = calloc(1, size);
    double until = clock_seconds() + seconds;
    for (int key = 0; clock_seconds() < until; key++) {
        struct pollfd readable = {.fd = master, .events = POLLIN};
        server_ok(server, "SETRANGE key:%d 0 changed", key % 10000);
        if (poll(&readable, 1, 1) > 0 && length + 1 < size) {
            ssize_t got = read(master, text + length, size - 1 - length);
            CHECK(got > 0, "the watch has ended: %s", text);
            length += (size_t)got;
        }
    }
    return text;
}

/* The largest number that stands before the word. */
static double largest_before(const char *text, const char *word)
{
    double largest = -1;
    for (const char *at = text; (at = strstr(at, word)); at++) {
        const char *number = at;
        while (number > text && strchr("0123456789.", number[-1]))
            number--;
        double value = number < at ? strtod(number, NULL) : -1;
        largest = value > largest ? value : largest;
    }
    return largest;
}

static void on_terminal(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", "200");
    server_save_start(server);
    setenv("LC_ALL", "C.UTF-8", 1);
    int master = watch_in_colour(address_of(server));
    const char *text = write_and_read(server, master, 2);
    expect(text, "\033[H\033[J");
    expect(text, "saving");
    expect(text, "  [#");
    expect(text, " of 10000 keys, about ");
    double left = largest_before(text, " s left"),
           faults = largest_before(text, " faults/s");
    CHECK(left > 0 && left < 60, "%f s left", left);
    CHECK(faults > 0, "no faults: %s", text);
    expect(text, "█");
    expect(text, "\033[33msaving\033[0m");
    CHECK(server_save_wait(server), "the save failed");
    text = write_and_read(server, master, 1);
    expect(text, "\033[32midle\033[0m");
    expect(text, " \033[32mok       \033[0m ");
    close(master);
}

static void trouble_on_terminal(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.fault = "no_userfaultfd"});
    int master = watch_in_colour(address_of(server));
    const char *text = write_and_read(server, master, 1);
    expect(text, "\033[31midle\033[0m");
    expect(text, "saves keep using fork: ");
    close(master);
}

/* Columns of the faults in the last picture. */
static int columns_drawn(const char *text)
{
    const char *last = NULL;
    for (const char *at = text; (at = strstr(at, "  faults    ")); at++)
        last = at + strlen("  faults    ");
    CHECK(last, "no picture: %s", text);
    const char *end = strstr(last, " 0 /s");
    return end ? (int)(end - last) : -1;
}

/* It is drawn anew at once: the next look is far away. In letters, without colour. */
static void another_size(void)
{
    struct server *server = start("");
    struct winsize wide = {.ws_row = 24, .ws_col = 100},
                   narrow = {.ws_row = 24, .ws_col = 60};
    setenv("LC_ALL", "C", 1);
    setenv("NO_COLOR", "1", 1);
    int master = watch_on_terminal(address_of(server), "60");
    CHECK(ioctl(master, TIOCSWINSZ, &wide) == 0, "TIOCSWINSZ");
    write_and_read(server, master, 1);
    CHECK(kill(watcher, SIGWINCH) == 0, "kill");
    const char *text = write_and_read(server, master, 1);
    CHECK(columns_drawn(text) == 64, "%d columns: %s", columns_drawn(text), text);
    CHECK(ioctl(master, TIOCSWINSZ, &narrow) == 0, "TIOCSWINSZ");
    CHECK(kill(watcher, SIGWINCH) == 0, "kill");
    text = write_and_read(server, master, 1);
    CHECK(columns_drawn(text) == 24, "%d columns: %s", columns_drawn(text), text);
    CHECK(!strstr(text, "\033[3"), "colours: %s", text);
    close(master);
}

/* ---- for programs ---------------------------------------------------------------- */

static const char *json_value(const char *at);

static const char *space(const char *at)
{
    return at + strspn(at, " \t\r\n");
}

static const char *json_string(const char *at)
{
    CHECK(*at == '"', "no string at %.20s", at);
    for (at++; *at && *at != '"'; at++)
        if (*at == '\\' && at[1])
            at++;
    CHECK(*at == '"', "a string without end");
    return at + 1;
}

static const char *json_members(const char *at, char close)
{
    at = space(at + 1);
    if (*at == close)
        return at + 1;
    for (;;) {
        if (close == '}') {
            at = space(json_string(at));
            CHECK(*at == ':', "no colon at %.20s", at);
            at = space(at + 1);
        }
        at = space(json_value(at));
        if (*at == close)
            return at + 1;
        CHECK(*at == ',', "neither comma nor end at %.20s", at);
        at = space(at + 1);
    }
}

static const char *json_value(const char *at)
{
    static const char *const words[] = {"true", "false", "null"};
    if (*at == '{' || *at == '[')
        return json_members(at, *at == '{' ? '}' : ']');
    if (*at == '"')
        return json_string(at);
    for (size_t i = 0; i < 3; i++)
        if (strncmp(at, words[i], strlen(words[i])) == 0)
            return at + strlen(words[i]);
    size_t digits = strspn(at, "+-.0123456789eE");
    CHECK(digits, "no value at %.20s", at);
    return at + digits;
}

static void json(void)
{
    struct server *server = start("");
    server_save(server);
    const char *text = WATCH(1, "--once", "--json", address_of(server), "127.0.0.1:1");
    const char *end = space(json_value(space(text)));
    CHECK(!*end, "more than one value: %.40s", end);
    CHECK(*space(text) == '[', "not a list");
    expect(text, "\"uffd_snapshots_ok\"");
    expect(text, "error");
}

/* What `promtool check metrics` asks for: a meaning, and _total for counters alone. */
static void check_metric_type(const char *text, const char *line)
{
    char name[128], type[16];
    CHECK(sscanf(line, "# TYPE %127s %15s", name, type) == 2, "%s", line);
    CHECK(strstr(text, format_text("# HELP %s ", name)), "%s has no meaning", name);
    size_t length = strlen(name);
    bool total = length > 6 && strcmp(name + length - 6, "_total") == 0;
    CHECK(total == (strcmp(type, "counter") == 0), "%s", line);
    CHECK(!strstr(text, "of a newer module"), "a field that is not known");
}

static void check_metric_line(const char *text, const char *line)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz_:0123456789";
    if (strncmp(line, "# TYPE ", 7) == 0)
        check_metric_type(text, line);
    if (*line == '#')
        return;
    const char *at = line + strspn(line, letters);
    CHECK(at > line, "no name: %s", line);
    if (*at == '{') {
        at = strchr(at, '}');
        CHECK(at, "no end of labels: %s", line);
        at++;
    }
    CHECK(*at == ' ', "no value: %s", line);
    char *end;
    strtod(at + 1, &end);
    CHECK(end > at + 1 && !*end, "not a number: %s", line);
}

static void prometheus(void)
{
    struct server *server = start("");
    server_save(server);
    const char *text = WATCH(0, "--once", "--prometheus", address_of(server));
    CHECK(text[strlen(text) - 1] == '\n', "the last line has no end");
    expect(text, "uffd_snapshots_ok");
    expect(text, "# TYPE");
    char *copy = format_text("%s", text), *rest = copy;
    for (char *line; (line = strsep(&rest, "\n"));)
        if (*line)
            check_metric_line(text, line);
}

/* ---- what operators are given ---------------------------------------------------- */

/* Every name uffd_… in the expression is a metric that there is. */
static void check_expression(const char *expression, const char *metrics)
{
    for (const char *at = expression; (at = strstr(at, "uffd_"));) {
        size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz_0123456789");
        const char *name = format_text("\n%.*s{", (int)length, at);
        CHECK(strstr(metrics, name), "no metric %.*s", (int)length, at);
        at += length;
    }
}

/* The rules ask for what is reported, and the manual has them all. */
static void alarm_rules(void)
{
    struct server *server = start("");
    const char *metrics = WATCH(0, "--once", "--prometheus", address_of(server));
    const char *manual = source_text("docs/OPERATIONS.md");
    char *rest =
        format_text("%s", source_text("packaging/prometheus/rdb_uffd.rules.yml"));
    int rules = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        const char *expression = strstr(line, "expr: ");
        if (!expression)
            continue;
        rules++;
        check_expression(expression, metrics);
        expect(manual, format_text("`%s`", expression + strlen("expr: ")));
    }
    CHECK(rules >= 10, "%d rules", rules);
}

/* The picture asks for what is reported, and is a JSON text. */
static void dashboard(void)
{
    struct server *server = start("aof-use-rdb-preamble no\n");
    server_ok(server, "BGREWRITEAOF");
    const char *metrics = WATCH(0, "--once", "--prometheus", address_of(server));
    expect(metrics, ",last_fallback_reason=\"aof-use-rdb-preamble is no: ");
    const char *json = source_text("packaging/grafana/rdb_uffd.json");
    CHECK(!*space(json_value(space(json))), "more than one value");
    int queries = 0;
    for (const char *at = json; (at = strstr(at, "\"expr\": "));) {
        at += strlen("\"expr\": ");
        const char *end = json_string(at);
        check_expression(format_text("%.*s", (int)(end - at), at), metrics);
        queries++;
    }
    CHECK(queries >= 30, "%d queries", queries);
}

/* Names and values in turn, all text: what prometheus-redis-exporter takes. */
static void exporter_script(void)
{
    struct server *server = start("");
    server_save(server);
    redisReply *reply = server_ok(server, "EVAL %s 0",
                                  source_text("packaging/prometheus/redis_exporter.lua"));
    CHECK(reply->elements > 20 && reply->elements % 2 == 0, "%zu elements",
          reply->elements);
    bool found = false;
    for (size_t i = 0; i < reply->elements; i += 2) {
        const char *name = reply->element[i]->str, *value = reply->element[i + 1]->str;
        CHECK(reply->element[i + 1]->type == REDIS_REPLY_STRING, "%s is no text", name);
        CHECK(value[strspn(value, "0123456789")] == '\0', "%s is %s", name, value);
        found |= strcmp(name, "uffd_snapshots_ok") == 0 && strcmp(value, "1") == 0;
    }
    CHECK(found, "no uffd_snapshots_ok of 1");
}

/* ---- ways to a server ------------------------------------------------------------ */

static void unix_socket(void)
{
    char *path = format_text("%s/socket", test_directory());
    start(format_text("unixsocket %s\n", path));
    expect(WATCH(0, "--once", path), "idle");
}

static void passwords(void)
{
    struct server *server = start("");
    server_ok(server,
              "ACL SETUSER watcher on >secret +info +ping +uffd.history +uffd.status");
    server_config_set(server, "requirepass", "other");
    const char *at = address_of(server);
    expect(WATCH(0, "--once", "-a", "other", at), "idle");
    expect(WATCH(0, "--once", "-u", "watcher", "-a", "secret", at), "idle");
    setenv("REDISCLI_AUTH", "other", 1);
    expect(WATCH(0, "--once", at), "idle");
    unsetenv("REDISCLI_AUTH");
    expect(WATCH(1, "--once", at), "NOAUTH");
    expect(WATCH(1, "--once", "-a", "wrong", at), "WRONGPASS");
    server_config_set(server, "requirepass", "");
}

/* ---- what goes wrong ------------------------------------------------------------- */

static void no_server(void)
{
    expect(WATCH(1, "--once", "127.0.0.1:1"), "refused");
    expect(WATCH(1, "--once", "/nowhere/socket"), "No such file");
}

static void no_module(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.without_module = true});
    expect(WATCH(1, "--once", address_of(server)), "module");
}

/* A server that is stopped still takes connections. */
static void stopped_server(void)
{
    char *path = format_text("%s/socket", test_directory());
    struct server *server = start(format_text("unixsocket %s\n", path));
    CHECK(kill(server->pid, SIGSTOP) == 0, "kill");
    double began = patient_seconds();
    expect(WATCH(1, "--once", "--timeout", "0.5", path), "no answer");
    expect(WATCH(1, "--once", "--timeout", "0.5", address_of(server)), "no answer");
    CHECK(patient_seconds() - began < 5, "it waited for long");
    CHECK(kill(server->pid, SIGCONT) == 0, "kill");
    server_stop(server);
}

static void addresses(void)
{
    struct server *server = start("bind 127.0.0.1 -::1\n");
    expect(WATCH(0, "--once", format_text("localhost:%d", server->port)), "idle");
    bool has_ipv6 = access("/proc/net/if_inet6", F_OK) == 0 &&
                    run_program(NULL, (const char *[]){"grep", "-q", "^0*1 ",
                                                       "/proc/net/if_inet6", NULL}) == 0;
    if (has_ipv6)
        expect(WATCH(0, "--once", format_text("[::1]:%d", server->port)), "idle");
    /* Understood, though nobody is there: not a mistake of the command line. */
    expect(WATCH(1, "--once", "::2"), "cannot connect");
    server_stop(server);
}

static void wrong_words(void)
{
    needs_module();
    static const char *const names[] = {"localhost:abc", "localhost:99999",
                                        "localhost:0",   "localhost:",
                                        "localhost:1x",  "[::1]6379",
                                        "[::1",          "[]:1",
                                        "[::1]:x",       ""};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        expect(WATCH(2, "--once", names[i]), format_text("uffd-watch: %s: ", names[i]));
    unsetenv("REDISCLI_AUTH");
    expect(WATCH(2, "--once", "-u", "watcher", "127.0.0.1:1"), "password");
    const char *many[67] = {"--once"};
    for (int i = 1; i < 66; i++)
        many[i] = "127.0.0.1:1";
    expect(watch(2, many), "64 servers");
    WATCH(2, "--nothing");
    WATCH(2, "--interval", "x");
    WATCH(2, "--interval", "-1");
    expect(WATCH(0, "--help"), "usage");
    expect(WATCH(0, "--help"), "Examples:");
    expect(WATCH(0, "--version"), ".");
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"once", once, 30},
        {"on_terminal", on_terminal, 30},
        {"trouble_on_terminal", trouble_on_terminal, 30},
        {"another_size", another_size, 30},
        {"json", json, 30},
        {"prometheus", prometheus, 30},
        {"alarm_rules", alarm_rules, 30},
        {"dashboard", dashboard, 30},
        {"exporter_script", exporter_script, 30},
        {"unix_socket", unix_socket, 30},
        {"passwords", passwords, 30},
        {"no_server", no_server, 30},
        {"stopped_server", stopped_server, 30},
        {"addresses", addresses, 30},
        {"no_module", no_module, 30},
        {"wrong_words", wrong_words, 30},
        {0},
    };
    return test_run("watch", cases, argc, argv);
}
