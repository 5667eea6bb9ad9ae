/* Memory that the server gives away or first touches while it is frozen. */
#include "answers.h"
#include "fill.h"
#include "overwriter.h"
#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEGABYTE ((size_t)1 << 20)

static void check_snapshot(struct snapshot *snapshot)
{
    const char *wrong = snapshot_fault(snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    check_fork_free(snapshot->server, 1);
    server_stop(snapshot->server);
}

static void expect_status(struct server *server)
{
    redisReply *reply;
    CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK,
          "the server went away: %s", server->connection->errstr);
    CHECK(reply->type != REDIS_REPLY_ERROR, "%s", reply->str);
    freeReplyObject(reply);
}

/* ---- a table that has hardly been touched ---------------------------------------- */

/* Keys, or fields of one hash, to which more are added until their table has to grow.
 * Nobody may look for it: DEBUG HTSTATS and DIGEST, SAVE read all of a table, and
 * then it is there. The memory in use tells; and the expected digest is that of a
 * server to which the same was added. */
struct growth {
    void (*add)(struct server *server, int step);
    void (*flood)(struct server *server); /* sent in one go with BGSAVE */
    int flood_answers;
};

#define JUMP         (0.8 * 1024 * 1024)
#define STEPS_MAX    2000
#define STEP         500
#define BULK         131072
#define FLOOD_FIELDS 50000

static void add_fields(struct server *server, const char *name, int first, int count)
{
    for (int i = first; i < first + count; i++)
        redisAppendCommand(server->connection, "HSET hash %s%d %d", name, i, i);
}

static void expect_statuses(struct server *server, int count)
{
    for (int i = 0; i < count; i++)
        expect_status(server);
}

static void add_keys_step(struct server *server, int step)
{
    server_ok(server, "DEBUG POPULATE %d key-%d 8", step ? STEP : 2 * BULK, step);
}

static void flood_keys(struct server *server)
{
    redisAppendCommand(server->connection, "DEBUG POPULATE 200000 new 8");
}

static void add_fields_step(struct server *server, int step)
{
    int count = step ? STEP : BULK;
    add_fields(server, format_text("f%d-", step), 0, count);
    expect_statuses(server, count);
}

static void flood_fields(struct server *server)
{
    add_fields(server, "new", 0, FLOOD_FIELDS);
}

static const struct growth keys_grow = {add_keys_step, flood_keys, 1};
static const struct growth fields_grow = {add_fields_step, flood_fields, FLOOD_FIELDS};

/* Returns the number of steps. */
static int grow(struct server *server, const struct growth *growth)
{
    growth->add(server, 0);
    double before, now = server_info_number(server, "used_memory");
    int step = 1;
    do {
        CHECK(step < STEPS_MAX, "the table does not grow");
        before = now;
        growth->add(server, step++);
        now = server_info_number(server, "used_memory");
    } while (now - before < JUMP);
    return step;
}

static const char *digest_of_steps(const struct growth *growth, int steps)
{
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    for (int i = 0; i < steps; i++)
        growth->add(server, i);
    const char *digest = server_digest(server);
    server_stop(server);
    return digest;
}

/* The table is filled in the next command, which the server runs at once. Without huge
 * pages: few touches would be enough to have all of the table there. Returns what is
 * wrong with the dump, or NULL. */
static const char *fault_of_sparse(const struct growth *growth, const char *fault)
{
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .module_arguments = "huge-pages no", .fault = fault});
    int steps = grow(server, growth);
    redisAppendCommand(server->connection, "BGSAVE");
    growth->flood(server);
    expect_statuses(server, 1 + growth->flood_answers);
    if (!server_save_wait(server))
        return "the save failed";
    check_fork_free(server, 1);
    char *dump = server_path(server, "dump.rdb");
    const char *digest = dump_digest(dump, FILL_CONFIG);
    server_stop(server);
    if (!digest)
        return "a second server refuses the file";
    if (strcmp(digest, digest_of_steps(growth, steps)) != 0)
        return "another digest";
    check_dump(dump, true);
    return NULL;
}

static void sparse_table(void)
{
    const char *wrong = fault_of_sparse(&keys_grow, NULL);
    CHECK(!wrong, "%s", wrong);
}

static void sparse_hash_table(void)
{
    const char *wrong = fault_of_sparse(&fields_grow, NULL);
    CHECK(!wrong, "%s", wrong);
}

/* The test of the test, and of its tables: there are pages that nobody had touched. */
static void sparse_is_found(void)
{
    needs_module();
    const char *wrong = fault_of_sparse(&keys_grow, "no_unpopulated,no_audit");
    CHECK(wrong, "keys: nothing was found wrong when unpopulated memory is unprotected");
    test_note("keys: %s", wrong);
    wrong = fault_of_sparse(&fields_grow, "no_unpopulated,no_audit");
    CHECK(wrong,
          "fields: nothing was found wrong when unpopulated memory is unprotected");
    test_note("fields: %s", wrong);
}

/* ---- memory that goes away -------------------------------------------------------- */

/* What becomes of memory does not depend on the server: fewer where it is repeated. */
static int large_values(void)
{
    return test_is_repeated() ? 4 : 8;
}

/* A server whose save takes a few seconds, most of its data in values that have
 * mappings of their own. */
static struct server *start_with_large_values(uint64_t seed, const char *arguments,
                                              const char *fault)
{
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .module_arguments = arguments, .fault = fault});
    fill(server->connection, FILL_ALL, 100, seed);
    server_ok(server, "DEBUG POPULATE 20000 key 400");
    for (int i = 0; i < large_values(); i++)
        fill_large(server->connection, format_text("large:%d", i),
                   8 * MEGABYTE + (size_t)i * 300000, i % 2, seed + (uint64_t)i);
    server_config_set(server, "rdb-key-save-delay", "50");
    return server;
}

static void give_memory_back(struct server *server, uint64_t seed)
{
    for (int i = 0; i < large_values(); i++) {
        server_ok(server, "%s large:%d", i % 3 ? "DEL" : "UNLINK", i);
        server_ok(server, "MEMORY PURGE");
    }
    for (int i = 0; i < 20000; i += 2)
        redisAppendCommand(server->connection, "DEL key:%d", i);
    expect_statuses(server, 10000);
    server_ok(server, "MEMORY PURGE");
    for (int i = 0; i < 4; i++) {
        fill_large(server->connection, format_text("later:%d", i), 9 * MEGABYTE, i % 2,
                   seed + 50);
        server_ok(server, "DEL later:%d", i);
        server_ok(server, "MEMORY PURGE");
    }
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
}

/* With a spool, frees of large values are put off, all of them, and little is purged. */
#define NO_SPOOL "buffer-policy block buffer-limit 1gb"

static void purge_while_frozen(void)
{
    const char *const arguments[] = {NO_SPOOL, NULL};
    for (int i = 0; i < (test_is_repeated() ? 1 : 2); i++) {
        uint64_t seed = test_seed();
        struct server *server = start_with_large_values(seed, arguments[i], NULL);
        struct snapshot snapshot = snapshot_begin(server);
        give_memory_back(server, seed);
        check_snapshot(&snapshot);
    }
}

/* The test of the test: what is given back must be missed. */
static void purge_is_found(void)
{
    needs_module();
    uint64_t seed = test_seed();
    struct server *server =
        start_with_large_values(seed, NO_SPOOL, "skip_advice,no_audit");
    struct snapshot snapshot = snapshot_begin(server);
    give_memory_back(server, seed);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(wrong, "nothing was found wrong when memory is given back unguarded");
    test_note("found: %.120s", wrong);
}

static void flush_and_refill(void)
{
    uint64_t seed = test_seed();
    struct server *server = start_with_large_values(seed, NULL, NULL);
    struct snapshot snapshot = snapshot_begin(server);
    server_ok(server, "FLUSHDB SYNC");
    server_ok(server, "MEMORY PURGE");
    server_ok(server, "DEBUG POPULATE 50000 other 600");
    fill(server->connection, FILL_ALL, 100, seed + 9);
    server_ok(server, "FLUSHDB ASYNC");
    server_ok(server, "DEBUG POPULATE 50000 another 300");
    server_ok(server, "MEMORY PURGE");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
    check_snapshot(&snapshot);
}

/* The kernel writes what arrives for a client into pages that are protected:
 * half of a command is there before the snapshot begins. */
static void read_into_protected_buffer(void)
{
    uint64_t seed = test_seed();
    struct server *server = start_with_large_values(seed, NULL, NULL);
    redisContext *client = server_connect(server);
    size_t length = 6 * MEGABYTE, sent = 0;
    char *value = malloc(length), *command;
    random_bytes(&seed, value, length);
    int total = redisFormatCommand(&command, "SET half-sent %b", value, length);
    while (sent < (size_t)total / 2) {
        ssize_t written = write(client->fd, command + sent, (size_t)total / 2 - sent);
        CHECK(written > 0, "the server closed the connection");
        sent += (size_t)written;
    }
    sleep_msec(50);
    struct snapshot snapshot = snapshot_begin(server);
    while (sent < (size_t)total) {
        ssize_t written = write(client->fd, command + sent, (size_t)total - sent);
        CHECK(written > 0, "the server closed the connection");
        sent += (size_t)written;
    }
    redisReply *reply;
    CHECK(redisGetReply(client, (void **)&reply) == REDIS_OK &&
              reply->type == REDIS_REPLY_STATUS,
          "the command was not understood");
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
    reply = server_ok(server, "GET half-sent");
    CHECK((size_t)reply->len == length && memcmp(reply->str, value, length) == 0,
          "the value is not what was sent");
    check_snapshot(&snapshot);
}

/* Values that were stored during a save die after it; their memory is given back, and
 * is used again by the values of another save: it must count again in the next. */
static const char *fault_of_reused_memory(uint64_t seed, const char *fault)
{
    const int keys = 10000;
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = "save \"\"\n", .fault = fault});
    server_config_set(server, "rdb-key-save-delay", "10");
    json_fill(server->connection, keys, 500, seed);
    for (int i = 0; i < 6; i++) {
        struct overwriter *overwriter =
            overwriter_start(server, keys, 500, OVERWRITE_SET, seed);
        server_save_start(server);
        sleep_msec(400);
        overwriter_stop(overwriter, NULL); /* before the end: the values stay there */
        CHECK(server_save_wait(server), "the save failed");
        if (i == 5)
            break;
        json_fill(server->connection, keys, 500, seed);
        sleep_msec(1500); /* what is free is given back once a second */
    }
    /* Slow enough to be overtaken. */
    server_config_set(server, "rdb-key-save-delay", "100");
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter =
        overwriter_start(server, keys, 500, OVERWRITE_IN_PLACE, seed + 1);
    const char *wrong = snapshot_fault(&snapshot, "");
    overwriter_stop(overwriter, NULL);
    if (!wrong)
        check_fork_free(server, 7);
    return wrong;
}

static void reused_memory(void)
{
    const char *wrong = fault_of_reused_memory(test_seed(), "");
    CHECK(!wrong, "%s", wrong);
}

static void reuse_is_found(void)
{
    uint64_t seed = test_seed();
    const char *wrong = NULL;
    /* Memory is used again in time, or it is not: on a busy machine the save may be first. */
    for (int i = 0; i < 3 && !wrong; i++)
        wrong = fault_of_reused_memory(seed + (uint64_t)i, "stale_decommitted");
    CHECK(wrong, "nothing was found wrong when memory in use is not protected");
    test_note("found: %.120s", wrong);
}

/* ---- an allocator that unmaps ---------------------------------------------------- */

/* Pages whose write protection is left, of those that are mapped: bit 57 of what
 * /proc/PID/pagemap says. A write to one would wait for ever. */
static size_t protected_pages(struct server *server)
{
    FILE *maps = fopen(format_text("/proc/%d/maps", server->pid), "r");
    FILE *pagemap = fopen(format_text("/proc/%d/pagemap", server->pid), "r");
    char line[512], how[8], name[256];
    size_t found = 0;
    CHECK(maps && pagemap, "no maps or pagemap");
    while (fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        name[0] = '\0';
        sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, how, name);
        if (strcmp(how, "rw-p") != 0 || name[0] == '/')
            continue;
        CHECK(fseeko(pagemap, (off_t)(start / 4096 * 8), SEEK_SET) == 0, "pagemap");
        for (uint64_t entry; start < end; start += 4096) {
            CHECK(fread(&entry, sizeof entry, 1, pagemap) == 1, "pagemap is short");
            found += entry >> 57 & 1;
        }
    }
    fclose(maps);
    fclose(pagemap);
    return found;
}

/* Some frozen mappings go for good, and others come at their places. */
static void map_and_unmap(struct server *server, uint64_t seed)
{
    for (int i = 0; i < large_values(); i++) {
        server_ok(server, "%s large:%d", i % 3 ? "DEL" : "UNLINK", i);
        fill_large(server->connection, format_text("later:%d", i), 3 * MEGABYTE, i % 2,
                   seed + 50);
        if (i % 2)
            server_ok(server, "DEL later:%d", i);
    }
    CHECK(server_info_number(server, "rdb_bgsave_in_progress") == 1,
          "the save was over too soon for the case to show anything");
}

/* They are all of it, also when it has begun anew. */
static void check_steps_of_freeze(struct server *server)
{
    double all = server_info_number(server, "uffd_last_freeze_usec");
    double steps = server_info_number(server, "uffd_last_freeze_capture_usec") +
                   server_info_number(server, "uffd_last_freeze_prepare_usec") +
                   server_info_number(server, "uffd_last_freeze_steer_usec") +
                   server_info_number(server, "uffd_last_freeze_protect_usec");
    CHECK(steps <= all && steps > all * 0.75, "steps of %.0f us of a freeze of %.0f",
          steps, all);
}

static void check_unmapping_allocator(const char *fault)
{
    uint64_t seed = test_seed();
    setenv("MALLOC_CONF", "retain:false", 1);
    setenv("JE_MALLOC_CONF", "retain:false", 1);
    needs_module();
    struct server *server = start_with_large_values(seed, NO_SPOOL, fault);
    size_t resident = process_resident(server);
    for (int round = 0; round < 2; round++) {
        struct snapshot snapshot = snapshot_begin(server);
        map_and_unmap(server, seed + (uint64_t)round);
        const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
        CHECK(!wrong, "%s", wrong);
        check_steps_of_freeze(server);
        CHECK(protected_pages(server) == 0, "pages are still protected after the save");
        double preserved = server_info_number(server, "uffd_last_pages_preserved");
        CHECK(preserved < 1000, "not put off: %.0f pages were preserved", preserved);
        for (int i = 0; i < large_values(); i++)
            fill_large(server->connection, format_text("large:%d", i), 9 * MEGABYTE,
                       i % 2, seed + 90);
    }
    check_fork_free(server, 2);
    /* Each save had 36 or 72 MB unmapped under it. The last frees are of the ticks after it. */
    WAIT_UNTIL(process_resident(server) < resident + 60 * MEGABYTE, 10,
               "what was unmapped stays: %zu bytes, then %zu", resident,
               process_resident(server));
    server_stop(server);
}

static void unmapping_allocator(void)
{
    check_unmapping_allocator("");
}

/* The freeze that has to begin anew puts off what is unmapped like any other. */
static void unmapping_after_a_second_freeze(void)
{
    check_unmapping_allocator("replaced_mapping,slow_freeze");
}

/* What was registered lacks the server's databases: the memory map is read again. */
static void unlisted_databases(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "lost_regions"});
    fill(server->connection, FILL_ALL, 50, test_seed());
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    check_fork_free(server, 1);
    CHECK(server_log_count(server, "listed without the server's databases") > 0,
          "it is not said");
    server_stop(server);
}

/* ---- a machine that is slow to read parts of huge pages --------------------------------- */

static void change_keys_all_over(struct server *server)
{
    for (int i = 0; i < 20000; i++)
        redisAppendCommand(server->connection, "SETRANGE key:%d 20 changed", i * 10);
    expect_statuses(server, 20000);
}

/* Saved while writers change keys; how many huge pages were split. */
static double splits_of_save(struct server *server)
{
    server_ok(server, "UFFD.FAULT held_saver on");
    struct snapshot snapshot = snapshot_begin(server);
    change_keys_all_over(server);
    server_ok(server, "UFFD.FAULT held_saver off");
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    return server_info_number(server, "uffd_last_huge_pages_split");
}

/* The first save finds out. What is written to in the second is split; not before it has
 * been tried out on a huge page, and at load none was to be had. */
static void slow_reads(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .fault = "slow_reads,no_huge_page"});
    if (strstr(finding(server, "huge-pages"), "the kernel gives none"))
        skip("no huge pages here");
    fill(server->connection, FILL_ALL, 50, test_seed());
    server_ok(server, "DEBUG POPULATE 200000 key 100");
    server_save(server);
    CHECK(splits_of_save(server) == 0, "split, and nobody knows what becomes of marks");
    server_ok(server, "UFFD.FAULT no_huge_page off");
    int saves = 2;
    double splits = 0;
    for (; saves < 12 && splits == 0; saves++) { /* one may still not be to be had */
        sleep_msec(1500);
        splits = splits_of_save(server);
    }
    CHECK(splits > 0, "none was split");
    check_fork_free(server, saves);
    check_finding_says(server, "huge-pages", "OK ", "slow to read parts");
    server_stop(server);
}

/* ---- memory that comes without a word -------------------------------------------------- */

/* The allocator takes it by moving the break: no import of anybody shows it. Saved in the
 * same moment, so that nobody has looked at the memory map since. */
static const char *fault_of_growing_break(const char *fault, int rounds)
{
    setenv("MALLOC_CONF", "dss:primary", 1);
    setenv("JE_MALLOC_CONF", "dss:primary", 1);
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = format_text("save \"\"\n%s", FILL_CONFIG), .fault = fault});
    const char *wrong = NULL;
    for (int round = 0; round < rounds && !wrong; round++) {
        redisAppendCommand(server->connection, "DEBUG POPULATE 20000 round%d 300", round);
        redisAppendCommand(server->connection, "BGSAVE");
        expect_statuses(server, 2);
        if (!server_save_wait(server))
            wrong = server_info(server, "uffd_last_error");
    }
    if (!wrong)
        check_fork_free(server, rounds);
    server_stop(server);
    return wrong;
}

static void growing_break(void)
{
    const char *wrong = fault_of_growing_break("", 8);
    CHECK(!wrong, "%s", wrong);
}

/* The test of the test. */
static void growing_break_is_found(void)
{
    const char *wrong = fault_of_growing_break("trust_hooks", 8);
    CHECK(wrong,
          "memory that nobody has heard of was saved: it does not grow as it should");
    test_note("found: %s", wrong);
}

/* ---- memory that the kernel does not list ---------------------------------------------- */

/* What is new is not found, so it cannot be frozen: the server's own fork, that once. */
static void short_list(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .fault = ""});
    server_save(server);
    server_ok(server, "UFFD.FAULT short_list on");
    server_ok(server, "DEBUG POPULATE 200000 key 500");
    server_save(server);
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, "does not list the whole memory map"), "the reason is: %s",
          reason);
    server_ok(server, "UFFD.FAULT short_list off");
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    CHECK(server_info_number(server, "uffd_snapshots_ok") == 2, "not by us");
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "not by fork, once");
    server_stop(server);
}

/* ---- memory that nobody has touched yet ------------------------------------------------ */

/* The allocator asked for a tenth and more of the heap at once. It was protected with the
 * rest, page by page: 10 ms of a pause of 12 at 8 GB. */
static void growth_in_small_steps(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    server_ok(server, "DEBUG POPULATE 400000 key 1000");
    wait_until_saves_are_ours(server);
    server_save(server);
    double frozen = server_info_number(server, "uffd_last_frozen_bytes");
    double resident = (double)process_resident(server);
    test_note("%.0f MB frozen, %.0f resident", frozen / MEGABYTE, resident / MEGABYTE);
    CHECK(frozen < resident + 24 * (double)MEGABYTE,
          "%.0f MB were frozen, %.0f are resident", frozen / MEGABYTE,
          resident / MEGABYTE);
    server_stop(server);
}

/* ---- the allocator's own memory ---------------------------------------------------- */

/* It takes long enough for many looks at the statistics. */
static double faults_of_idle_save(struct server *server)
{
    server_ok(server, "UFFD.FAULT held_saver on");
    server_save_start(server);
    sleep_msec(400);
    server_ok(server, "UFFD.FAULT held_saver off");
    CHECK(server_save_wait(server), "the save failed");
    return server_info_number(server, "uffd_last_faults");
}

/* Each look at the allocator's statistics wrote to 150 pages of its own, 4 ms of faults in
 * every save: a fifth of a second's writes waited for it. Nothing is kept of what the first
 * look shows, and from then on it is not frozen. With hz 1 the server's own look seldom comes
 * before ours, which shows nothing then. */
static void statistics_are_not_frozen(void)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG "hz 1\ndynamic-hz no\n", .fault = ""});
    server_ok(server, "DEBUG POPULATE 300000 key 100");
    double faults[3], frozen[3];
    for (int i = 0; i < 3; i++) {
        faults[i] = faults_of_idle_save(server);
        frozen[i] = server_info_number(server, "uffd_last_frozen_bytes");
        test_note("%.0f faults, %.0f MB frozen", faults[i], frozen[i] / MEGABYTE);
        CHECK(faults[i] < 100, "%.0f faults while nobody writes", faults[i]);
    }
    /* What the pool's next arena begins with is less. */
    CHECK(frozen[2] < frozen[0], "known blocks are frozen still");
    check_fork_free(server, 3);
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    server_stop(server);
}

/* Keys that are taken for the allocator's own are not read as they are now: the save fails,
 * and the next is right. */
static void wrong_metadata(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "wrong_metadata"});
    server_ok(server, "DEBUG POPULATE 200000 key 100");
    server_ok(server, "UFFD.FAULT held_saver on");
    server_save_start(server);
    change_keys_all_over(server);
    server_ok(server, "UFFD.FAULT held_saver off");
    CHECK(!server_save_wait(server), "a save without the keys has succeeded");
    const char *error = server_info(server, "uffd_last_error");
    CHECK(strstr(error, "unexpected data in the server's memory"), "%s", error);
    server_ok(server, "UFFD.FAULT wrong_metadata off");
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
    double forks = server_info_number(server, "uffd_fork_fallbacks");
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == forks, "it was a fork");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"sparse_table", sparse_table, 60},
        {"sparse_hash_table", sparse_hash_table, 60},
        {"sparse_is_found", sparse_is_found, 60},
        {"purge_while_frozen", purge_while_frozen, 60},
        {"purge_is_found", purge_is_found, 60},
        {"flush_and_refill", flush_and_refill, 60},
        {"read_into_protected_buffer", read_into_protected_buffer, 60},
        {"reused_memory", reused_memory, 60},
        {"reuse_is_found", reuse_is_found, 150},
        {"unlisted_databases", unlisted_databases, 30},
        {"slow_reads", slow_reads, 60},
        {"unmapping_allocator", unmapping_allocator, 60},
        {"unmapping_after_a_second_freeze", unmapping_after_a_second_freeze, 60},
        {"short_list", short_list, 60},
        {"growth_in_small_steps", growth_in_small_steps, 60},
        {"statistics_are_not_frozen", statistics_are_not_frozen, 60},
        {"wrong_metadata", wrong_metadata, 60},
        {"growing_break", growing_break, 60},
        {"growing_break_is_found", growing_break_is_found, 60},
        {0},
    };
    return test_run("memory", cases, argc, argv);
}
