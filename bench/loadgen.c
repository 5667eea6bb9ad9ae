/* loadgen: load on a server at a fixed rate (or as much as it takes), with background saves meanwhile, and what the
 * clients saw of them. Results go to standard output as "name value" lines. `loadgen --help` lists the options. */
#include "common.h"
#include "control.h"
#include "generator.h"
#include "memory_sampler.h"
#include "recorder.h"
#include "workload.h"

#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static const char usage[] =
    "usage: loadgen --port PORT [options]\n"
    "  --pid PID              the server's process, to sample its memory\n"
    "  --rate N               open loop: commands per second, timed from when each was "
    "due\n"
    "  --tick USEC            commands become due on a grid of so many microseconds "
    "(500)\n"
    "  --pipeline N           closed loop: commands under way on every connection\n"
    "  --fill                 closed loop: SET key:0 to key:KEYS-1 once, and end\n"
    "  --connections N        (8)\n"
    "  --mix LIST             shares of set, get, incr, lpush, hset, setrange (set=100)\n"
    "  --keys N               keys named key:0 to key:N-1, as DEBUG POPULATE names them "
    "(8000000)\n"
    "  --value-size BYTES     (100)\n"
    "  --value KIND           text or json (text)\n"
    "  --distribution KIND    uniform or zipf, the latter with theta 0.99 (uniform)\n"
    "  --saves N              background saves (0), the first after\n"
    "  --before SECONDS       of load (3), the others\n"
    "  --gap SECONDS          after the end of the one before (1)\n"
    "  --duration SECONDS     of load after the last save, or without any (3)\n"
    "  --priority KIND        of this process: normal, nice or realtime (normal)\n"
    "  --pss SECONDS          take Pss once, so long after BGSAVE: stalls the server\n"
    "  --seed N               of keys and values (1)\n"
    "  --timeline FILE        CSV of 10 ms windows\n"
    "  --memory FILE          CSV of memory every 50 ms\n";

struct options {
    struct generator_options generator;
    struct workload_options workload;
    struct control_options control;
    pid_t server;
    uint64_t before;
    const char *priority, *timeline, *memory;
};

static uint64_t number(const char *text)
{
    char *end;
    unsigned long long value = strtoull(text, &end, 10);
    if (*text < '0' || *text > '9' || *end)
        die("not a number: %s", text);
    return value;
}

static uint64_t seconds(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= 0 && value < 1e6))
        die("not a time in seconds: %s", text);
    return (uint64_t)(value * (double)NSEC_PER_SEC);
}

static int one_of(const char *text, const char *first, const char *second)
{
    if (strcmp(text, first) != 0 && strcmp(text, second) != 0)
        die("%s: neither %s nor %s", text, first, second);
    return strcmp(text, second) == 0;
}

static const struct option long_options[] = {
    {"port", 1, 0, 'p'},
    {"pid", 1, 0, 'i'},
    {"rate", 1, 0, 'r'},
    {"pipeline", 1, 0, 'P'},
    {"fill", 0, 0, 'f'},
    {"connections", 1, 0, 'c'},
    {"mix", 1, 0, 'm'},
    {"keys", 1, 0, 'k'},
    {"value-size", 1, 0, 'v'},
    {"value", 1, 0, 'V'},
    {"saves", 1, 0, 's'},
    {"distribution", 1, 0, 'd'},
    {"before", 1, 0, 'b'},
    {"gap", 1, 0, 'g'},
    {"seed", 1, 0, 'S'},
    {"duration", 1, 0, 'D'},
    {"priority", 1, 0, 'n'},
    {"pss", 1, 0, 'a'},
    {"help", 0, 0, 'h'},
    {"timeline", 1, 0, 't'},
    {"tick", 1, 0, 'T'},
    {"memory", 1, 0, 'M'},
    {0, 0, 0, 0},
};

/* Each of these takes what it knows, and is false for what it does not. */
static bool take_generator_option(struct options *options, int letter)
{
    switch (letter) {
    case 'p':
        options->generator.port = options->control.port = (uint16_t)number(optarg);
        break;
    case 'r':
        options->generator.rate = number(optarg);
        break;
    case 'T':
        options->generator.tick = number(optarg) * NSEC_PER_USEC;
        break;
    case 'P':
        options->generator.pipeline = (unsigned)number(optarg);
        break;
    case 'f':
        options->generator.fill = 1;
        break;
    case 'c':
        options->generator.connections = (unsigned)number(optarg);
        break;
    case 'D':
        options->generator.duration = seconds(optarg);
        break;
    default:
        return false;
    }
    return true;
}

static bool take_workload_option(struct options *options, int letter)
{
    switch (letter) {
    case 'm':
        if (workload_parse_mix(optarg, options->workload.weight) < 0)
            die("not a mix: %s", optarg);
        break;
    case 'k':
        options->workload.keys = number(optarg);
        break;
    case 'v':
        options->workload.value_size = number(optarg);
        break;
    case 'V':
        options->workload.value_kind =
            one_of(optarg, "text", "json") ? VALUE_JSON : VALUE_TEXT;
        break;
    case 'd':
        options->workload.distribution =
            one_of(optarg, "uniform", "zipf") ? DISTRIBUTION_ZIPF : DISTRIBUTION_UNIFORM;
        break;
    case 'S':
        options->workload.seed = number(optarg);
        break;
    default:
        return false;
    }
    return true;
}

static bool take_control_option(struct options *options, int letter)
{
    switch (letter) {
    case 's':
        options->control.saves = (unsigned)number(optarg);
        break;
    case 'g':
        options->control.gap = seconds(optarg);
        break;
    case 'a':
        options->control.pss_after = seconds(optarg);
        break;
    default:
        return false;
    }
    return true;
}

static bool take_other_option(struct options *options, int letter)
{
    switch (letter) {
    case 'i':
        options->server = (pid_t)number(optarg);
        break;
    case 'b':
        options->before = seconds(optarg);
        break;
    case 'n':
        options->priority = optarg;
        break;
    case 't':
        options->timeline = optarg;
        break;
    case 'M':
        options->memory = optarg;
        break;
    case 'h':
        fputs(usage, stdout);
        exit(0);
    default:
        return false;
    }
    return true;
}

static void take_option(struct options *options, int letter)
{
    if (take_generator_option(options, letter) || take_workload_option(options, letter) ||
        take_control_option(options, letter) || take_other_option(options, letter))
        return;
    fputs(usage, stderr);
    exit(2);
}

static void take_options(struct options *options, int argc, char **argv)
{
    int letter;
    *options = (struct options){
        .generator = {.connections = 8,
                      .duration = 3 * NSEC_PER_SEC,
                      .tick = 500 * NSEC_PER_USEC},
        .workload = {.keys = 8000000,
                     .value_size = 100,
                     .weight = {[COMMAND_SET] = 100},
                     .seed = 1},
        .control = {.gap = NSEC_PER_SEC},
        .before = 3 * NSEC_PER_SEC,
        .priority = "normal",
    };
    while ((letter = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        take_option(options, letter);
    if (optind < argc)
        die("what is %s?", argv[optind]);
    if (!options->generator.port)
        die("--port is needed");
    if (!options->generator.tick)
        die("a tick of nothing");
    if (options->generator.connections < 1 || options->generator.connections > 1000)
        die("1 to 1000 connections");
    if (options->workload.keys < 1 || options->workload.value_size > 1 << 24)
        die("keys or value size out of range");
    if (options->control.saves > MAX_SAVES)
        die("at most %d saves", MAX_SAVES);
    if (options->generator.pipeline || options->generator.fill)
        options->priority = "normal"; /* it never sleeps */
    if (options->generator.fill) {
        options->generator.fill = options->workload.keys;
        if (!options->generator.pipeline)
            options->generator.pipeline = 64;
    }
}

/* A generator that has to queue for a CPU behind the server's saver would charge that to the server; a client on
 * another machine would not. Best effort: without the privilege it stays as it is, and the lateness tells. */
static void set_priority(const char *kind)
{
    prctl(PR_SET_TIMERSLACK, 1);
    if (strcmp(kind, "realtime") == 0) {
        struct sched_param parameter = {.sched_priority = 1};
        if (sched_setscheduler(0, SCHED_FIFO, &parameter) < 0)
            fputs("loadgen: no real-time priority\n", stderr);
    } else if (strcmp(kind, "nice") == 0) {
        if (setpriority(PRIO_PROCESS, 0, -15) < 0)
            fputs("loadgen: no raised priority\n", stderr);
    } else if (strcmp(kind, "normal") != 0) {
        die("no such priority: %s", kind);
    }
}

static double cpu_seconds(void)
{
    struct rusage usage_now;
    getrusage(RUSAGE_SELF, &usage_now);
    return (double)(usage_now.ru_utime.tv_sec + usage_now.ru_stime.tv_sec) +
           (double)(usage_now.ru_utime.tv_usec + usage_now.ru_stime.tv_usec) / 1e6;
}

static void report(const struct options *options, const struct recorder *recorder,
                   const struct control *control, const struct memory_sampler *sampler)
{
    uint64_t first = recorder->saves ? recorder->save_start[0] : recorder->origin;
    recorder_print(recorder, stdout);
    control_print(control, stdout);
    if (sampler)
        memory_sampler_print(
            sampler, first, recorder->saves ? control_done(control) : UINT64_MAX, stdout);
    int error = 0;
    if (options->timeline)
        error = recorder_write_timeline(recorder, options->timeline);
    if (!error && options->memory && sampler)
        error = memory_sampler_write(sampler, options->memory, first);
    if (error)
        die("cannot write a CSV file: %s", strerror(-error));
}

int main(int argc, char **argv)
{
    struct options options;
    take_options(&options, argc, argv);
    struct workload *workload = workload_create(&options.workload);
    struct recorder *recorder = recorder_create(0);
    if (!workload || !recorder)
        die("out of memory");
    struct memory_sampler *sampler =
        options.server ? memory_sampler_start(options.server) : NULL;
    set_priority(
        options.priority); /* after the sampler's thread, which keeps the ordinary one */
    options.control.first_save = clock_nsec() + options.before;
    struct control *control = control_create(&options.control, recorder, sampler);

    double cpu = cpu_seconds();
    generator_run(&options.generator, workload, recorder, control);
    double elapsed = (double)(clock_nsec() - recorder->origin) / (double)NSEC_PER_SEC;
    cpu = cpu_seconds() - cpu;
    if (sampler)
        memory_sampler_stop(sampler);

    report(&options, recorder, control, sampler);
    printf("elapsed_sec %.3f\n", elapsed);
    printf("replies_per_sec %.1f\n", (double)recorder_replies(recorder) / elapsed);
    printf("generator_cpu_percent %.1f\n", 100 * cpu / elapsed);
    if (sampler)
        memory_sampler_destroy(sampler);
    control_destroy(control);
    recorder_destroy(recorder);
    workload_destroy(workload);
    return fflush(stdout) == 0 ? 0 : 1;
}
