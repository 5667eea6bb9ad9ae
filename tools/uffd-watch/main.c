/* uffd-watch: what the module does on one server or several. See --help. */
#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "serve.h"
#include "server.h"
#include "show.h"

#ifndef VERSION
#define VERSION "unknown"
#endif
#define SERVERS_MAX 64

static const char help[] =
    "usage: uffd-watch [options] [server ...]\n"
    "\n"
    "Shows what the module rdb_uffd does: state and progress of a save, buffer,\n"
    "spool, page faults, writers that waited, freezes of the last saves.\n"
    "\n"
    "  server               host:port, host, [address]:port, or the path of a unix\n"
    "                       socket (127.0.0.1:6379); at most 64\n"
    "  -i, --interval SEC   look every SEC seconds (1)\n"
    "  -1, --once           look once and exit\n"
    "  -j, --json           as JSON: a list with an object for each server\n"
    "  -p, --prometheus     in Prometheus' text format\n"
    "  -s, --serve ADDRESS  answer HTTP at host:port, and nobody else: /metrics for\n"
    "                       Prometheus, /healthz, and a page\n"
    "  -u, --user NAME      ACL user\n"
    "  -a, --password TEXT  better: in the environment, REDISCLI_AUTH\n"
    "      --tls            with --ca, --cert, --key FILE as needed\n"
    "      --timeout SEC    for connecting and for answers (3)\n"
    "  -h, --help           this text\n"
    "  -V, --version\n"
    "\n"
    "On a terminal the screen shows the last minutes too. Colours go by NO_COLOR and "
    "TERM,\n"
    "blocks by the locale (LC_ALL=C: letters).\n"
    "\n"
    "Examples:\n"
    "  uffd-watch                                   the server here, live\n"
    "  uffd-watch 10.0.0.1:6379 10.0.0.2:6379       two of them\n"
    "  REDISCLI_AUTH=secret uffd-watch -u ops --tls --ca ca.pem db.example:6379\n"
    "  uffd-watch -1 -j | jq '.[0].uffd_last_freeze_usec'\n"
    "  uffd-watch -i 10 >>saves.log                 a line every ten seconds\n"
    "  uffd-watch -1 -p >uffd.prom.new && mv uffd.prom.new uffd.prom\n"
    "  uffd-watch -s 127.0.0.1:9721                 for Prometheus and browsers\n"
    "\n"
    "Exit code: 0; 1 if with --once a server did not answer or lacks the module;\n"
    "2 for a mistake on the command line.\n";

struct options {
    struct login login;
    double interval;
    bool once, json, prometheus;
    const char *serve; /* where, NULL: nowhere */
};

enum { OPTION_TLS = 256, OPTION_CA, OPTION_CERT, OPTION_KEY, OPTION_TIMEOUT };

static const struct option long_options[] = {
    {"interval", required_argument, NULL, 'i'},
    {"once", no_argument, NULL, '1'},
    {"json", no_argument, NULL, 'j'},
    {"prometheus", no_argument, NULL, 'p'},
    {"serve", required_argument, NULL, 's'},
    {"user", required_argument, NULL, 'u'},
    {"password", required_argument, NULL, 'a'},
    {"tls", no_argument, NULL, OPTION_TLS},
    {"ca", required_argument, NULL, OPTION_CA},
    {"cert", required_argument, NULL, OPTION_CERT},
    {"key", required_argument, NULL, OPTION_KEY},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static double seconds(const char *option, const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0) || value > 86400) {
        fprintf(stderr, "uffd-watch: %s takes a number of seconds, not \"%s\"\n", option,
                text);
        exit(2);
    }
    return value;
}

static void take_option(struct options *options, int option)
{
    switch (option) {
    case 'i':
        options->interval = seconds("--interval", optarg);
        break;
    case '1':
        options->once = true;
        break;
    case 'j':
        options->json = true;
        break;
    case 'p':
        options->prometheus = true;
        break;
    case 's':
        options->serve = optarg;
        break;
    case 'u':
        options->login.user = optarg;
        break;
    case 'a':
        options->login.password = optarg;
        break;
    case OPTION_TLS:
        options->login.tls = true;
        break;
    case OPTION_CA:
        options->login.ca = optarg;
        break;
    case OPTION_CERT:
        options->login.certificate = optarg;
        break;
    case OPTION_KEY:
        options->login.key = optarg;
        break;
    case OPTION_TIMEOUT:
        options->login.timeout_seconds = seconds("--timeout", optarg);
        break;
    case 'h':
        fputs(help, stdout);
        exit(0);
    case 'V':
        puts("uffd-watch " VERSION);
        exit(0);
    default:
        fprintf(stderr, "Try uffd-watch --help.\n");
        exit(2);
    }
}

static void show(const struct options *options, const struct watched *servers, int count)
{
    bool screen = isatty(STDOUT_FILENO) && !options->once;
    if (options->json) {
        show_json(servers, count);
    } else if (options->prometheus) {
        show_prometheus(stdout, servers, count);
    } else if (screen) {
        struct screen now = screen_look();
        /* What is wider than the terminal is cut off, not wrapped. */
        fputs("\033[?7l\033[H\033[J", stdout);
        show_screen(servers, count, &now);
        fputs("\033[?7h", stdout);
    } else if (options->once) {
        show_screen(servers, count, NULL);
    } else {
        show_lines(servers, count);
    }
    fflush(stdout);
}

/* Ends the rest: the terminal has another size. */
static void resized(int signal_number)
{
    (void)signal_number;
}

static void rest(double interval)
{
    struct timespec duration = {(time_t)interval,
                                (long)((interval - (double)(time_t)interval) * 1e9)};
    sigset_t none;
    sigemptyset(&none);
    ppoll(NULL, 0, &duration, &none);
}

/* Only a rest is interrupted by it, not an answer that is under way. */
static void heed_resizing(void)
{
    sigset_t resizing;
    sigemptyset(&resizing);
    sigaddset(&resizing, SIGWINCH);
    sigprocmask(SIG_BLOCK, &resizing, NULL);
    sigaction(SIGWINCH, &(struct sigaction){.sa_handler = resized}, NULL);
}

_Noreturn static void refuse(const char *what, const char *why)
{
    fprintf(stderr, "uffd-watch: %s%s%s\n", what, why ? ": " : "", why ? why : "");
    exit(2);
}

static void check_options(const struct options *options)
{
    if (options->json && options->prometheus)
        refuse("--json or --prometheus, not both", NULL);
    if (options->serve && (options->once || options->json || options->prometheus))
        refuse("--serve goes with none of --once, --json, --prometheus", NULL);
    if (options->login.user && !options->login.password)
        refuse("--user needs a password, in REDISCLI_AUTH or by --password", NULL);
}

static void take_server(struct watched *server, const char *name)
{
    server->name = name;
    const char *wrong = address_parse(&server->address, name);
    if (wrong)
        refuse(name, wrong);
}

static bool look(struct watched *servers, int count, const struct login *login)
{
    bool all_good = true;
    for (int i = 0; i < count; i++)
        all_good &= watched_look(&servers[i], login);
    return all_good;
}

_Noreturn static void serve(const struct options *options, struct watched *servers,
                            int count)
{
    const char *wrong;
    int listener = serve_listen(options->serve, &wrong);
    if (listener < 0)
        refuse(options->serve, wrong);
    for (;;) {
        double began = steady_seconds();
        look(servers, count, &options->login);
        /* A server that does not answer must not keep those who ask us from an answer. */
        double least = steady_seconds() + 0.1, next = began + options->interval;
        serve_until(listener, next > least ? next : least, servers, count);
    }
}

int main(int argc, char **argv)
{
    static struct watched servers[SERVERS_MAX];
    struct options options = {
        .interval = 1,
        .login = {.password = getenv("REDISCLI_AUTH"), .timeout_seconds = 3}};
    int option, count = 0;
    while ((option = getopt_long(argc, argv, "i:1jps:u:a:hV", long_options, NULL)) != -1)
        take_option(&options, option);
    check_options(&options);
    if (argc - optind > SERVERS_MAX)
        refuse("more than 64 servers", NULL);
    for (int i = optind; i < argc; i++)
        take_server(&servers[count++], argv[i]);
    if (!count)
        take_server(&servers[count++], "127.0.0.1:6379");
    signal(SIGPIPE, SIG_IGN);
    heed_resizing();
    setlocale(LC_CTYPE, "");
    if (options.serve)
        serve(&options, servers, count);
    for (;;) {
        bool all_good = look(servers, count, &options.login);
        show(&options, servers, count);
        if (options.once || ferror(stdout))
            return all_good ? 0 : 1;
        rest(options.interval);
    }
}
