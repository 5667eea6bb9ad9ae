/* Something takes the write protection away while a save is under way: the save fails, the
 * dump from before stays, no replica takes the data, and saves fork from then on. Each
 * case holds the saver back until all is done to the frozen data that shall be; and each
 * is shown to end in a wrong dump when nobody looks. */
#include "answers.h"
#include "fill.h"
#include "replicas.h"
#include "snapshot.h"
#include "writers.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define VALUES      200
#define VALUE_BYTES 65000
#define FREEZES     8
#define KSM         "/sys/kernel/mm/ksm/"

/* ---- the kernel's merging --------------------------------------------------------- */

static long ksm_read(const char *name)
{
    long value = -1;
    FILE *file = fopen(format_text(KSM "%s", name), "r");
    if (file && fscanf(file, "%ld", &value) != 1)
        value = -1;
    if (file)
        fclose(file);
    return value;
}

static bool ksm_write(const char *name, long value)
{
    FILE *file = fopen(format_text(KSM "%s", name), "w");
    bool written = file && fprintf(file, "%ld\n", value) > 0;
    return file && fclose(file) == 0 && written;
}

static const char *const ksm_settings[] = {"run", "pages_to_scan", "sleep_millisecs"};
static long ksm_before[3];

/* 2 takes apart what has been merged. */
static void ksm_restore(void)
{
    ksm_write("run", 2);
    for (int i = 2; i >= 0; i--)
        ksm_write(ksm_settings[i], ksm_before[i]);
}

static void ksm_prepare(void)
{
    for (int i = 0; i < 3; i++)
        if ((ksm_before[i] = ksm_read(ksm_settings[i])) < 0)
            skip("this kernel merges no pages (" KSM "%s)", ksm_settings[i]);
    if (!ksm_write("sleep_millisecs", ksm_before[2]))
        skip("the settings of " KSM " cannot be written");
}

static long merged_pages(struct server *server)
{
    long pages = -1;
    FILE *file = fopen(format_text("/proc/%d/ksm_merging_pages", server->pid), "r");
    if (!file)
        skip("this kernel does not tell of merged pages");
    CHECK(fscanf(file, "%ld", &pages) == 1, "ksm_merging_pages");
    fclose(file);
    return pages;
}

/* Most of the values' pages are merged; then nothing is any more. The machine's settings
 * are others' too, and as they were before anything can fail. */
static void merge_pages(struct server *server)
{
    const long wanted = VALUES * (VALUE_BYTES / 4096) * 8 / 10;
    long merged = 0;
    ksm_write("pages_to_scan", 20000);
    ksm_write("sleep_millisecs", 2);
    ksm_write("run", 1);
    for (int i = 0; i < 300 && (merged = merged_pages(server)) < wanted; i++)
        sleep_msec(50);
    ksm_write("run", 0);
    ksm_write("pages_to_scan", ksm_before[1]);
    ksm_write("sleep_millisecs", ksm_before[2]);
    test_note("%ld pages merged", merged);
    CHECK(merged >= wanted, "only %ld pages were merged", merged);
}

/* ---- what is done to a server ------------------------------------------------------ */

struct meddling {
    const char *before; /* a command before the save; NULL: none */
    const char *during; /* … for a key, while it is frozen */
    bool merging;       /* the kernel merges pages while it is frozen */
    const char *fault;  /* a guard that is off */
};

static const struct meddling merge_by_process = {.before = "MEDDLER.MERGE",
                                                 .merging = true};
static const struct meddling merge_by_advice = {.before = "MEDDLER.MERGEABLE",
                                                .merging = true};
static const struct meddling lifted = {.during = "MEDDLER.UNPROTECT"};
static const struct meddling dropped = {.during = "MEDDLER.DROP"};
static const struct meddling mapped_anew = {.during = "MEDDLER.REMAP"};
static const struct meddling not_preserved = {.fault = "skip_preserve"};
static const struct meddling not_protected = {.fault = "skip_protect"};

static struct server *start_meddled(const struct meddling *meddling, const char *config,
                                    const char *faults)
{
    const char *directory = getenv("TEST_MODULES");
    if (!directory)
        skip("TEST_MODULES is not set");
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = format_text("save \"\"\n%s%s", FILL_CONFIG, config), .fault = faults});
    server_ok(server, "MODULE LOAD %s/meddler.so", directory);
    char *value = malloc(VALUE_BYTES + 1);
    memset(value, 'x', VALUE_BYTES);
    value[VALUE_BYTES] = '\0';
    for (int i = 0; i < VALUES; i++)
        server_ok(server, "SET key:%d %s", i, value);
    server_save(server);
    if (meddling->before)
        server_ok(server, meddling->before);
    return server;
}

/* Between the freeze and the first read of the saver. */
static void meddle(struct server *server, const struct meddling *meddling)
{
    if (meddling->merging)
        merge_pages(server);
    for (int i = 0; i < VALUES; i++) {
        if (meddling->during && i % 50 == 7)
            server_ok(server, "%s key:%d", meddling->during, i);
        server_ok(server, "SETRANGE key:%d 20000 changed:%d", i, i);
    }
}

static void begin_held_save(struct server *server, const struct meddling *meddling)
{
    server_ok(server, "UFFD.FAULT held_saver on");
    if (meddling->fault)
        server_ok(server, "UFFD.FAULT %s on", meddling->fault);
}

static void let_go(struct server *server, const struct meddling *meddling)
{
    server_ok(server, "UFFD.FAULT held_saver off");
    if (meddling->merging)
        ksm_restore();
}

static char *checksum_of(const char *path)
{
    char *output = format_text("%s/sum", test_directory());
    unlink(output);
    CHECK(run_program(output, (const char *const[]){"sha1sum", path, NULL}) == 0,
          "sha1sum %s", path);
    FILE *file = fopen(output, "r");
    char sum[64];
    CHECK(file && fscanf(file, "%63s", sum) == 1, "%s", output);
    fclose(file);
    return format_text("%s", sum);
}

static void check_forks_from_now_on(struct server *server,
                                    const struct meddling *meddling)
{
    double fallbacks = server_info_number(server, "uffd_fork_fallbacks");
    if (meddling->fault)
        server_ok(server, "UFFD.FAULT %s off", meddling->fault);
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == fallbacks + 1,
          "the next save did not fork");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "write protection"),
          "reason: %s", server_info(server, "uffd_last_fallback_reason"));
}

/* Why it failed is said. */
static void check_failure(struct server *server)
{
    CHECK(server_info_number(server, "uffd_last_pages_lost") > 0, "no page was lost");
    CHECK(strstr(server_info(server, "uffd_last_error"), "lost their write protection"),
          "uffd_last_error: %s", server_info(server, "uffd_last_error"));
    CHECK(server_log_count(server, "lost their write protection") >= 1, "no word of it");
    test_note("%s", server_info(server, "uffd_last_error"));
}

static void check_refused(const struct meddling *meddling, const char *faults)
{
    if (meddling->merging)
        ksm_prepare();
    struct server *server = start_meddled(meddling, "", faults);
    char *dump = server_path(server, "dump.rdb"), *before = checksum_of(dump);
    begin_held_save(server, meddling);
    server_save_start(server);
    meddle(server, meddling);
    let_go(server, meddling);
    CHECK(!server_save_wait(server), "the save succeeded");
    check_failure(server);
    CHECK(strcmp(checksum_of(dump), before) == 0, "the old dump has gone");
    CHECK(!server_temporary_file(server), "a temporary file is left");
    check_forks_from_now_on(server, meddling);
    server_stop(server);
}

/* The test of the test: with nobody looking, the same ends in a wrong dump. */
static void check_found(const struct meddling *meddling, const char *faults)
{
    if (meddling->merging)
        ksm_prepare();
    struct server *server = start_meddled(meddling, "", faults);
    struct snapshot snapshot = snapshot_prepare(server);
    begin_held_save(server, meddling);
    server_save_start(server);
    server_ok(server, "CLIENT UNPAUSE");
    meddle(server, meddling);
    let_go(server, meddling);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(wrong && !strstr(wrong, "failed"), "%s",
          wrong ? wrong : "nothing was found wrong with what nobody audits");
    test_note("found: %.120s", wrong);
    server_stop(server);
}

static void merged_by_process(void)
{
    check_refused(&merge_by_process, "trust_merging");
}

static void merged_by_advice(void)
{
    check_refused(&merge_by_advice, "trust_merging");
}

static void merging_is_found(void)
{
    check_found(&merge_by_process, "trust_merging,no_audit");
}

static void lifted_behind_us(void)
{
    check_refused(&lifted, "");
}

static void lifting_is_found(void)
{
    check_found(&lifted, "no_audit");
}

static void dropped_behind_us(void)
{
    check_refused(&dropped, "");
}

static void mapped_behind_us(void)
{
    check_refused(&mapped_anew, "");
}

static void told_by_entries(void)
{
    check_refused(&lifted, "no_pagemap_scan");
}

static void without_preserving(void)
{
    check_refused(&not_preserved, "");
}

static void without_protection(void)
{
    check_refused(&not_protected, "");
}

/* ---- merging is seen before -------------------------------------------------------- */

/* Somebody switches it on in a server that runs: what the kernel would merge is left to
 * fork, and said. */
static void check_seen(const struct meddling *meddling)
{
    struct server *server = start_meddled(meddling, "", "");
    server_save(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "no fork");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "same-page merging"),
          "reason: %s", server_info(server, "uffd_last_fallback_reason"));
    check_finding(server, "page-merging", "WARN ");
    server_stop(server);
}

static void merging_is_seen(void)
{
    if (access(KSM "run", F_OK) != 0)
        skip("this kernel merges no pages");
    check_seen(&merge_by_process);
    check_seen(&merge_by_advice);
}

/* As systemd starts it with MemoryKSM=yes. */
static void merging_is_lifted(void)
{
    needs_module();
    if (prctl(67, 1, 0, 0, 0) != 0)
        skip("this kernel merges no pages by process");
    struct server *server =
        server_start(&(struct server_options){.config = "save \"\"\n" FILL_CONFIG});
    prctl(67, 0, 0, 0, 0);
    server_ok(server, "SET key value");
    server_save(server);
    check_fork_free(server, 1);
    CHECK(server_log_count(server, "(KSM) was on for this process; switched off") == 1,
          "nothing was said");
    server_stop(server);
}

/* A kernel that is known to lose marks: found out at load by trying. */
static void kernel_loses_marks(void)
{
    needs_module();
    for (int loses = 0; loses < 2; loses++) {
        struct server *server = server_start(&(struct server_options){
            .config = "save \"\"\n", .fault = loses ? "marks_lost" : ""});
        bool told = server_log_count(server, "forgets the protection of zeros") != 0;
        if (!loses && told)
            skip("this kernel loses marks when it splits huge pages");
        CHECK(told == loses, loses ? "nothing was said" : "a false alarm");
        bool warned = strstr(finding(server, "kernel"), "forgets the protection");
        CHECK(warned == loses, "the doctor");
        server_save(server);
        check_fork_free(server, 1);
        server_stop(server);
    }
}

/* ---- what else is published -------------------------------------------------------- */

/* A replica that loads as it receives keeps what it has. */
static void check_replica(const char *config)
{
    struct server *master = start_meddled(&lifted, config, "");
    struct server *replica = server_start(&(struct server_options){
        .config = "repl-diskless-load swapdb\nsave \"\"\n" FILL_CONFIG,
        .without_module = true});
    server_ok(replica, "SET own value");
    begin_held_save(master, &lifted);
    replica_follow(replica, master);
    wait_for_info(master, "uffd_state", "saving", 20);
    meddle(master, &lifted);
    double failed = server_info_number(master, "uffd_snapshots_failed");
    let_go(master, &lifted);
    wait_for_info_above(master, "uffd_snapshots_failed", failed, 20);
    /* The next try is a fork's. */
    replica_wait_link(replica);
    check_same_data(master, replica);
    check_failure(master);
    CHECK(server_log_count(replica, "sync: Finished with success") == 1,
          "the replica took over what was refused");
    CHECK(server_info_number(master, "uffd_fork_fallbacks") >= 1, "no fork");
    CHECK(strstr(server_text(master, "GETRANGE key:7 20000 20008"), "changed:7"),
          "key:7");
    server_stop(replica);
    server_stop(master);
}

static void replica_is_spared(void)
{
    each_diskless_way(check_replica, DISKLESS_CONFIG);
}

static void rewrite_fails(void)
{
    struct server *server = start_meddled(&lifted, "appendonly yes\n", "");
    wait_until_no_child(server, 20);
    double failed = server_info_number(server, "uffd_snapshots_failed");
    begin_held_save(server, &lifted);
    server_ok(server, "BGREWRITEAOF");
    wait_for_info(server, "uffd_state", "saving", 20);
    meddle(server, &lifted);
    let_go(server, &lifted);
    wait_until_no_child(server, 20);
    CHECK(server_info_number(server, "uffd_snapshots_failed") == failed + 1,
          "the rewrite succeeded");
    check_failure(server);
    CHECK(strcmp(server_info(server, "aof_last_bgrewrite_status"), "err") == 0, "status");
    server_stop(server);
}

/* ---- while memory is given back ------------------------------------------------------ */

/* A thread of jemalloc's that has found nothing frozen loses its CPU before it tells the
 * kernel to drop the pages; meanwhile they are protected. */
static void dropped_amid_the_freeze(void)
{
    needs_module();
    setenv("MALLOC_CONF", "dirty_decay_ms:20,muzzy_decay_ms:0,background_thread:true", 1);
    struct server *server = server_start(&(struct server_options){
        .config = "save \"\"\n" FILL_CONFIG, .fault = "slow_guard"});
    pid_t garbage = garbage_start(server, VALUE_BYTES);
    for (int i = 0; i < FREEZES; i++) {
        sleep_msec(200);
        server_save_start(server);
        CHECK(server_save_wait(server), "save %d failed: %s", i + 1,
              server_info(server, "uffd_last_error"));
    }
    kill(garbage, SIGKILL);
    check_fork_free(server, FREEZES);
    server_stop(server);
}

/* ---- a save as ever ----------------------------------------------------------------- */

static void costs_little(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = "save \"\"\n" FILL_CONFIG});
    server_ok(server, "DEBUG POPULATE 200000 key 500");
    for (int i = 0; i < 3; i++) {
        server_save(server);
        test_note("audit: %.0f us of a save of %.0f ms, %.0f MB",
                  server_info_number(server, "uffd_last_audit_usec"),
                  server_info_number(server, "uffd_last_save_msec"),
                  server_info_number(server, "uffd_last_frozen_bytes") / 1048576);
    }
    CHECK(server_info_number(server, "uffd_last_pages_lost") == 0, "lost pages");
    CHECK(server_info_number(server, "uffd_last_audit_usec") > 0, "there was no audit");
    check_fork_free(server, 3);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"merged_by_process", merged_by_process, 60},
        {"merged_by_advice", merged_by_advice, 60},
        {"merging_is_found", merging_is_found, 60},
        {"lifted_behind_us", lifted_behind_us, 30},
        {"lifting_is_found", lifting_is_found, 30},
        {"dropped_behind_us", dropped_behind_us, 30},
        {"mapped_behind_us", mapped_behind_us, 30},
        {"told_by_entries", told_by_entries, 30},
        {"without_preserving", without_preserving, 30},
        {"without_protection", without_protection, 30},
        {"merging_is_seen", merging_is_seen, 30},
        {"merging_is_lifted", merging_is_lifted, 30},
        {"kernel_loses_marks", kernel_loses_marks, 30},
        {"replica_is_spared", replica_is_spared, 60},
        {"rewrite_fails", rewrite_fails, 60},
        {"dropped_amid_the_freeze", dropped_amid_the_freeze, 60},
        {"costs_little", costs_little, 60},
        {0},
    };
    return test_run("audit", cases, argc, argv);
}
