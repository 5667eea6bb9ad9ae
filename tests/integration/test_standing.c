/* Protection that stands between saves: each save is exact whatever was written, dropped
 * and mapped since the last one, and the server never waits for long. */
#include "buffered.h"
#include "fill.h"
#include "writers.h"

#include <string.h>

#define COUNT       150
#define CONNECTIONS 3
#define WRITE_MSEC  150
#define LARGE_BYTES 5000000
#define SMALL_PAGES "standing-protection yes huge-pages no"
#define HUGE_PAGES  "standing-protection yes"
#define KEYS_IN_ALL 100000
/* Some thousand keys to a chunk. */
#define OVERWRITE_STEP 500
/* The watchdog gives the fault server four seconds. */
#define STUCK_LEAST 2.0
#define STUCK_MOST  15.0
#define STUCK_LINE  "standing protection lifted"

static struct server *start(uint64_t seed, const char *arguments, const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .module_arguments = arguments, .fault = fault});
    fill(server->connection, FILL_ALL, COUNT, seed);
    server_ok(server, "DEBUG POPULATE %d key 400", KEYS_IN_ALL);
    return server;
}

static void write_for(struct server *server, long msec, uint64_t seed)
{
    struct writers *writers = writers_start(server, CONNECTIONS, COUNT, seed);
    sleep_msec(msec);
    writers_stop(writers);
}

/* Memory goes back to the kernel and comes again: nothing there is protected any more. */
static void give_and_take(struct server *server, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        fill_large(server->connection, format_text("large:%d", i), LARGE_BYTES, i % 2,
                   seed + (uint64_t)i);
        server_ok(server, "%s large:%d", i % 2 ? "DEL" : "UNLINK", (i + 2) % 4);
        server_ok(server, "MEMORY PURGE");
    }
    server_ok(server, "DEBUG POPULATE 5000 more 1000");
}

static void check_stands(struct server *server, bool stands)
{
    wait_for_number(server, "protection_stands", stands, stands, 10);
}

/* A save while writers are at work. NULL, or what is wrong with it. */
static const char *fault_of_save(struct server *server, uint64_t seed)
{
    struct snapshot snapshot = snapshot_begin(server);
    write_for(server, WRITE_MSEC, seed);
    return snapshot_fault(&snapshot, FILL_CONFIG);
}

static const char *fault_of_rounds(struct server *server, int rounds, uint64_t seed)
{
    const char *wrong = fault_of_save(server, seed);
    for (int round = 1; round < rounds && !wrong; round++) {
        check_stands(server, true);
        write_for(server, round % 3 ? WRITE_MSEC : 5, seed + (uint64_t)round);
        if (round % 2)
            give_and_take(server, seed + (uint64_t)round);
        wrong = fault_of_save(server, seed + 1000 + (uint64_t)round);
    }
    test_note("%.0f writes have waited between saves", number(server, "standing_lifts"));
    return wrong;
}

static void check_rounds(const char *arguments)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, arguments, NULL);
    int rounds = test_is_soak() ? 100 : 3;
    const char *wrong = fault_of_rounds(server, rounds, seed);
    CHECK(!wrong, "%s", wrong);
    CHECK(number(server, "standing_lifts") > 0, "nothing has stood");
    CHECK(number(server, "saver_faults") == 0, "the module's own threads fault");
    check_fork_free(server, rounds);
    server_stop(server);
}

static void saves_are_exact(void)
{
    check_rounds(SMALL_PAGES);
}

static void exact_on_huge_pages(void)
{
    check_rounds(HUGE_PAGES);
}

/* The test of the test: what has been written to is not protected again. */
static void unprotected_is_found(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, "trust_standing,no_audit");
    const char *wrong = fault_of_rounds(server, 5, seed);
    CHECK(wrong, "nothing was found wrong with pages that nobody protected");
    test_note("found: %.120s", wrong);
    server_stop(server);
}

/* What the pause had to do, in two saves with nothing written between them. */
static void quiet_saves_protect_little(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, NULL);
    server_save(server);
    double first = number(server, "last_protected_bytes");
    check_stands(server, true);
    server_save(server);
    double second = number(server, "last_protected_bytes");
    test_note("protected: %.0f MB, then %.0f MB", first / MEGABYTE, second / MEGABYTE);
    CHECK(first > 40 * MEGABYTE, "the first save protected %.0f bytes", first);
    CHECK(second < first / 2, "the second save protected %.0f bytes", second);
    server_stop(server);
}

/* In place, in every part of the heap that has keys. */
static void overwrite(struct server *server, const char *text)
{
    for (int i = 0; i < KEYS_IN_ALL; i += OVERWRITE_STEP)
        server_ok(server, "SETRANGE key:%d 7 %s", i, text);
}

static void switched_off(void)
{
    uint64_t seed = test_seed();
    static const char *const settings[] = {"uffd.standing-protection", "uffd.enabled"};
    struct server *server = start(seed, SMALL_PAGES, NULL);
    for (int i = 0; i < 2; i++) {
        server_save(server);
        check_stands(server, true);
        server_config_set(server, settings[i], "no");
        check_stands(server, false);
        double lifts = number(server, "standing_lifts");
        overwrite(server, "off");
        CHECK(number(server, "standing_lifts") == lifts, "something still stood");
        server_save(server);
        check_stands(server, false);
        server_config_set(server, settings[i], "yes");
    }
    const char *wrong = fault_of_rounds(server, 2, seed);
    CHECK(!wrong, "%s", wrong);
    server_stop(server);
}

/* Whoever else wants the heap's protection: a measurement, a real fork, nobody. */
static void others_take_over(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, NULL);
    server_save(server);
    check_stands(server, true);
    server_ok(server, "UFFD.DIRTYRATE 1");
    CHECK(number(server, "protection_stands") == 0, "it stands after a measurement");
    const char *wrong = fault_of_rounds(server, 2, seed);
    CHECK(!wrong, "after a measurement: %s", wrong);

    check_stands(server, true);
    server_config_set(server, "uffd.enabled", "no");
    wrong = fault_of_save(server, seed + 1);
    CHECK(!wrong, "by fork: %s", wrong);
    server_config_set(server, "uffd.enabled", "yes");
    server_save(server);

    check_stands(server, true);
    server_ok(server, "MODULE UNLOAD uffd");
    overwrite(server, "over");
    server_ok(server, "MODULE LOAD %s " SMALL_PAGES, module_path());
    wrong = fault_of_rounds(server, 2, seed);
    CHECK(!wrong, "loaded anew: %s", wrong);
    server_stop(server);
}

/* A save that comes to nothing leaves memory that can be written to. */
static void after_a_failure(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, "");
    server_save(server);
    check_stands(server, true);
    server_ok(server, "UFFD.FAULT protect_fails on");
    server_save(server);
    CHECK(number(server, "fork_fallbacks") == 1, "protect_fails has not failed");
    server_ok(server, "UFFD.FAULT protect_fails off");
    overwrite(server, "over");

    server_ok(server, "UFFD.FAULT output_write on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "output_write has not failed");
    server_ok(server, "UFFD.FAULT output_write off");
    overwrite(server, "again");
    const char *wrong = fault_of_rounds(server, 2, seed);
    CHECK(!wrong, "%s", wrong);
    server_stop(server);
}

static void stuck_between_saves(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, "");
    server_save(server);
    check_stands(server, true);
    server_ok(server, "UFFD.FAULT stuck_server on");
    double began = clock_seconds(), patience = patient_seconds();
    overwrite(server, "stuck");
    double seconds = clock_seconds() - began;
    patience = patient_seconds() - patience;
    test_note("the server answered after %.1f s", seconds);
    CHECK(seconds > STUCK_LEAST, "nobody has waited: the case shows nothing");
    CHECK(patience < STUCK_MOST, "the server stood still");
    /* The server's next tick logs it. */
    WAIT_UNTIL(server_log_lines(server, STUCK_LINE) == 1, 5, "the log does not say why");
    server_ok(server, "UFFD.FAULT stuck_server off");
    overwrite(server, "over");
    const char *wrong = fault_of_rounds(server, 3, seed);
    CHECK(!wrong, "%s", wrong);
    server_stop(server);
}

/* A freeze that finds the fault server stuck: by fork; or, when the main thread has met a
 * page that stands before that, as soon as the watchdog has lifted it all; or, when the
 * server had taken over by then, the save fails and costs nothing else. Nothing was written
 * since the save before, so the dump is right in each case. */
static void stuck_at_the_freeze(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(seed, SMALL_PAGES, "");
    server_save(server);
    check_stands(server, true);
    const char *digest = server_digest(server);
    server_ok(server, "UFFD.FAULT stuck_server on");
    double began = clock_seconds(), patience = patient_seconds();
    server_save_start(server);
    bool saved_it = server_save_wait(server);
    double seconds = clock_seconds() - began;
    patience = patient_seconds() - patience;
    test_note("%s after %.1f s", saved_it ? "saved" : "failed", seconds);
    CHECK(patience < STUCK_MOST, "the server stood still");
    CHECK(number(server, "fork_fallbacks") == 1 || seconds > STUCK_LEAST,
          "nothing was stuck: the case shows nothing");
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
    overwrite(server, "stuck");
    server_ok(server, "UFFD.FAULT stuck_server off");
    wait_until_saves_are_ours(server);
    const char *wrong = fault_of_rounds(server, 2, seed);
    CHECK(!wrong, "%s", wrong);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"saves_are_exact", saves_are_exact, 120},
        {"exact_on_huge_pages", exact_on_huge_pages, 120},
        {"unprotected_is_found", unprotected_is_found, 120},
        {"quiet_saves_protect_little", quiet_saves_protect_little, 60},
        {"switched_off", switched_off, 60},
        {"others_take_over", others_take_over, 90},
        {"after_a_failure", after_a_failure, 60},
        {"stuck_between_saves", stuck_between_saves, 60},
        {"stuck_at_the_freeze", stuck_at_the_freeze, 60},
        {0},
    };
    return test_run("standing", cases, argc, argv);
}
