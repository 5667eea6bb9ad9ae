/* What a save takes of memory, measured from outside, and what it does to the server's
 * allocator. The buffer's own limit: test_limit.c. */
#include "buffered.h"
#include "fill.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory, measured from outside ----------------------------------------------- */

static struct server *start_large(uint64_t seed, int keys, const char *arguments,
                                  const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .module_arguments = arguments, .fault = fault});
    json_fill(server->connection, keys, BYTES, seed);
    return server;
}

/* The most that it was above what it may be without a buffer. */
static double most_while_overwriting(struct server *server, int keys, uint64_t seed)
{
    server_config_set(server, "rdb-key-save-delay", "5");
    sleep_msec(1500); /* chores of the module: memory made ready */
    double before = (double)process_resident(server);
    double dataset = server_info_number(server, "used_memory");
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter =
        overwriter_start(server, keys, BYTES, OVERWRITE_SET, seed + 1);
    double most = most_resident_above(server, before, dataset);
    note_result(server, overwriter_stop(overwriter, NULL));
    test_note(
        "resident %.0f MB before, dataset %.0f MB, at most %.1f MB more while saving",
        before / MEGABYTE, dataset / MEGABYTE, most / MEGABYTE);
    check_exact(&snapshot);
    check_fork_free(server, 1);
    return most;
}

#define MOST_RESIDENT ((16 + 64) * MEGABYTE)

static void resident_memory_within_limit(void)
{
    uint64_t seed = test_seed();
    const int keys = 90000;
    struct server *server = start_large(seed, keys, "buffer-limit 16mb", NULL);
    CHECK(most_while_overwriting(server, keys, seed) < MOST_RESIDENT,
          "more than the limit and 64 MB");
    server_stop(server);
}

/* The test of the test: a buffer that grows without end is seen from outside. */
static void resident_excess_is_found(void)
{
    uint64_t seed = test_seed();
    const int keys = 90000;
    struct server *server =
        start_large(seed, keys, "buffer-limit 16mb compression no", "ignore_limit");
    CHECK(most_while_overwriting(server, keys, seed) > MOST_RESIDENT,
          "nothing was found wrong without the limit");
    server_stop(server);
}

/* Without the memory that the module keeps ready for the next save, and says so. */
static double resident_after_purge(struct server *server)
{
    wait_for_number(server, "deferred_free_bytes", 0, 0, 10);
    server_ok(server, "MEMORY PURGE");
    sleep_msec(100);
    double ready = number(server, "ready_bytes");
    CHECK(ready <= 16 * MEGABYTE, "%.1f MB kept ready", ready / MEGABYTE);
    return (double)process_resident(server) - ready;
}

/* All values go and are stored again: of what earlier saves cost nothing is left. */
static double resident_with_values_anew(struct server *server, int keys, uint64_t seed)
{
    server_ok(server, "FLUSHALL");
    json_fill(server->connection, keys, BYTES, seed);
    /* The upkeep thread gives back once a second. */
    sleep_msec(2000);
    return resident_after_purge(server);
}

/* Also: the memory map does not grow with the faults, nor with the saves. */
static void save_again_and_again(const char *arguments, double most_left)
{
    uint64_t seed = test_seed();
    const int keys = 40000;
    const int saves = test_is_soak() ? 10 : 4, half = saves / 2;
    double resident[11] = {0}, dataset[11] = {0};
    int mappings[11] = {0}, most_mappings = 0;
    double faults = 0;
    struct server *server = start_large(seed, keys, arguments, NULL);
    struct overwriter *overwriter;
    server_config_set(server, "rdb-key-save-delay", "5");
    server_save(server); /* what a first save makes ready stays */
    resident[0] = resident_after_purge(server);
    dataset[0] = server_info_number(server, "used_memory");
    mappings[0] = process_mappings(server);
    for (int i = 1; i <= saves; i++) {
        server_save_start(server);
        overwriter = overwriter_start(server, keys, BYTES, OVERWRITE_SET, seed + 1);
        while (saving(server)) {
            int now = process_mappings(server);
            most_mappings = now > most_mappings ? now : most_mappings;
            sleep_msec(50);
        }
        overwriter_stop(overwriter, NULL);
        faults += number(server, "last_faults");
        resident[i] = resident_after_purge(server);
        dataset[i] = server_info_number(server, "used_memory");
        mappings[i] = process_mappings(server);
        test_note("save %2d: resident %.1f MB, dataset %.1f MB, %d mappings, %.0f faults",
                  i, resident[i] / MEGABYTE, dataset[i] / MEGABYTE, mappings[i],
                  number(server, "last_faults"));
    }
    check_fork_free(server, saves + 1);
    CHECK(faults > 2000 * saves, "%.0f faults only", faults);
    double growth = resident[saves] - resident[0] - (dataset[saves] - dataset[0]);
    double left = resident_with_values_anew(server, keys, seed) - resident[0];
    double later = resident_with_values_anew(server, keys, seed) - resident[0];
    test_note("growth %.1f MB, %.1f MB with all values stored again, %.1f MB then; "
              "mappings %d to %d, at most %d",
              growth / MEGABYTE, left / MEGABYTE, later / MEGABYTE, mappings[0],
              mappings[saves], most_mappings);
    CHECK(growth < 56 * MEGABYTE, "memory grew");
    CHECK(left < most_left, "memory is lost");
    CHECK(later < left + 12 * MEGABYTE, "more and more memory is lost");
    CHECK(most_mappings < mappings[0] + 200, "mappings grow with faults");
    CHECK(mappings[saves] < mappings[half] + 20, "mappings grow with saves");
    server_stop(server);
}

static void ten_saves_leave_nothing(void)
{
    save_again_and_again("buffer-limit 16mb", 12 * MEGABYTE);
}

static void ten_saves_on_small_pages(void)
{
    save_again_and_again("buffer-limit 16mb huge-pages no", 12 * MEGABYTE);
}

static void overwrite_in_place(struct server *server, int keys, int bytes, uint64_t *seed)
{
    for (int i = 0; i < 200; i++)
        server_ok(server, "SETRANGE large:%d %d overwritten",
                  (int)(random_next(seed) % (uint64_t)keys),
                  (int)(random_next(seed) % (uint64_t)(bytes - 20)));
}

/* Resident memory once some saves have been written to and are over, and what the module does
 * after them has been done: it has `most` at the end, or will not have. Bytes. */
static double resident_after_saves(bool with_module, int bytes, int saves, double most,
                                   uint64_t seed)
{
    const int keys = 300 * 1000 * 1000 / bytes;
    struct server *server = server_start(&(struct server_options){
        .config = "rdbcompression no\n", .without_module = !with_module});
    for (int i = 0; i < keys; i++)
        fill_large(server->connection, format_text("large:%d", i), (size_t)bytes, false,
                   seed + (uint64_t)i);
    sleep_msec(1500);
    for (int i = 0; i < saves; i++) {
        server_save_start(server);
        while (saving(server))
            overwrite_in_place(server, keys, bytes, &seed);
        sleep_msec(1500); /* chores of the module: memory is made ready */
    }
    double resident = (double)process_resident(server), until = patient_seconds() + 20;
    for (; resident > most && patient_seconds() < until; sleep_msec(500))
        resident = (double)process_resident(server);
    server_stop(server);
    return resident;
}

/* Values of 100 KB leave three of 28 pages of the allocator's block untouched: nothing in
 * small pages, memory in huge ones. */
static void resident_like_stock(void)
{
    uint64_t seed = test_seed();
    const int sizes[] = {100000, 24000, 2000};
    needs_module();
    for (int i = 0; i < (test_is_soak() ? 3 : 1); i++) {
        double stock = resident_after_saves(false, sizes[i], 1, INFINITY, seed);
        double most = stock * 1.1 + 8 * MEGABYTE;
        double ours =
            resident_after_saves(true, sizes[i], test_is_soak() ? 10 : 3, most, seed);
        test_note("values of %d bytes: %.1f MB, %.1f MB without the module", sizes[i],
                  ours / MEGABYTE, stock / MEGABYTE);
        CHECK(ours <= most, "more than 1.1 of stock's");
    }
}

/* ---- the server's allocator ------------------------------------------------------ */

/* Frees of the main thread are put off while frozen, within a bound, and made up
 * for afterwards. */
static void deferred_frees_are_bounded(void)
{
    uint64_t seed = test_seed();
    const int keys = 60000;
    struct server *server = start_large(seed, keys, "buffer-limit 16mb", NULL);
    server_config_set(server, "rdb-key-save-delay", "20");
    struct snapshot snapshot = snapshot_begin(server);
    double most = 0;
    for (int i = 0; i < keys; i += 1000) {
        for (int j = i; j < i + 1000; j++)
            redisAppendCommand(server->connection, "DEL json:%d", j);
        take_replies(server->connection, 1000);
        double held = number(server, "deferred_free_bytes");
        most = held > most ? held : most;
    }
    CHECK(saving(server), "the save was over too soon for the case to show anything");
    test_note("at most %.3f MB held", most / MEGABYTE);
    CHECK(most > 1 * MEGABYTE, "no free was put off");
    /* Beyond 32 MB only what can be evicted: a client's buffer, say. */
    CHECK(most <= 33 * MEGABYTE, "too many frees were put off");
    check_exact(&snapshot);
    wait_for_number(server, "deferred_free_bytes", 0, 0, 10);
    double dataset = server_info_number(server, "used_memory");
    server_ok(server, "MEMORY PURGE");
    double allocated = server_info_number(server, "allocator_allocated");
    CHECK(allocated < dataset + 64 * MEGABYTE, "%.1f MB allocated for %.1f MB of data",
          allocated / MEGABYTE, dataset / MEGABYTE);
    check_fork_free(server, 1);
    server_stop(server);
}

/* Nothing decays later than at once, everything is purged at any moment, and
 * mappings come and go. */
static void purging_allocator(void)
{
    uint64_t seed = test_seed();
    setenv("MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0", 1);
    setenv("JE_MALLOC_CONF", "dirty_decay_ms:0,muzzy_decay_ms:0", 1);
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT});
    for (int round = 0; round < (test_is_soak() ? 50 : 2); round++) {
        struct snapshot snapshot = snapshot_begin(server);
        struct overwriter *overwriter =
            overwriter_start(server, KEYS, BYTES, OVERWRITE_SET, seed + 1);
        int purges = 0;
        for (; saving(server); purges++) {
            size_t bytes = (1 + random_next(&seed) % 12) << 20;
            fill_large(server->connection, format_text("large:%d", purges % 4), bytes,
                       purges % 2, seed);
            server_ok(server, "%s large:%d", purges % 2 ? "DEL" : "UNLINK",
                      (purges + 2) % 4);
            server_ok(server, "MEMORY PURGE");
        }
        overwriter_stop(overwriter, NULL);
        check_exact(&snapshot);
        test_note("%d purges, %.0f refused", purges, number(server, "advices_refused"));
        CHECK(purges > 3, "the save was over too soon for the case to show anything");
    }
    server_stop(server);
}

static double memory_stat(struct server *server, const char *name)
{
    redisReply *reply = server_ok(server, "MEMORY STATS");
    for (size_t i = 0; i + 1 < reply->elements; i += 2)
        if (strcmp(reply->element[i]->str, name) == 0)
            return reply->element[i + 1]->type == REDIS_REPLY_INTEGER
                       ? (double)reply->element[i + 1]->integer
                       : atof(reply->element[i + 1]->str);
    fail("MEMORY STATS has no %s", name);
}

static void check_doctor(struct server *server, const char *complaint)
{
    const char *doctor = server_text(server, "MEMORY DOCTOR");
    CHECK(!strstr(doctor, complaint), "MEMORY DOCTOR says: %s", doctor);
}

/* What the server counts is what it has, also right after a save. */
static void memory_accounting(void)
{
    uint64_t seed = test_seed();
    const int keys = 50000;
    struct server *server = start_large(seed, keys, "buffer-limit 32mb", NULL);
    server_config_set(server, "rdb-key-save-delay", "5");
    server_save(server);
    double used = server_info_number(server, "used_memory");
    for (int i = 0; i < 2; i++) {
        server_save_start(server);
        struct overwriter *overwriter =
            overwriter_start(server, keys, BYTES, OVERWRITE_SET, seed + 1);
        while (saving(server))
            sleep_msec(10);
        overwriter_stop(overwriter, NULL);
        double now = server_info_number(server, "used_memory");
        CHECK(now > used * 0.97 && now < used * 1.03,
              "used_memory was %.0f, is %.0f right after a save", used, now);
        double total = memory_stat(server, "total.allocated");
        double allocated = memory_stat(server, "allocator.allocated");
        double active = memory_stat(server, "allocator.active");
        CHECK(total > used * 0.97 && total < used * 1.03, "total.allocated is %.0f",
              total);
        CHECK(allocated > total * 0.9 && allocated < total + 64 * MEGABYTE,
              "allocator.allocated is %.0f for %.0f", allocated, total);
        CHECK(active >= allocated, "allocator.active is %.0f", active);
        test_note("used %.1f MB, allocated %.1f MB, active %.1f MB", now / MEGABYTE,
                  allocated / MEGABYTE, active / MEGABYTE);
        check_doctor(server, "Peak memory");
    }
    resident_after_purge(server);
    double total = memory_stat(server, "total.allocated");
    double allocated = memory_stat(server, "allocator.allocated");
    CHECK(allocated < total + 8 * MEGABYTE, "%.1f MB allocated, of which %.1f MB is used",
          allocated / MEGABYTE, total / MEGABYTE);
    server_stop(server);
}

static void another_allocator(void)
{
    uint64_t seed = test_seed();
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "no_jemalloc"});
    fill(server->connection, FILL_ALL, 20, seed);
    server_save(server);
    CHECK(number(server, "fork_fallbacks") == 1 && number(server, "supported") == 0,
          "the save did not fall back");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "jemalloc"),
          "the reason is '%s'", server_info(server, "uffd_last_fallback_reason"));
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
    server_stop(server);
}

/* ---- a child of the server's own fork --------------------------------------------- */

#define FORKED_KEYS 100000

/* All that it shares would be copied where huge pages that writes have split are put
 * together again: 2 MB for each page. */
static void forked_child_keeps_sharing(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG, .fault = ""});
    server_ok(server, "DEBUG POPULATE %d key 1000", FORKED_KEYS);
    WAIT_UNTIL(process_huge(server) > 80 * MEGABYTE, 20, "it is not on huge pages");
    server_ok(server, "UFFD.FAULT spool_open on");
    server_config_set(server, "rdb-key-save-delay", "-2"); /* after each second key */
    server_save_start(server);
    for (int i = 0; i < FORKED_KEYS; i += 100)
        server_ok(server, "SETRANGE key:%d 0 x", i);
    CHECK(server_save_wait(server), "the save has failed");
    double copied = server_info_number(server, "rdb_last_cow_size");
    test_note("%.1f MB copied", copied / MEGABYTE);
    CHECK(number(server, "fork_fallbacks") == 1, "no fork");
    CHECK(copied < 40 * MEGABYTE, "more was copied than what was written to");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"resident_excess_is_found", resident_excess_is_found, 60},
        {"resident_memory_within_limit", resident_memory_within_limit, 120},
        {"ten_saves_leave_nothing", ten_saves_leave_nothing, 120},
        {"ten_saves_on_small_pages", ten_saves_on_small_pages, 120},
        {"resident_like_stock", resident_like_stock, 120},
        {"deferred_frees_are_bounded", deferred_frees_are_bounded, 90},
        {"purging_allocator", purging_allocator, 120},
        {"memory_accounting", memory_accounting, 120},
        {"another_allocator", another_allocator, 30},
        {"forked_child_keeps_sharing", forked_child_keeps_sharing, 60},
        {0},
    };
    return test_run("buffer", cases, argc, argv);
}
