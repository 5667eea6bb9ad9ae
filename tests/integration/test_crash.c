/* A fault in a thread of the module: what it reads wrongly costs the save, anything else
 * is the server's crash, with its whole report. And a crash of the server itself, with a
 * save under way or without: it is reported as if the module were not there. */
#include "fill.h"
#include "rdbfile.h"
#include "writers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEYS           200
#define REPORT_SECONDS 60
/* A heap whose report takes seconds, not minutes. */
#define CRASH_KEYS 400000
#define MORE_MB    32

static struct server *start_with(const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG "stop-writes-on-bgsave-error no\n", .fault = fault});
    fill(server->connection, FILL_ALL, KEYS, test_seed());
    return server;
}

static void switch_fault(struct server *server, const char *point, bool on)
{
    server_ok(server, "UFFD.FAULT %s %s", point, on ? "on" : "off");
}

static void check_saves_again(struct server *server)
{
    server_save(server);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
}

/* ---- what is read wrongly -------------------------------------------------------- */

static void check_error(struct server *server, const char *wanted)
{
    const char *error = server_info(server, "uffd_last_error");
    CHECK(strncmp(error, wanted, strlen(wanted)) == 0, "the reason is: %s", error);
}

/* The walk. It may be the data that is wrong: saves fork until told otherwise. */
static void read_fails(const char *point)
{
    struct server *server = start_with("");
    for (int times = 1; times <= 2; times++) {
        switch_fault(server, point, true);
        server_save_start(server);
        CHECK(!server_save_wait(server), "the save succeeded");
        check_error(server, "unexpected data in the server's memory, reading");
        CHECK(!server_temporary_file(server), "a temporary file was left");
        switch_fault(server, point, false);
        check_saves_again(server);
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == times, "not by fork");
        server_config_set(server, "uffd.enabled", "no");
        server_config_set(server, "uffd.enabled", "yes");
        check_saves_again(server);
        CHECK(server_info_number(server, "uffd_snapshots_ok") == times, "not by us");
    }
}

static void wild_read(void)
{
    read_fails("wild_read");
}

static void lost_page(void)
{
    read_fails("lost_page");
}

/* The fault server. The save has failed, the writer goes on. */
static void lost_when_preserved(void)
{
    struct server *server = start_with("held_saver,lost_preserving");
    for (int times = 1; times <= 2; times++) {
        server_save_start(server);
        server_ok(server, "SET written %d", times);
        switch_fault(server, "held_saver", false);
        CHECK(!server_save_wait(server), "the save succeeded");
        check_error(server, "a page of the server's memory cannot be read");
        switch_fault(server, "held_saver", true);
    }
    switch_fault(server, "held_saver", false);
    switch_fault(server, "lost_preserving", false);
    check_saves_again(server);
    CHECK(server_info_number(server, "uffd_snapshots_ok") == 1, "not by us");
}

/* ---- crashes --------------------------------------------------------------------- */

static const char *peak_line(pid_t pid)
{
    char line[256];
    FILE *status = fopen(format_text("/proc/%d/status", (int)pid), "r");
    const char *found = NULL;
    while (status && !found && fgets(line, sizeof line, status))
        if (strncmp(line, "VmHWM:", 6) == 0)
            found = format_text("%s", line + 6);
    if (status)
        fclose(status);
    return found;
}

/* The most memory it had, MB, as far as could be seen before it was gone. */
static long wait_for_end(struct server *server, int signal)
{
    long peak = 0;
    double end = patient_seconds() + REPORT_SECONDS;
    for (const char *line; (line = peak_line(server->pid)); sleep_msec(5)) {
        peak = atol(line) / 1024;
        CHECK(patient_seconds() < end, "the report does not end");
    }
    int code = server_wait_exit(server);
    CHECK(code == 128 + signal, "it has ended with %d", code);
    return peak;
}

/* ---- what the server's own report does ------------------------------------------- */

static void send_only(struct server *server, const char *command)
{
    redisContext *connection = server_connect(server);
    int done = 0;
    redisAppendCommand(connection, command);
    while (!done && redisBufferWrite(connection, &done) == REDIS_OK)
        ;
}

static int reports_of(struct server *server)
{
    return 1 + server_log_count(server, "Crashed running signal handler");
}

/* Since its 2.42 the C library has no mapping of their own for the guard pages of stacks:
 * the server's test of its memory runs into one and crashes, which makes a second, shorter
 * report. Whether it does so is asked of a server without the module. */
static bool crashes_by_itself(void)
{
    static int reports;
    if (!reports) {
        struct server *stock = server_start(
            &(struct server_options){.config = "save \"\"\n", .without_module = true});
        stock->may_crash = true;
        send_only(stock, "DEBUG SEGFAULT");
        wait_for_end(stock, SIGSEGV);
        reports = reports_of(stock);
    }
    return reports > 1;
}

static void needs_whole_test(void)
{
    if (crashes_by_itself())
        not_applicable("its test of the memory crashes by itself");
}

static int check_cause(struct server *server, const char *cause)
{
    int reports = reports_of(server);
    CHECK(reports == 1 || crashes_by_itself(), "the report has crashed");
    CHECK(server_log_count(server, cause) >= 1, "the report does not say: %s", cause);
    CHECK(reports > 1 || server_log_count(server, cause) == 1, "reported twice: %s",
          cause);
    return reports;
}

static void check_report(struct server *server, const char *cause)
{
    CHECK(check_cause(server, cause) > 1 ||
              server_log_count(server, "Fast memory test PASSED") == 1,
          "no memory test");
    CHECK(server_log_count(server, "BUG REPORT END") == 1, "the report is cut off");
    CHECK(server_log_count(server, "uffd_state:") == 1, "nothing of the module in it");
}

static void check_nothing_published(struct server *server)
{
    CHECK(access(server_path(server, "dump.rdb"), F_OK) != 0, "a dump was published");
}

/* A save is under way, pages are being preserved, and the server's crash comes to that. */
static void crash_amid_save(const char *command, int signal, const char *cause)
{
    if (signal == SIGABRT)
        needs_whole_test();
    struct server *server = start_with("held_saver");
    struct writers *writers = writers_start(server, 2, KEYS, test_seed());
    server_save_start(server);
    sleep_msec(50);
    writers_stop(writers);
    CHECK(server_info_number(server, "uffd_last_faults") > 0, "nothing was preserved");
    server->may_crash = true;
    send_only(server, command);
    wait_for_end(server, signal);
    check_report(server, cause);
    check_nothing_published(server);
}

static void segfault_amid_save(void)
{
    crash_amid_save("DEBUG SEGFAULT", SIGSEGV, "crashed by signal: 11");
}

/* Its report does not come by a signal. */
static void panic_amid_save(void)
{
    crash_amid_save("DEBUG PANIC", SIGABRT, "DEBUG PANIC called");
}

static void crash_of_ours(const char *point, bool saving)
{
    struct server *server = start_with("held_saver");
    if (saving)
        server_save_start(server);
    server->may_crash = true;
    send_only(server, format_text("UFFD.FAULT %s on", point));
    send_only(server, "SET written now");
    if (saving) /* it may be gone already */
        send_only(server, "UFFD.FAULT held_saver off");
    wait_for_end(server, SIGSEGV);
    check_report(server, "crashed by signal: 11");
    check_nothing_published(server);
}

static void crash_of_saver(void)
{
    crash_of_ours("wild_saver", true);
}

static void crash_of_fault_server(void)
{
    crash_of_ours("wild_server", true);
}

static void crash_of_upkeep(void)
{
    crash_of_ours("wild_upkeep", false);
}

/* A function is called without the lock that it demands: such a build ends the process,
 * and the last line says where. So this is also the proof that it is the one tested. */
static void demand_is_broken(void)
{
    needs_module();
    const char *checks = getenv("MODULE_HAS_CHECKS");
    if (!checks || !*checks)
        not_applicable("a module without checks");
    struct server *server = server_start(
        &(struct server_options){.config = "crash-log-enabled no\n", .fault = ""});
    server->may_crash = true;
    send_only(server, "UFFD.FAULT broken_demand on");
    wait_for_end(server, SIGABRT);
    CHECK(server_log_count(server, "heap_is_stale() demands "
                                   "contract_holds(&heap->locked), called on "
                                   "uffd-upkeep") == 1,
          "the line is not there");
}

/* ---- what a report costs --------------------------------------------------------- */

struct cost {
    long peak;
    double seconds;
};

/* The kernel looks at what the C library keeps for restartable sequences in memory that the
 * report writes to, and now and then ends the process before its time: 2 of 25 reports were
 * cut off without the module, which sees to it (snapshot/crash.h). */
static void have_no_sequences(void)
{
    setenv("GLIBC_TUNABLES", "glibc.pthread.rseq=0", 1);
}

static struct cost crash_idle(bool without_module)
{
    needs_whole_test();
    struct server *server = server_start(&(struct server_options){
        .config = "save \"\"\n", .without_module = without_module});
    server_ok(server, "DEBUG POPULATE %d key 100", CRASH_KEYS);
    server_save(server);
    sleep_msec(1500); /* what is done between saves */
    server->may_crash = true;
    double began = patient_seconds();
    send_only(server, "DEBUG SEGFAULT");
    struct cost cost = {.peak = wait_for_end(server, SIGSEGV)};
    cost.seconds = patient_seconds() - began;
    CHECK(server_log_count(server, "BUG REPORT END") == 1, "the report is cut off");
    return cost;
}

static void memory_of_report(void)
{
    needs_module();
    have_no_sequences();
    struct cost stock = crash_idle(true), ours = crash_idle(false);
    test_note("stock: %ld MB, %.1f s; with the module: %ld MB, %.1f s", stock.peak,
              stock.seconds, ours.peak, ours.seconds);
    CHECK(ours.peak <= stock.peak + MORE_MB, "%ld MB, without the module %ld", ours.peak,
          stock.peak);
    CHECK(ours.seconds <= 2 * stock.seconds + 5, "%.1f s, without the module %.1f",
          ours.seconds, stock.seconds);
}

/* ---- others' handlers ------------------------------------------------------------ */

static void load_handler(struct server *server)
{
    const char *directory = getenv("TEST_MODULES");
    server_ok(server, "MODULE LOAD %s/handler.so %s",
              directory ? directory : "build/tests/modules", server_path(server, "seen"));
}

static int lines_in(const char *path)
{
    char line[64];
    int lines = 0;
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        lines++;
    if (file)
        fclose(file);
    return lines;
}

static void read_wildly(struct server *server)
{
    switch_fault(server, "wild_read", true);
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    switch_fault(server, "wild_read", false);
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
}

/* The server installs its own anew, or none. */
static void handler_switched(void)
{
    have_no_sequences();
    struct server *server = start_with("");
    read_wildly(server);
    server_config_set(server, "crash-log-enabled", "no");
    read_wildly(server);
    server_config_set(server, "crash-log-enabled", "yes");
    read_wildly(server);
    server->may_crash = true;
    send_only(server, "DEBUG SEGFAULT");
    wait_for_end(server, SIGSEGV);
    check_report(server, "crashed by signal: 11");
}

static void no_report_wanted(void)
{
    struct server *server = start_with("held_saver");
    server_config_set(server, "crash-log-enabled", "no");
    server_save_start(server);
    server->may_crash = true;
    send_only(server, "DEBUG SEGFAULT");
    wait_for_end(server, SIGSEGV);
    CHECK(server_log_count(server, "BUG REPORT") == 0, "a report that nobody wants");
}

/* Another module's handler comes after ours; we go and come again, before and behind it. */
static void handler_between(bool gone_in_the_end)
{
    have_no_sequences();
    struct server *server = start_with("");
    load_handler(server);
    for (int times = 0; times < 2; times++) {
        read_wildly(server);
        CHECK(lines_in(server_path(server, "seen")) == 0, "the other one has seen it");
        server_ok(server, "MODULE UNLOAD uffd");
        if (times || !gone_in_the_end)
            server_ok(server, "MODULE LOAD %s", module_path());
        else
            break;
    }
    server->may_crash = true;
    send_only(server, "DEBUG SEGFAULT");
    wait_for_end(server, SIGSEGV);
    int reports = check_cause(server, "crashed by signal: 11");
    CHECK(server_log_count(server, "BUG REPORT END") == 1, "the report is cut off");
    CHECK(lines_in(server_path(server, "seen")) == reports,
          "the other one was called %d times", lines_in(server_path(server, "seen")));
}

static void other_handler(void)
{
    handler_between(false);
}

static void other_handler_stays(void)
{
    handler_between(true);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"wild_read", wild_read, 60},
        {"lost_page", lost_page, 60},
        {"lost_when_preserved", lost_when_preserved, 60},
        {"segfault_amid_save", segfault_amid_save, 120},
        {"panic_amid_save", panic_amid_save, 120},
        {"of_saver", crash_of_saver, 120},
        {"of_fault_server", crash_of_fault_server, 120},
        {"of_upkeep", crash_of_upkeep, 120},
        {"demand_is_broken", demand_is_broken, 60},
        {"memory_of_report", memory_of_report, 240},
        {"handler_switched", handler_switched, 120},
        {"no_report_wanted", no_report_wanted, 60},
        {"other_handler", other_handler, 120},
        {"other_handler_stays", other_handler_stays, 120},
        {0},
    };
    return test_run("crash", cases, argc, argv);
}
