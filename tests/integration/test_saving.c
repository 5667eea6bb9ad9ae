/* Saves that nobody typed, and the settings that concern them. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEYS 5000
#define SLOW "200" /* microseconds a key: a second */

static struct server *start(const char *config)
{
    struct server *server = server_start(
        &(struct server_options){.config = format_text("%s%s", FILL_CONFIG, config)});
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS);
    return server;
}

/* ---- when ---- */

static void save_points(void)
{
    struct server *server = start("");
    server_config_set(server, "save", "1 1");
    for (int i = 1; i <= 3; i++) {
        server_ok(server, "SET changed %d", i);
        wait_for_info_above(server, "total_forks", i - 1, 10);
        wait_until_no_child(server, 10);
        const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
        CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the dump is wrong");
    }
    CHECK(server_info_number(server, "rdb_changes_since_last_save") == 0,
          "rdb_changes_since_last_save is %s",
          server_info(server, "rdb_changes_since_last_save"));
    CHECK(server_log_count(server, "1 changes in 1 seconds. Saving...") > 0,
          "not logged");
    check_fork_free(server, (int)server_info_number(server, "total_forks"));
    server_stop(server);
}

/* A directory that is gone: the file cannot be made. */
static void writes_stop_after_a_failure(void)
{
    struct server *server = start("stop-writes-on-bgsave-error yes\n");
    const char *gone = server_path(server, "gone");
    /* Not below `gone`: without its spool file a save is the server's own. */
    server_config_set(server, "uffd.spool-dir", server->directory);
    server_config_set(server, "save", "3600 100000");
    CHECK(mkdir(gone, 0755) == 0, "mkdir");
    server_config_set(server, "dir", gone);
    CHECK(rmdir(gone) == 0, "rmdir");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    const char *error = server_error(server, "SET x y");
    CHECK(strncmp(error, "MISCONF", 7) == 0, "%s", error);
    server_ok(server, "GET key:1");
    server_config_set(server, "dir", server->directory);
    server_save(server);
    server_ok(server, "SET x y");
    check_fork_free(server, 2);
    server_stop(server);
}

/* ---- settings ---- */

static void key_save_delay(void)
{
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", SLOW);
    double began = clock_seconds();
    server_save(server);
    double seconds = clock_seconds() - began;
    CHECK(seconds > 0.9, "a delay of %s us for %d keys took %g seconds", SLOW, KEYS,
          seconds);
    /* Negative: now and then a microsecond. */
    server_config_set(server, "rdb-key-save-delay", "-1000");
    began = patient_seconds();
    server_save(server);
    CHECK(patient_seconds() - began < 2, "it took %g seconds", patient_seconds() - began);
    server_stop(server);
}

static void incremental_fsync(void)
{
    static const char *const answers[] = {"yes", "no"};
    struct server *server = start("rdbcompression no\n");
    server_ok(server, "DEBUG POPULATE 30 large 1000000");
    for (int i = 0; i < 2; i++) {
        server_config_set(server, "rdb-save-incremental-fsync", answers[i]);
        server_save(server);
        char *saved = server_path(server, "background.rdb");
        copy_file(server_path(server, "dump.rdb"), saved);
        server_ok(server, "SAVE");
        const char *difference = rdb_difference(server_path(server, "dump.rdb"), saved);
        CHECK(!difference, "%s", difference);
    }
    server_stop(server);
}

/* The main thread has the name of whatever the server was started with. */
#define MAIN_THREAD ""

/* The CPU that the server's thread `name` may run on; -1: on several. */
static int only_cpu_of(struct server *server, const char *name)
{
    char command[256];
    snprintf(command, sizeof command,
             "for t in /proc/%d/task/%s; do grep -q '%s' $t/comm && "
             "taskset -pc ${t##*/}; done | sed 's/.*: //'",
             (int)server->pid, *name ? "*" : format_text("%d", (int)server->pid), name);
    FILE *output = popen(command, "r");
    char list[64] = "";
    CHECK(output && fgets(list, sizeof list, output), "no thread %s", name);
    pclose(output);
    return strpbrk(list, ",-") ? -1 : atoi(list);
}

static void start_save(struct server *server)
{
    server_save_start(server);
}

static void start_rewrite(struct server *server)
{
    server_ok(server, "BGREWRITEAOF");
}

/* The operator's choice goes before the module's own. `setting` as every server knows
 * it; it is for what `begin` starts, `other` is not. */
static void check_cpu_list(const char *setting, const char *other,
                           void (*begin)(struct server *server))
{
    needs_module();
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        skip("one CPU");
    for (int cpu = 0; cpu < 2; cpu++) {
        struct server *server =
            start(format_text("%s %d\n%s %d\n", setting, cpu, other, !cpu));
        server_config_set(server, "rdb-key-save-delay", SLOW);
        begin(server);
        sleep_msec(300);
        int found = only_cpu_of(server, "uffd-saver");
        CHECK(found == cpu, "%s %d: the saver runs on %d", setting, cpu, found);
        wait_until_no_child(server, 10);
        check_fork_free(server, 1);
        CHECK(only_cpu_of(server, "uffd-saver") == -1, "it stays there");
        server_stop(server);
    }
}

static void cpu_list(void)
{
    check_cpu_list("bgsave_cpulist", "aof_rewrite_cpulist", start_save);
}

static void cpu_list_of_rewrites(void)
{
    check_cpu_list("aof_rewrite_cpulist", "bgsave_cpulist", start_rewrite);
}

/* Nothing that was pinned or prioritised for a save outlives it: nor what began meanwhile
 * and inherited it. */
static void places_are_given_back(void)
{
    needs_module();
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        skip("one CPU");
    struct server *server = start("jemalloc-bg-thread no\n");
    server_config_set(server, "rdb-key-save-delay", SLOW);
    server_save_start(server);
    server_config_set(server, "jemalloc-bg-thread", "yes");
    sleep_msec(300);
    CHECK(only_cpu_of(server, "uffd-faults") >= 0, "the fault server roams");
    CHECK(only_cpu_of(server, "jemalloc_bg_thd") >= 0, "nothing was inherited");
    CHECK(server_save_wait(server), "the save failed");
    sleep_msec(100);
    static const char *const names[] = {MAIN_THREAD, "uffd-faults", "uffd-saver",
                                        "uffd-upkeep", "jemalloc_bg_thd"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        CHECK(only_cpu_of(server, names[i]) == -1, "thread \"%s\" stays on one CPU",
              names[i]);
    server_stop(server);
}

/* A process with a higher priority than the fault server's, on its CPU, for so long. */
static pid_t take_cpu(int cpu, double seconds)
{
    pid_t hog = fork();
    if (hog)
        return hog;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(cpu, &only);
    struct sched_param above = {.sched_priority = 10};
    if (sched_setaffinity(0, sizeof only, &only) != 0 ||
        sched_setscheduler(0, SCHED_FIFO, &above) != 0)
        _exit(1);
    for (double until = clock_seconds() + seconds; clock_seconds() < until;)
        ;
    _exit(0);
}

/* What no wait of a fault counts, since that begins when it is awake. */
static void starved_fault_server(void)
{
    needs_module();
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
        skip("one CPU");
    struct server *server = start("");
    server_config_set(server, "rdb-key-save-delay", "500");
    server_save_start(server);
    int cpu = only_cpu_of(server, "uffd-faults"), status = -1;
    CHECK(cpu >= 0, "the fault server roams");
    waitpid(take_cpu(cpu, 0.3), &status, 0);
    if (status)
        skip("no real-time priority");
    CHECK(server_save_wait(server), "the save failed");
    double waited = server_info_number(server, "uffd_last_fault_sched_wait_usec");
    CHECK(waited >= 10000 && waited < 60e6, "%.0f us without a CPU", waited);
    server_stop(server);
}

/* ---- the latency monitor ---- */

static void freeze_is_an_event(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){.fault = ""});
    /* A busy machine may make any freeze a long one, or what the server does around it, but
     * not each. */
    double freeze = 1e9;
    redisReply *events = NULL;
    for (int i = 0; i < 10 && (freeze >= 19000 || events->elements); i++) {
        server_config_set(server, "latency-monitor-threshold", "19");
        server_ok(server, "LATENCY RESET");
        server_save(server);
        freeze = server_info_number(server, "uffd_last_freeze_usec");
        events = server_ok(server, "LATENCY HISTORY fork");
    }
    CHECK(freeze < 19000, "ten freezes took 19 ms");
    CHECK(events->elements == 0, "a short freeze is an event");
    server_ok(server, "UFFD.FAULT slow_freeze on");
    server_save(server);
    freeze = server_info_number(server, "uffd_last_freeze_usec");
    events = server_ok(server, "LATENCY HISTORY fork");
    CHECK(events->elements == 1, "%zu events", events->elements);
    double msec = (double)events->element[0]->element[1]->integer;
    CHECK(msec >= 20 && msec >= freeze / 1000 - 1 && msec < freeze / 1000 + 100,
          "the freeze took %.0f us, the event says %.0f ms", freeze, msec);
    server_stop(server);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"save_points", save_points, 60},
        {"writes_stop_after_a_failure", writes_stop_after_a_failure, 30},
        {"key_save_delay", key_save_delay, 30},
        {"incremental_fsync", incremental_fsync, 30},
        {"cpu_list", cpu_list, 30},
        {"cpu_list_of_rewrites", cpu_list_of_rewrites, 30},
        {"places_are_given_back", places_are_given_back, 30},
        {"starved_fault_server", starved_fault_server, 60},
        {"freeze_is_an_event", freeze_is_an_event, 30},
        {0},
    };
    return test_run("saving", cases, argc, argv);
}
