/* The snapshot buffer's limit: its three policies, the spool, changes while saving, and
 * what may go wrong with them. */
#include "buffered.h"
#include "fill.h"
#include "privacy.h"
#include "replicas.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LIMIT_BYTES (6 * MEGABYTE)

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
    struct server *server = buffered_start(
        seed,
        (struct buffered_options){
            .arguments = format_text("buffer-limit " LIMIT
                                     " buffer-policy spool spool-dir %s compression %s",
                                     directory, compression)});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    sleep_msec(300);
    check_spool_is_unlinked(server, directory);
    watch_limit(server, LIMIT_BYTES);
    long commands = overwriter_stop(overwriter, NULL);
    check_exact(&snapshot);
    note_result(server, commands);
    CHECK(number(server, "last_spool_peak_bytes") > 0, "nothing was spooled");
    CHECK(number(server, "limit_spooled_pages") > 0, "the limit sent nothing there");
    CHECK(number(server, "index_bytes") > 0 &&
              number(server, "index_bytes") < number(server, "buffer_peak_bytes"),
          "an index of %.0f bytes", number(server, "index_bytes"));
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
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT
                                                     " buffer-policy block"});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    long before;
    WAIT_UNTIL((before = overwriter_commands(overwriter), sleep_msec(300),
                overwriter_commands(overwriter) == before),
               10, "writers go on beyond the limit");
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
    struct server *server = buffered_start(
        seed, (struct buffered_options){
                  .arguments = "buffer-limit 4mb buffer-policy block compression no"});
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    WAIT_UNTIL(overwriter_commands(overwriter) > before, 1, "writers do not go on");
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
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT
                                                     " buffer-policy abort"});
    char *old_dump = keep_old_dump(server);
    server_save_start(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    check_given_up(server, old_dump, overwriter, "buffer is full");
    CHECK(number(server, "buffer_peak_bytes") <= LIMIT_BYTES, "above the limit");
    check_next_save(server);
}

/* A snapshot that fits takes no harm from any policy. */
static void abort_policy_with_room(void)
{
    uint64_t seed = test_seed();
    struct server *server = buffered_start(
        seed, (struct buffered_options){
                  .arguments = "buffer-limit 256mb buffer-policy abort", .delay = 20});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = format_text("buffer-limit " LIMIT
                                                                 " buffer-policy block "
                                                                 "compression %s",
                                                                 compression),
                                        .delay = 10});
    server_save_start(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
        buffered_start(seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT,
                                                       .fault = "ignore_limit"});
    server_save_start(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    server_save_wait(server);
    note_result(server, overwriter_stop(overwriter, NULL));
    CHECK(number(server, "buffer_peak_bytes") > LIMIT_BYTES,
          "the limit holds although it is ignored");
    server_stop(server);
}

/* ---- the limit while saving ------------------------------------------------------ */

static void limit_raised_and_lowered(void)
{
    uint64_t seed = test_seed();
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit 15%", .delay = 20});
    double used = server_info_number(server, "used_memory");
    CHECK(strcmp(server_config_get(server, "uffd.buffer-limit"), "15%") == 0,
          "CONFIG GET");
    struct snapshot snapshot = snapshot_begin(server);
    double limit = number(server, "buffer_limit_bytes");
    CHECK(limit > used * 0.14 && limit < used * 0.16, "15%% of %.0f are not %.0f", used,
          limit);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    struct server *server = buffered_start(
        seed,
        (struct buffered_options){
            .arguments = format_text("buffer-limit " LIMIT " spool-dir %s", directory)});
    char *old_dump = keep_old_dump(server);
    server_save_start(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    check_given_up(server, old_dump, overwriter,
                   "No space left on device, writing to the spool");
    check_next_save(server);
}

/* A unit's LimitFSIZE is for the spool as well. */
static void spool_size_limited(void)
{
    uint64_t seed = test_seed();
    struct rlimit unlimited, small;
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT, .fault = ""});
    char *old_dump = keep_old_dump(server);
    CHECK(prlimit(server->pid, RLIMIT_FSIZE, NULL, &unlimited) == 0, "prlimit");
    small = unlimited;
    small.rlim_cur = 1 << 20;
    server_ok(server, "UFFD.FAULT held_saver on");
    server_save_start(server);
    CHECK(prlimit(server->pid, RLIMIT_FSIZE, &small, NULL) == 0, "prlimit");
    struct overwriter *overwriter = buffered_overwrite(server, seed);
    /* The spool is ahead of the dump, which may not be larger either. */
    wait_for_number(server, "spool_bytes", 1 << 19, 1e12, 20);
    server_ok(server, "UFFD.FAULT held_saver off");
    check_given_up(server, old_dump, overwriter, "File too large, writing to the spool");
    CHECK(prlimit(server->pid, RLIMIT_FSIZE, &unlimited, NULL) == 0, "prlimit");
    check_next_save(server);
}

/* The fault is there from the first byte spooled, or from when all are. */
static void spool_fault(const char *fault, bool from_the_start, const char *reason)
{
    uint64_t seed = test_seed();
    struct server *server = buffered_start(
        seed, (struct buffered_options){.arguments = "buffer-limit " LIMIT, .fault = ""});
    char *old_dump = keep_old_dump(server);
    if (from_the_start)
        server_ok(server, "UFFD.FAULT %s on", fault);
    server_save_start(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    spool_fault("spool_write", true, "Input/output error, writing to the spool");
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
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
    struct server *server =
        buffered_start(seed, (struct buffered_options){.arguments = "buffer-limit 5mb",
                                                       .fault = "spool_slow"});
    struct snapshot snapshot = snapshot_begin(server);
    struct overwriter *overwriter = buffered_overwrite(server, seed);
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
        {"spool_size_limited", spool_size_limited, 60},
        {"spool_disk_full", spool_disk_full, 60},
        {"spool_write_error", spool_write_error, 60},
        {"spool_read_error", spool_read_error, 60},
        {"damaged_spool", damaged_spool, 60},
        {"damaged_packed_page", damaged_packed_page, 60},
        {"slow_spool", slow_spool, 60},
        {0}, /* in make soak: the next one, which takes 4 GB of memory */
        {0},
    };
    const size_t last = sizeof cases / sizeof *cases - 2;
    if (test_is_soak())
        cases[last] = (struct test_case){"limit_below_least", limit_below_least, 120};
    return test_run("limit", cases, argc, argv);
}
