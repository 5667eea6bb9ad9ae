/* uffd-watch --serve: what Prometheus, browsers and probes get from it, over real sockets. */
#include "server.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ANSWER_BYTES 262144
/* Of Debian's packages, which are too much to be installed for this alone. */
#define BROWSER    "/usr/bin/chromium"
#define PROMETHEUS "/usr/bin/prometheus"
#define PROMTOOL   "/usr/bin/promtool"
/* A page on which nothing is shown has less. */
#define PICTURE_BYTES_LEAST 10000

static int served_port;

/* Of nobody, at this moment. */
static int free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    int descriptor = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(descriptor, (struct sockaddr *)&address, sizeof(address)) == 0 &&
              getsockname(descriptor, (struct sockaddr *)&address, &length) == 0,
          "no port");
    close(descriptor);
    return ntohs(address.sin_port);
}

static int connect_to_it(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)served_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(descriptor >= 0, "socket");
    if (connect(descriptor, (struct sockaddr *)&address, sizeof(address)) == 0)
        return descriptor;
    close(descriptor);
    return -1;
}

static pid_t serve(const char *first, const char *second)
{
    needs_module();
    served_port = free_port();
    const char *program = getenv("UFFD_WATCH");
    const char *const words[] = {program ? program : "./uffd-watch",
                                 "--interval",
                                 "0.2",
                                 "--timeout",
                                 "0.5",
                                 "--serve",
                                 format_text("127.0.0.1:%d", served_port),
                                 first,
                                 second,
                                 NULL};
    pid_t pid = start_program(format_text("%s/watch.log", test_directory()), words);
    CHECK(pid >= 0, "fork");
    int descriptor = -1;
    WAIT_UNTIL((descriptor = connect_to_it()) >= 0, 10, "nobody listens");
    close(descriptor);
    return pid;
}

/* All that comes until the other side ends it; it must do so. */
static const char *read_all(int descriptor)
{
    char *text = calloc(1, ANSWER_BYTES);
    size_t length = 0;
    for (ssize_t got; length < ANSWER_BYTES - 1; length += (size_t)got) {
        struct pollfd readable = {.fd = descriptor, .events = POLLIN};
        CHECK(poll(&readable, 1, 20000) == 1, "no answer");
        got = read(descriptor, text + length, ANSWER_BYTES - 1 - length);
        CHECK(got >= 0, "read");
        if (got == 0)
            break;
    }
    close(descriptor);
    return text;
}

static const char *ask(const char *request)
{
    int descriptor = connect_to_it();
    CHECK(descriptor >= 0, "nobody listens");
    CHECK(send(descriptor, request, strlen(request), MSG_NOSIGNAL) > 0, "send");
    return read_all(descriptor);
}

static const char *get(const char *path)
{
    return ask(format_text("GET %s HTTP/1.1\r\nHost: here\r\n\r\n", path));
}

static void expect(const char *text, const char *part)
{
    CHECK(strstr(text, part), "\"%s\" is not in:\n%s", part, text);
}

static const char *body(const char *answer)
{
    const char *end = strstr(answer, "\r\n\r\n"),
               *length = strstr(answer, "Content-Length: ");
    CHECK(end && length, "no head: %s", answer);
    CHECK(strlen(end + 4) == strtoul(length + strlen("Content-Length: "), NULL, 10),
          "the length is not what is said: %s", answer);
    return end + 4;
}

/* The same names as the text for a file, so that rules and dashboards fit. */
static void metrics(void)
{
    struct server *server = server_start(NULL);
    server_save(server);
    const char *at = format_text("127.0.0.1:%d", server->port);
    serve(at, NULL);
    const char *program = getenv("UFFD_WATCH");
    const char *words[] = {program ? program : "./uffd-watch", "-1", "-p", at, NULL};
    char *path = format_text("%s/metrics", test_directory());
    CHECK(run_program(path, words) == 0, "uffd-watch -1 -p");
    const char *answer = get("/metrics");
    expect(answer, "HTTP/1.1 200 OK\r\n");
    expect(answer, "\r\nContent-Type: text/plain; version=0.0.4");
    const char *served = body(answer);
    FILE *file = fopen(path, "r");
    CHECK(file, "%s", path);
    char line[1024];
    int lines = 0;
    for (; fgets(line, sizeof(line), file); lines++) {
        line[strcspn(line, " \n")] = '\0';
        expect(served, line);
    }
    fclose(file);
    CHECK(lines > 60, "%d lines", lines);
    expect(served, format_text("\nuffd_snapshots_ok_total{server=\"%s\"} 1\n", at));
}

/* One of two servers stands still, then it is there again. */
static void health(void)
{
    struct server *one = server_start(NULL), *two = server_start(NULL);
    const char *at_one = format_text("127.0.0.1:%d", one->port),
               *at_two = format_text("127.0.0.1:%d", two->port);
    serve(at_one, at_two);
    WAIT_UNTIL(strstr(get("/healthz"), "HTTP/1.1 200 OK\r\n"), 10, "not well");
    expect(body(get("/healthz")), format_text("%s: ok\n", at_two));
    CHECK(kill(two->pid, SIGSTOP) == 0, "SIGSTOP");
    WAIT_UNTIL(strstr(get("/healthz"), "HTTP/1.1 503 "), 10, "well without a server");
    const char *answer = body(get("/healthz"));
    expect(answer, format_text("%s: ok\n", at_one));
    expect(answer, format_text("%s: ", at_two));
    expect(get("/metrics"), format_text("\nuffd_up{server=\"%s\"} 0\n", at_two));
    CHECK(kill(two->pid, SIGCONT) == 0, "SIGCONT");
    WAIT_UNTIL(strstr(get("/healthz"), "HTTP/1.1 200 OK\r\n"), 10, "not well again");
}

/* Also of a server whose name is a piece of HTML, and nothing may be run in it. */
static void page(void)
{
    struct server *server = server_start(NULL);
    server_save(server);
    serve(format_text("127.0.0.1:%d", server->port), "/<script>alert(1)</script>&");
    const char *answer = get("/");
    expect(answer, "\r\nContent-Type: text/html; charset=utf-8\r\n");
    expect(answer, "\r\nContent-Security-Policy: default-src 'none'");
    const char *html = body(answer);
    expect(html, format_text("127.0.0.1:%d", server->port));
    expect(html, ">idle<");
    expect(html, "1 ok, 0 failed, 0 forked");
    expect(html, "/&lt;script>alert(1)&lt;/script>&amp;");
    CHECK(!strstr(html, "<script"), "a script: %s", html);
    expect(get("/?again=1"), "HTTP/1.1 200 OK\r\n");
    server_save(server);
    server_save(server);
    WAIT_UNTIL(strstr(get("/"), "<td>ok<td>"), 10, "no save has ended");
}

/* What belongs to the save that runs is not said of the last one, and how much there is of
 * what is used. */
static void page_amid_a_save(void)
{
    struct server *server = server_start(NULL);
    server_ok(server, "DEBUG POPULATE 10000 key 100");
    server_save(server);
    serve(format_text("127.0.0.1:%d", server->port), NULL);
    WAIT_UNTIL(strstr(get("/"), ">last save<td>"), 10, "no last save");
    server_config_set(server, "rdb-key-save-delay", "2000");
    server_save_start(server);
    const char *html;
    WAIT_UNTIL(strstr(html = get("/"), " s left"), 10, "not saving: %s", html);
    expect(html, ">saving<");
    expect(html, " of 10000 keys");
    expect(html, ">this save<td>");
    CHECK(!strstr(html, "last save"), "both saves: %s", html);
    double limit = server_info_number(server, "uffd_buffer_limit_bytes") / 1048576;
    expect(html, format_text(" of %.1f MB, most ", limit));
    server_ok(server, "FLUSHALL"); /* which ends it */
    WAIT_UNTIL(strstr(get("/"), ">last save<td>"), 10, "it has not ended");
}

/* That it is idle is not all there is to say of a server that forks, or has failed to save. */
static void page_in_trouble(void)
{
    struct server *forks =
                      server_start(&(struct server_options){.fault = "no_userfaultfd"}),
                  *fails = server_start(&(struct server_options){.fault = ""});
    serve(format_text("127.0.0.1:%d", forks->port),
          format_text("127.0.0.1:%d", fails->port));
    WAIT_UNTIL(strstr(get("/"), "<span class='state bad'>saves fork<"), 10,
               "it is not said that saves fork: %s", get("/"));
    server_ok(fails, "UFFD.FAULT output_write on");
    server_save_start(fails);
    CHECK(!server_save_wait(fails), "the save succeeded");
    WAIT_UNTIL(strstr(get("/"), "<span class='state bad'>last save failed<"), 10,
               "it is not said that the save failed: %s", get("/"));
    expect(get("/"), "<td class=bad>failed<td>");
    server_ok(fails, "UFFD.FAULT output_write off");
    server_save(fails);
    WAIT_UNTIL(strstr(get("/"), ">idle<"), 10, "still in trouble: %s", get("/"));
    expect(get("/"), "<td>ok<td>");
}

static void wrong_requests(void)
{
    struct server *server = server_start(NULL);
    serve(format_text("127.0.0.1:%d", server->port), NULL);
    expect(get("/nothing"), "HTTP/1.1 404 ");
    expect(get("/metricsandmore"), "HTTP/1.1 404 ");
    expect(get("/../etc/passwd"), "HTTP/1.1 404 ");
    expect(ask("POST / HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 ");
    expect(ask("\r\n\r\n"), "HTTP/1.1 400 ");
    const char *head = ask("HEAD /metrics HTTP/1.0\r\n\r\n");
    expect(head, "HTTP/1.1 200 OK\r\n");
    CHECK(!*(strstr(head, "\r\n\r\n") + 4), "a body: %s", head);
    char *endless = calloc(1, 9000);
    memcpy(endless, "GET /", 5);
    memset(endless + 5, 'x', 8000);
    int descriptor = connect_to_it();
    CHECK(send(descriptor, endless, 8005, MSG_NOSIGNAL) > 0, "send");
    close(descriptor);
    expect(get("/healthz"), "HTTP/1.1 200 OK\r\n");
}

/* Those who say nothing, or half of it, keep nobody waiting; there may be as many as will. */
static void slow_clients(void)
{
    struct server *server = server_start(NULL);
    pid_t watch = serve(format_text("127.0.0.1:%d", server->port), NULL);
    double began = patient_seconds();
    for (int i = 0; i < 100; i++) {
        int descriptor = connect_to_it();
        CHECK(descriptor >= 0, "connection %d", i);
        if (i % 2)
            CHECK(send(descriptor, "GET /metr", 9, MSG_NOSIGNAL) == 9, "send");
        expect(get("/healthz"), "HTTP/1.1 200 OK\r\n");
    }
    CHECK(patient_seconds() - began < 4, "%g s", patient_seconds() - began);
    CHECK(waitpid(watch, NULL, WNOHANG) == 0, "it has ended");
}

static void wrong_places(void)
{
    const char *program = getenv("UFFD_WATCH");
    program = program ? program : "./uffd-watch";
    struct server *server = server_start(NULL);
    const char *const places[] = {"127.0.0.1", "127.0.0.1:0", "/a/path", "",
                                  format_text("127.0.0.1:%d", server->port)};
    char *path = format_text("%s/wrong", test_directory());
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        const char *words[] = {program, "--serve", places[i], NULL};
        CHECK(run_program(path, words) == 2, "\"%s\" is taken", places[i]);
    }
    const char *words[] = {program, "--serve", "127.0.0.1:1", "--once", NULL};
    CHECK(run_program(path, words) == 2, "with --once");
}

/* What it prints, while it does what the option says, of a window that is so wide. */
static char *browse(const char *option, int width, const char *url)
{
    char *output = format_text("%s/browser", test_directory());
    unlink(output);
    const char *const words[] = {BROWSER,
                                 "--headless",
                                 "--no-sandbox",
                                 "--enable-logging=stderr",
                                 format_text("--user-data-dir=%s/user", test_directory()),
                                 format_text("--window-size=%d,700", width),
                                 option,
                                 url,
                                 NULL};
    CHECK(run_program(output, words) == 0, "%s has failed", BROWSER);
    return output;
}

static bool has_line(const char *path, const char *pattern)
{
    const char *const words[] = {"/bin/grep", "-qE", pattern, path, NULL};
    return run_program(NULL, words) == 0;
}

/* Two servers, one of which is not there, and saves that were seen to end. */
static void serve_for_a_browser(void)
{
    if (access(BROWSER, X_OK) != 0)
        not_applicable("there is no %s", BROWSER);
    struct server *server = server_start(NULL);
    server_save(server);
    serve(format_text("127.0.0.1:%d", server->port), "127.0.0.1:1");
    WAIT_UNTIL(strstr(get("/"), "not there"), 10, "the second server is not shown");
    server_save(server);
    WAIT_UNTIL(strstr(get("/"), "<td>ok<td>"), 10, "no save has ended");
}

/* What a real one makes of the page: all of it allowed by what it says of itself (the policy),
 * and to be seen. */
static void in_a_browser(void)
{
    serve_for_a_browser();
    char *picture = format_text("%s/page.png", test_directory());
    const char *output = browse(format_text("--screenshot=%s", picture), 800,
                                format_text("http://127.0.0.1:%d/", served_port));
    struct stat shown;
    CHECK(stat(picture, &shown) == 0 && shown.st_size > PICTURE_BYTES_LEAST,
          "nothing is to be seen");
    CHECK(!has_line(output, "CONSOLE|Refused"), "the browser objects");
}

/* As on a telephone, whose width no window of the browser's can have: the page in a frame, as
 * its attribute, where it may say how wide it has become. */
static void in_a_narrow_browser(void)
{
    serve_for_a_browser();
    char *path = format_text("%s/frame.html", test_directory());
    FILE *file = fopen(path, "w");
    CHECK(file, "%s", path);
    fputs("<title></title><iframe width=360 height=700 srcdoc=\"", file);
    for (const char *at = body(get("/")); *at; at++)
        if (*at == '"' || *at == '&')
            fprintf(file, "&#%d;", *at);
        else
            putc(*at, file);
    fputs("<script>const page=document.documentElement;parent.document.title="
          "'too wide by '+(page.scrollWidth-page.clientWidth)</script>\"></iframe>",
          file);
    fclose(file);
    const char *output = browse("--dump-dom", 800, format_text("file://%s", path));
    CHECK(has_line(output, "<title>too wide"), "the page is not shown");
    CHECK(has_line(output, "<title>too wide by 0<"), "one must scroll sideways");
}

/* ---- a real Prometheus ----------------------------------------------------------- */

static void start_prometheus(int port)
{
    char *config = format_text("%s/prometheus.yml", test_directory());
    FILE *file = fopen(config, "w");
    CHECK(file, "%s", config);
    fprintf(file,
            "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: uffd, "
            "static_configs: [{targets: [\"127.0.0.1:%d\"]}]}]\n",
            served_port);
    fclose(file);
    const char *const words[] = {
        PROMETHEUS, format_text("--config.file=%s", config),
        format_text("--storage.tsdb.path=%s/series", test_directory()),
        format_text("--web.listen-address=127.0.0.1:%d", port), NULL};
    CHECK(start_program(format_text("%s/prometheus.log", test_directory()), words) >= 0,
          "fork");
}

/* What Grafana makes of an expression in the dashboard's text; `*end`: behind it. */
static const char *as_grafana_asks(const char *at, const char **end)
{
    static const char server[] = "$server", interval[] = "$__rate_interval";
    char *made = calloc(1, 512), *to = made;
    while (*at != '"' && to < made + 500)
        if (strncmp(at, server, strlen(server)) == 0) {
            to = stpcpy(to, ".*");
            at += strlen(server);
        } else if (strncmp(at, interval, strlen(interval)) == 0) {
            to = stpcpy(to, "4s");
            at += strlen(interval);
        } else {
            at += *at == '\\';
            *to++ = *at++;
        }
    *end = at;
    return made;
}

static bool has_answer(int port, const char *expression)
{
    char *path = format_text("%s/answer", test_directory());
    unlink(path);
    const char *const words[] = {PROMTOOL,   "query",
                                 "instant",  format_text("http://127.0.0.1:%d", port),
                                 expression, NULL};
    return run_program(path, words) == 0 && has_line(path, "=> [0-9]");
}

/* Every question of the dashboard, asked as Grafana asks it, has an answer. */
static void dashboard_in_prometheus(void)
{
    if (access(PROMETHEUS, X_OK) != 0 || access(PROMTOOL, X_OK) != 0)
        not_applicable("there is no %s", PROMETHEUS);
    struct server *server = server_start(NULL);
    server_save(server);
    serve(format_text("127.0.0.1:%d", server->port), NULL);
    int port = free_port(), questions = 0;
    start_prometheus(port);
    WAIT_UNTIL(has_answer(port, "increase(uffd_snapshots_ok_total[4s])"), 60,
               "it has read nothing");
    CHECK(!has_answer(port, "uffd_gone{server=~\".*\"}"), "an answer to anything");
    const char *json = source_text("packaging/grafana/rdb_uffd.json");
    for (const char *at = json; (at = strstr(at, "\"expr\": \"")); questions++) {
        const char *asked = as_grafana_asks(at + strlen("\"expr\": \""), &at);
        CHECK(has_answer(port, asked), "no answer to %s", asked);
    }
    CHECK(questions >= 30, "%d questions", questions);
    test_note("%d questions", questions);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"metrics", metrics, 30},
        {"health", health, 60},
        {"page", page, 30},
        {"page_amid_a_save", page_amid_a_save, 60},
        {"page_in_trouble", page_in_trouble, 60},
        {"wrong_requests", wrong_requests, 30},
        {"slow_clients", slow_clients, 60},
        {"wrong_places", wrong_places, 20},
        {"in_a_browser", in_a_browser, 60},
        {"in_a_narrow_browser", in_a_narrow_browser, 60},
        {"dashboard_in_prometheus", dashboard_in_prometheus, 120},
        {0},
    };
    return test_run("serve", cases, argc, argv);
}
