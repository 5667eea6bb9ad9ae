/* The snapshot buffer: what its limit, its three policies and its spool promise,
 * measured from outside where that is possible. */
#include "fill.h"
#include "overwriter.h"
#include "privacy.h"
#include "replicas.h"
#include "snapshot.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEGABYTE    (1024.0 * 1024.0)
#define KEYS        24000
#define BYTES       1000
#define LIMIT       "6mb"
#define LIMIT_BYTES (6 * MEGABYTE)

/* ---- a server that takes a few seconds to save, and is overwritten meanwhile ----- */

struct options {
    const char *arguments; /* of the module */
    const char *fault;
    int delay; /* usec a key, 0: 10 */
};

static struct server *start(uint64_t seed, struct options options)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG "stop-writes-on-bgsave-error no\n",
                                 .module_arguments = options.arguments,
                                 .fault = options.fault});
    fill(server->connection, FILL_ALL, 50, seed);
    json_fill(server->connection, KEYS, BYTES, seed);
    server_config_set(server, "rdb-key-save-delay",
                      format_text("%d", options.delay ? options.delay : 10));
    return server;
}

static struct overwriter *overwrite(struct server *server, uint64_t seed)
{
    return overwriter_start(server, KEYS, BYTES, OVERWRITE_IN_PLACE, seed + 1);
}

static bool saving(struct server *server)
{
    return server_info_number(server, "rdb_bgsave_in_progress") == 1;
}

static double number(struct server *server, const char *field)
{
    return server_info_number(server, format_text("uffd_%s", field));
}

/* Until the save is over; the buffer must never be seen above `limit`. */
static void watch_limit(struct server *server, double limit)
{
    do {
        double used = number(server, "buffer_used_bytes");
        CHECK(used <= limit, "the buffer holds %.0f bytes, the limit is %.0f", used,
              limit);
        sleep_msec(20);
    } while (saving(server));
    double peak = number(server, "buffer_peak_bytes");
    CHECK(peak <= limit, "the peak is %.0f bytes, the limit is %.0f", peak, limit);
    CHECK(peak > limit * 0.9, "the buffer was never full: %.0f of %.0f bytes", peak,
          limit);
}

static void check_exact(struct snapshot *snapshot)
{
    const char *wrong = snapshot_fault(snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
}

static void note_result(struct server *server, long commands)
{
    test_note(
        "%ld commands, %.0f pages preserved, peak %.1f MB, spool %.1f MB, %.0f waits "
        "of %.0f ms in all",
        commands, number(server, "last_pages_preserved"),
        number(server, "buffer_peak_bytes") / MEGABYTE,
        number(server, "last_spool_peak_bytes") / MEGABYTE,
        number(server, "writer_waits"), number(server, "writer_wait_usec") / 1000);
}

/* ---- the policies ---------------------------------------------------------------- */

/* The spool is open, and yet no file of it is to be seen. */
static void check_spool_is_unlinked(struct server *server, const char *directory)
{
    DIR *descriptors = opendir(format_text("/proc/%d/fd", server->pid));
    bool found = false;
    CHECK(descriptors, "no /proc/PID/fd");
    for (struct dirent *entry; (entry = readdir(descriptors));) {
        char target[512] = "";
        if (readlink(format_text("/proc/%d/fd/%s", server->pid, entry->d_name), target,
                     sizeof target - 1) < 0)
            continue;
        if (strncmp(target, directory, strlen(directory)) == 0 &&
            strstr(target, "(deleted)"))
            found = true;
    }
    closedir(descriptors);
    CHECK(found, "no deleted file of %s is open: where is the spool?", directory);
    DIR *listing = opendir(directory);
    CHECK(listing, "no %s", directory);
    for (struct dirent *entry; (entry = readdir(listing));)
        CHECK(entry->d_name[0] == '.', "%s is in the spool's directory", entry->d_name);
    closedir(listing);
}

static void spool_with(const char *compression)
{
    uint64_t seed = test_seed();
    char *directory = format_text("%s/spool", test_directory());
    CHECK(mkdir(directory, 0777) == 0, "mkdir");
    struct server *server = start(
        seed, (struct options){.arguments = format_text(
                                   "buffer-limit " LIMIT
                                   " buffer-policy spool spool-dir %s compression %s",
                                   directory, compression)});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = overwrite(server, seed);
    sleep_msec(300);
    check_spool_is_unlinked(server, directory);
    watch_limit(server, LIMIT_BYTES);
    long commands = overwriter_stop(overwriter, NULL);
    check_exact(&snapshot);
    note_result(server, commands);
    CHECK(number(server, "last_spool_peak_bytes") > 0, "nothing was spooled");
    CHECK(number(server, "spool_bytes") == 0, "the spool is still held");
    CHECK(number(server, "writer_waits") > 0, "no writer waited");
    CHECK(number(server, "writer_wait_usec") > 0, "they waited for no time");
    /* For one page, never for the snapshot. */
    double longest = number(server, "writer_wait_longest_usec") / 1000;
    CHECK(longest < 500, "a writer waited %.0f ms for its page", longest);
    check_fork_free(server, 1);
    server_stop(server);
}

static void spool(void)
{
    spool_with("yes");
}

static void spool_without_compression(void)
{
    spool_with("no");
}

/* The writer, which is the server itself, waits until the save is over. */
static void block(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments =
                                         "buffer-limit " LIMIT " buffer-policy block"});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = overwrite(server, seed);
    sleep_msec(1000);
    long before = overwriter_commands(overwriter);
    sleep_msec(300);
    CHECK(overwriter_commands(overwriter) == before, "writers go on beyond the limit");
    watch_limit(server, LIMIT_BYTES);
    double worst;
    long commands = overwriter_stop(overwriter, &worst);
    check_exact(&snapshot);
    note_result(server, commands);
    CHECK(commands > before, "writers never went on");
    CHECK(number(server, "last_spool_peak_bytes") == 0, "something was spooled");
    CHECK(number(server, "writer_waits") > 0, "no writer waited");
    CHECK(number(server, "writer_wait_usec") > 300000 && worst > 300,
          "the wait was not counted");
    check_fork_free(server, 1);
    server_stop(server);
}

/* A writer that waits is the server, and so nobody would read the pipe for which the
 * saver waits: there the policy is spool. */
static void block_in_transfer(const char *config)
{
    uint64_t seed = test_seed();
    server_common_config =
        format_text("%s%s", server_common_config ? server_common_config : "", config);
    struct server *server = start(
        seed, (struct options){
                  .arguments = "buffer-limit 4mb buffer-policy block compression no"});
    struct overwriter *overwriter = overwrite(server, seed);
    struct server *replica = replica_start(server, NULL);
    replica_wait_link(replica);
    note_result(server, overwriter_stop(overwriter, NULL));
    check_same_data(server, replica);
    CHECK(number(server, "writer_waits") > 0, "no writer waited");
    CHECK((number(server, "last_spool_peak_bytes") > 0) == !straight_to_sockets,
          "%.0f bytes were spooled", number(server, "last_spool_peak_bytes"));
    check_fork_free(server, 1);
    server_stop(replica);
    server_stop(server);
}

static void block_while_transferring(void)
{
    each_diskless_way(block_in_transfer,
                      DISKLESS_CONFIG "repl-ping-replica-period 3600\n"
                                      "client-output-buffer-limit replica 0 0 0\n");
}

static char *keep_old_dump(struct server *server)
{
    const char *delay = server_config_get(server, "rdb-key-save-delay");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "SAVE");
    server_config_set(server, "rdb-key-save-delay", delay);
    char *old = server_path(server, "old.rdb");
    copy_file(server_path(server, "dump.rdb"), old);
    return old;
}

/* The save that runs fails as a child would have, and writers do not notice. */
static void check_given_up(struct server *server, const char *old_dump,
                           struct overwriter *overwriter, const char *reason)
{
    CHECK(!server_save_wait(server), "the save succeeded");
    long before = overwriter_commands(overwriter);
    sleep_msec(100);
    CHECK(overwriter_commands(overwriter) > before, "writers do not go on");
    note_result(server, overwriter_stop(overwriter, NULL));
    double longest = number(server, "writer_wait_longest_usec") / 1000;
    CHECK(longest < 500, "a writer waited %.0f ms for its page", longest);
    CHECK(files_are_equal(old_dump, server_path(server, "dump.rdb")),
          "the old dump was changed");
    CHECK(!server_temporary_file(server), "a temporary file was left");
    CHECK(number(server, "snapshots_failed") == 1, "uffd_snapshots_failed");
    CHECK(number(server, "fork_fallbacks") == 0, "a fork was made");
    CHECK(strstr(server_info(server, "uffd_last_error"), reason),
          "uffd_last_error is '%s'", server_info(server, "uffd_last_error"));
    CHECK(server_log_count(server, "Background saving error") == 1,
          "the log says nothing");
}

/* … and the next one is fine. */
static void check_next_save(struct server *server)
{
    server_config_set(server, "rdb-key-save-delay", "0");
    struct snapshot snapshot = snapshot_begin(server);
    check_exact(&snapshot);
    check_fork_free(server, 2);
    server_stop(server);
}

static void abort_policy(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments =
                                         "buffer-limit " LIMIT " buffer-policy abort"});
    char *old_dump = keep_old_dump(server);
    server_save_start(server);
    struct overwriter *overwriter = overwrite(server, seed);
    check_given_up(server, old_dump, overwriter, "buffer is full");
    CHECK(number(server, "buffer_peak_bytes") <= LIMIT_BYTES, "above the limit");
    check_next_save(server);
}

/* A snapshot that fits takes no harm from any policy. */
static void abort_policy_with_room(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(
        seed, (struct options){.arguments = "buffer-limit 256mb buffer-policy abort",
                               .delay = 20});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = overwrite(server, seed);
    server_save_wait(server);
    note_result(server, overwriter_stop(overwriter, NULL));
    check_exact(&snapshot);
    CHECK(number(server, "writer_waits") == 0, "somebody waited");
    check_fork_free(server, 1);
    server_stop(server);
}

/* How many pages one buffer keeps while everything is overwritten. */
static double pages_held(const char *compression, uint64_t seed)
{
    struct server *server =
        start(seed, (struct options){.arguments = format_text("buffer-limit " LIMIT
                                                              " buffer-policy block "
                                                              "compression %s",
                                                              compression),
                                     .delay = 10});
    server_save_start(server);
    struct overwriter *overwriter = overwrite(server, seed);
    CHECK(server_save_wait(server), "the save failed");
    overwriter_stop(overwriter, NULL);
    double pages = number(server, "last_pages_preserved");
    test_note("%s: saved in %.0f ms", compression, number(server, "last_save_msec"));
    check_fork_free(server, 1);
    server_stop(server);
    return pages;
}

static void twice_the_pages_of_json(void)
{
    uint64_t seed = test_seed();
    double raw = pages_held("no", seed), packed = pages_held("yes", seed);
    test_note("pages in " LIMIT ": %.0f raw, %.0f packed: %.2f times", raw, packed,
              packed / raw);
    CHECK(raw > 1350, LIMIT " hold only %.0f pages", raw);
    CHECK(packed >= 2 * raw, "not twice the pages");
}

/* The test of the test: a buffer that ignores its limit must be noticed. */
static void ignored_limit_is_found(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments = "buffer-limit " LIMIT,
                                     .fault = "ignore_limit"});
    server_save_start(server);
    struct overwriter *overwriter = overwrite(server, seed);
    server_save_wait(server);
    note_result(server, overwriter_stop(overwriter, NULL));
    CHECK(number(server, "buffer_peak_bytes") > LIMIT_BYTES,
          "the limit holds although it is ignored");
    server_stop(server);
}

/* ---- the limit while saving ------------------------------------------------------ */

static void wait_for_number(struct server *server, const char *field, double least,
                            double most, double seconds)
{
    double until = clock_seconds() + seconds, value;
    while ((value = number(server, field)) < least || value > most) {
        CHECK(clock_seconds() < until, "uffd_%s stays at %.0f", field, value);
        sleep_msec(5);
    }
}

static void limit_raised_and_lowered(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments = "buffer-limit " LIMIT});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = overwrite(server, seed);
    wait_for_number(server, "spool_bytes", 1, 1e12, 10);
    server_config_set(server, "uffd.buffer-limit", "64mb");
    CHECK(number(server, "buffer_limit_bytes") == 64 * MEGABYTE, "not at once");
    wait_for_number(server, "buffer_used_bytes", 6.5 * MEGABYTE, 64 * MEGABYTE, 10);
    double spooled = number(server, "spool_bytes");
    sleep_msec(200);
    CHECK(number(server, "spool_bytes") == spooled, "still spooling with room again");
    server_config_set(server, "uffd.buffer-limit", "5mb");
    wait_for_number(server, "buffer_used_bytes", 0, 5 * MEGABYTE, 5);
    CHECK(number(server, "spool_bytes") > spooled, "nothing went to the spool");
    server_config_set(server, "uffd.buffer-limit", "30%");
    for (int i = 0; i < 50 && saving(server); i++) {
        const char *limits[] = {"5mb", "50mb", "7mb", "100%", "4mb"};
        server_config_set(server, "uffd.buffer-limit", limits[i % 5]);
        sleep_msec(10);
    }
    CHECK(saving(server), "the save was over too soon for the case to show anything");
    note_result(server, overwriter_stop(overwriter, NULL));
    server_config_set(server, "uffd.buffer-limit", LIMIT);
    check_exact(&snapshot);
    check_fork_free(server, 1);
    server_stop(server);
}

static void percent_limit(void)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments = "buffer-limit 15%", .delay = 20});
    double used = server_info_number(server, "used_memory");
    CHECK(strcmp(server_config_get(server, "uffd.buffer-limit"), "15%") == 0,
          "CONFIG GET");
    struct snapshot snapshot = snapshot_begin(server);
    double limit = number(server, "buffer_limit_bytes");
    CHECK(limit > used * 0.14 && limit < used * 0.16, "15%% of %.0f are not %.0f", used,
          limit);
    struct overwriter *overwriter = overwrite(server, seed);
    watch_limit(server, limit);
    overwriter_stop(overwriter, NULL);
    check_exact(&snapshot);
    server_stop(server);
}

/* ---- bad input ------------------------------------------------------------------- */

static void refused(struct server *server, const char *name, const char *value,
                    const char *why)
{
    const char *before = server_config_get(server, name);
    const char *error = server_error(server, "CONFIG SET %s %s", name, value);
    CHECK(strstr(error, why), "%s %s: '%s' does not say '%s'", name, value, error, why);
    CHECK(strcmp(server_config_get(server, name), before) == 0, "%s was changed", name);
}

static void bad_values(void)
{
    needs_module();
    mounts_become_private();
    const char *read_only = mount_small("1m");
    mount_read_only(read_only, true);
    struct server *server = server_start(NULL);
    const char *size = "must be a memory size such as 256mb";
    refused(server, "uffd.buffer-limit", "-1", size);
    refused(server, "uffd.buffer-limit", "12zb", size);
    refused(server, "uffd.buffer-limit", "mb", size);
    refused(server, "uffd.buffer-limit", "99999999999999999999gb", size);
    refused(server, "uffd.buffer-limit", "0", "must be at least 4mb: the index");
    refused(server, "uffd.buffer-limit", "4095kb", "must be at least 4mb: the index");
    refused(server, "uffd.buffer-limit", "0%", "1% to 100%");
    refused(server, "uffd.buffer-limit", "101%", "1% to 100%");
    refused(server, "uffd.buffer-policy", "wait", "spool");
    refused(server, "uffd.compression", "maybe", "yes");
    refused(server, "uffd.spool-dir", "/no/such/place", "No such file or directory");
    refused(server, "uffd.spool-dir", "/etc/passwd", "not a directory");
    refused(server, "uffd.spool-dir", read_only, "Read-only file system");
    server_config_set(server, "uffd.buffer-limit", "4mb");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
    char *log;
    CHECK(!server_try_start(
              &(struct server_options){.module_arguments = "buffer-limit 12zb"}, &log),
          "the server started with buffer-limit 12zb");
    CHECK(strstr(log, size), "the log does not say why");
}

/* A heap of 4 GB needs more than 4 MB for the index alone. */
static void limit_below_least(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.module_arguments = "buffer-limit 4mb fallback no"});
    for (int i = 0; i < 8; i++)
        server_ok(server, "SETRANGE large:%d 536870000 x", i);
    server_error(server, "BGSAVE");
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    CHECK(strstr(reason, "too small for this heap: it needs at least"), "'%s'", reason);
    double needed = atof(strstr(reason, "at least") + strlen("at least"));
    CHECK(needed > 4 * MEGABYTE && needed < 8 * MEGABYTE, "'%s'", reason);
    server_config_set(server, "uffd.buffer-limit", "8mb");
    server_save_start(server);
    CHECK(number(server, "forks_replaced") == 1, "uffd_forks_replaced");
    server_kill(server);
}

/* It was there when it was set. */
static void spool_directory_goes_away(void)
{
    needs_module();
    uint64_t seed = test_seed();
    char *directory = format_text("%s/spool", test_directory());
    CHECK(mkdir(directory, 0777) == 0, "mkdir");
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG,
        .module_arguments = format_text("spool-dir %s", directory)});
    fill(server->connection, FILL_ALL, 20, seed);
    CHECK(rmdir(directory) == 0, "rmdir");
    server_save(server);
    CHECK(number(server, "fork_fallbacks") == 1, "uffd_fork_fallbacks");
    CHECK(strstr(server_info(server, "uffd_last_fallback_reason"), "spool"),
          "the reason is '%s'", server_info(server, "uffd_last_fallback_reason"));
    server_config_set(server, "uffd.fallback", "no");
    server_error(server, "BGSAVE");
    CHECK(mkdir(directory, 0777) == 0, "mkdir");
    server_save(server);
    server_stop(server);
}

/* ---- a spool that fails ---------------------------------------------------------- */

static void spool_disk_full(void)
{
    uint64_t seed = test_seed();
    needs_module();
    mounts_become_private();
    const char *directory = mount_small("2m");
    struct server *server = start(
        seed, (struct options){.arguments = format_text(
                                   "buffer-limit " LIMIT " spool-dir %s", directory)});
    char *old_dump = keep_old_dump(server);
    server_save_start(server);
    struct overwriter *overwriter = overwrite(server, seed);
    check_given_up(server, old_dump, overwriter, "No space left on device");
    check_next_save(server);
}

/* The fault is there from the first byte spooled, or from when all are. */
static void spool_fault(const char *fault, bool from_the_start, const char *reason)
{
    uint64_t seed = test_seed();
    struct server *server =
        start(seed, (struct options){.arguments = "buffer-limit " LIMIT, .fault = ""});
    char *old_dump = keep_old_dump(server);
    if (from_the_start)
        server_ok(server, "UFFD.FAULT %s on", fault);
    server_save_start(server);
    struct overwriter *overwriter = overwrite(server, seed);
    if (!from_the_start) {
        wait_for_number(server, "spool_bytes", 1, 1e12, 10);
        server_ok(server, "UFFD.FAULT %s on", fault);
    }
    check_given_up(server, old_dump, overwriter, reason);
    server_ok(server, "UFFD.FAULT %s off", fault);
    check_next_save(server);
}

static void spool_write_error(void)
{
    spool_fault("spool_write", true, "Input/output error");
}

static void spool_read_error(void)
{
    spool_fault("spool_read", false, "Input/output error");
}

static void damaged_spool(void)
{
    spool_fault("damaged_spool", false, "Input/output error");
}

static void damaged_packed_page(void)
{
    spool_fault("damaged_page", false, "Input/output error");
}

static bool doctor_says(struct server *server, const char *text)
{
    redisReply *lines = server_ok(server, "UFFD.DOCTOR");
    bool found = false;
    for (size_t i = 0; i < lines->elements; i++)
        found |= strstr(lines->element[i]->str, text) != NULL;
    freeReplyObject(lines);
    return found;
}

/* Not before it is known how fast pages are written to. */
static void doctor_warns_of_slow_spool(struct server *server, uint64_t seed)
{
    static const char warning[] = "writers wait at the limit";
    CHECK(doctor_says(server, "MB/s in the last save"), "no speed");
    CHECK(!doctor_says(server, warning), "warned too early");
    struct overwriter *overwriter = overwrite(server, seed);
    redisReply *rate = redisCommand(server->connection, "UFFD.DIRTYRATE 1");
    bool measured = rate && rate->type != REDIS_REPLY_ERROR;
    overwriter_stop(overwriter, NULL);
    if (measured)
        CHECK(doctor_says(server, warning), "no warning");
    freeReplyObject(rate);
}

/* A spool of 2 ms a write slows the writers, and INFO says so. */
static void slow_spool(void)
{
    uint64_t seed = test_seed();
    struct server *server = start(
        seed, (struct options){.arguments = "buffer-limit 5mb", .fault = "spool_slow"});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = overwrite(server, seed);
    /* From when all that can be packed is. */
    wait_for_number(server, "spool_bytes", 50000, 1e12, 10);
    double waits = number(server, "writer_waits"),
           usec = number(server, "writer_wait_usec");
    double bytes = number(server, "spool_bytes"), began = clock_seconds();
    sleep_msec(500);
    double seconds = clock_seconds() - began;
    waits = number(server, "writer_waits") - waits;
    usec = number(server, "writer_wait_usec") - usec;
    bytes = number(server, "spool_bytes") - bytes;
    test_note("%.0f waits of %.0f ms in %.0f ms", waits, usec / 1000, seconds * 1000);
    /* Some are short: where packing makes room before the spool does. */
    CHECK(waits > 20, "the waits are not counted");
    CHECK(usec / 1e6 > seconds / 3, "writers were not slowed");
    CHECK(bytes < seconds * 500 * 4352 + 100000, "the spool was not slow");
    double worst;
    long commands = overwriter_stop(overwriter, &worst);
    note_result(server, commands);
    check_exact(&snapshot);
    doctor_warns_of_slow_spool(server, seed);
    server_stop(server);
}

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

/* The most that the process held while the save ran, above what it held before
 * and above what the dataset grew meanwhile. */
static double most_above(struct server *server, double before, double dataset)
{
    double most = -1e12;
    while (saving(server)) {
        double grown = server_info_number(server, "used_memory") - dataset;
        double above =
            (double)process_resident(server) - before - (grown > 0 ? grown : 0);
        if (above > most)
            most = above;
        sleep_msec(20);
    }
    return most;
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
    double most = most_above(server, before, dataset);
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
    wait_for_number(server, "late_free_bytes", 0, 0, 10);
    server_ok(server, "MEMORY PURGE");
    sleep_msec(100);
    double ready = number(server, "ready_bytes");
    CHECK(ready <= 16 * MEGABYTE, "%.1f MB kept ready", ready / MEGABYTE);
    return (double)process_resident(server) - ready;
}

/* Also: the memory map does not grow with the faults, nor with the saves. */
static void ten_saves_leave_nothing(void)
{
    uint64_t seed = test_seed();
    const int keys = 40000;
    const int saves = test_is_soak() ? 10 : 4, half = saves / 2;
    double resident[11] = {0}, dataset[11] = {0};
    int mappings[11] = {0}, most_mappings = 0;
    struct server *server = start_large(seed, keys, "buffer-limit 16mb", NULL);
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
        CHECK(number(server, "last_faults") > 2000, "%.0f faults only",
              number(server, "last_faults"));
        resident[i] = resident_after_purge(server);
        dataset[i] = server_info_number(server, "used_memory");
        mappings[i] = process_mappings(server);
        test_note("save %2d: resident %.1f MB, dataset %.1f MB, %d mappings, %.0f faults",
                  i, resident[i] / MEGABYTE, dataset[i] / MEGABYTE, mappings[i],
                  number(server, "last_faults"));
    }
    check_fork_free(server, saves + 1);
    double growth = resident[saves] - resident[0] - (dataset[saves] - dataset[0]);
    /* With the values stored again, nothing of the saves is left. */
    server_ok(server, "FLUSHALL");
    json_fill(server->connection, keys, BYTES, seed);
    double left = resident_after_purge(server) - resident[0];
    /* The keeper gives back once a second, and a machine may be slow. */
    for (int i = 0; i < 50 && left >= 12 * MEGABYTE; i++)
        left = resident_after_purge(server) - resident[0];
    test_note("growth %.1f MB, %.1f MB with all values stored again; mappings %d to %d, "
              "at most %d",
              growth / MEGABYTE, left / MEGABYTE, mappings[0], mappings[saves],
              most_mappings);
    CHECK(growth < 56 * MEGABYTE, "memory grew");
    CHECK(left < 12 * MEGABYTE, "memory is lost");
    CHECK(most_mappings < mappings[0] + 200, "mappings grow with faults");
    CHECK(mappings[saves] < mappings[half] + 20, "mappings grow with saves");
    server_stop(server);
}

/* ---- the server's allocator ------------------------------------------------------ */

/* Frees of the main thread are put off while frozen, within a bound, and made up
 * for afterwards. */
static void late_frees_are_bounded(void)
{
    uint64_t seed = test_seed();
    const int keys = 60000;
    struct server *server = start_large(seed, keys, "buffer-limit 16mb", NULL);
    server_config_set(server, "rdb-key-save-delay", "20");
    struct snapshot snapshot = snapshot_begin(server);
    double most = 0;
    for (int i = 0; i < keys; i++) {
        server_ok(server, "DEL json:%d", i);
        if (i % 1000)
            continue;
        double held = number(server, "late_free_bytes");
        most = held > most ? held : most;
    }
    CHECK(saving(server), "the save was over too soon for the case to show anything");
    test_note("at most %.1f MB held", most / MEGABYTE);
    CHECK(most > 1 * MEGABYTE, "no free was put off");
    CHECK(most <= 32 * MEGABYTE, "too many frees were put off");
    check_exact(&snapshot);
    wait_for_number(server, "late_free_bytes", 0, 0, 10);
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
    struct server *server =
        start(seed, (struct options){.arguments = "buffer-limit " LIMIT});
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

int main(int argc, char **argv)
{
    static struct test_case cases[] = {
        {"spool", spool, 60},
        {"spool_without_compression", spool_without_compression, 60},
        {"block", block, 60},
        {"block_while_transferring", block_while_transferring, 60},
        {"abort_policy", abort_policy, 60},
        {"abort_policy_with_room", abort_policy_with_room, 60},
        {"twice_the_pages_of_json", twice_the_pages_of_json, 60},
        {"ignored_limit_is_found", ignored_limit_is_found, 60},
        {"limit_raised_and_lowered", limit_raised_and_lowered, 60},
        {"percent_limit", percent_limit, 60},
        {"bad_values", bad_values, 30},
        {"spool_directory_goes_away", spool_directory_goes_away, 30},
        {"spool_disk_full", spool_disk_full, 60},
        {"spool_write_error", spool_write_error, 60},
        {"spool_read_error", spool_read_error, 60},
        {"damaged_spool", damaged_spool, 60},
        {"damaged_packed_page", damaged_packed_page, 60},
        {"slow_spool", slow_spool, 60},
        {"resident_excess_is_found", resident_excess_is_found, 60},
        {"resident_memory_within_limit", resident_memory_within_limit, 120},
        {"ten_saves_leave_nothing", ten_saves_leave_nothing, 60},
        {"late_frees_are_bounded", late_frees_are_bounded, 90},
        {"purging_allocator", purging_allocator, 120},
        {"memory_accounting", memory_accounting, 120},
        {"another_allocator", another_allocator, 30},
        {0}, /* in make soak: the next one, which takes 4 GB of memory */
        {0},
    };
    const size_t last = sizeof cases / sizeof *cases - 2;
    if (test_is_soak())
        cases[last] = (struct test_case){"limit_below_least", limit_below_least, 120};
    return test_run("buffer", cases, argc, argv);
}
