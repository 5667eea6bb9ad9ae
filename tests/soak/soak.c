/* Rounds without end, on one server: soak writers|kills SECONDS AMOUNT
 *
 *   writers  mixed writers; each save is compared with a SAVE at the same instant, byte by
 *            byte, and with DEBUG DIGEST of a server without the module that loads it
 *   kills    a save or a rewrite is ended at a random moment, by a command or with the
 *            server (SIGKILL, SHUTDOWN); the dump is the old one or the whole new one
 *
 * Ends after SECONDS, or when AMOUNT of seconds, or of kills, is reached. A round is a case
 * of its own with a seed of its own: SEED=number repeats just that one. It appends a line
 * to the file SOAK_RESULTS, also when it fails; then the next one begins. */
#include "fill.h"
#include "rdbfile.h"
#include "replicas.h"
#include "snapshot.h"
#include "writers.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUND_SECONDS 60
#define ROUND_KILLS   25
#define ROUND_LIMIT   600 /* of patient_seconds() */

/* Shared with the round's process. */
struct tally {
    uint64_t seed;
    long saves, kills, finished, keys, commands;
    double seconds;
    double longest_end; /* of a kill */
    char options[200];
};
static struct tally *tally;

static unsigned below(uint64_t *random, unsigned limit)
{
    return (unsigned)(random_next(random) % limit);
}

static long keys_of(struct server *server)
{
    redisReply *reply = server_ok(server, "INFO keyspace");
    long keys = 0;
    for (const char *at = reply->str; (at = strstr(at, ":keys=")); at++)
        keys += atol(at + strlen(":keys="));
    freeReplyObject(reply);
    return keys;
}

/* ---- mixed writers --------------------------------------------------------------- */

#define COUNT       200
#define CONNECTIONS 4
#define MOST_WRITES 800 /* a second: other servers run beside this one */
#define LARGE_KEYS  20000

static const char *const limits[] = {"4mb", "16mb", "64mb", "256mb"};
static const char *const arguments[] = {
    "", "compression no", "huge-pages no", "huge-pages no", "buffer-policy block",
};
static const char *const configs[] = {
    "",
    "lazyfree-lazy-user-del yes\nlazyfree-lazy-server-del yes\n"
    "lazyfree-lazy-user-flush yes\n",
    "io-threads 3\nio-threads-do-reads yes\n",
    "activerehashing yes\nhz 100\n",
    "activedefrag yes\nactive-defrag-ignore-bytes 1mb\nactive-defrag-threshold-lower 1\n",
};
static const char *const delays[] = {"0", "0", "3", "20", "60"};
#define ONE_OF(list, random) list[below(random, sizeof(list) / sizeof(list[0]))]

/* Not every build can defragment. */
static struct server *start_as_drawn(uint64_t *random)
{
    const char *config = ONE_OF(configs, random);
    char *module_arguments = format_text("buffer-limit %s %s", ONE_OF(limits, random),
                                         ONE_OF(arguments, random));
    snprintf(tally->options, sizeof tally->options, "%s, %.20s", module_arguments,
             *config ? config : "plain");
    *strchrnul(tally->options, '\n') = '\0';
    struct server_options options = {.config = format_text(FILL_CONFIG "%s", config),
                                     .module_arguments = module_arguments};
    struct server *server = server_try_start(&options, NULL);
    if (server)
        return server;
    options.config = FILL_CONFIG;
    return server_start(&options);
}

static void save_and_compare(struct server *server, uint64_t *random)
{
    server_config_set(server, "rdb-key-save-delay", ONE_OF(delays, random));
    sleep_msec((long)below(random, 1500));
    long keys = keys_of(server); /* about: writers are at work */
    struct snapshot snapshot = snapshot_begin(server);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "save %ld: %s", tally->saves, wrong);
    tally->saves++;
    tally->keys += keys;
    check_fork_free(server, (int)tally->saves);
}

static void writers_round(void)
{
    uint64_t random = tally->seed;
    struct server *server = start_as_drawn(&random);
    server_ok(server, "DEBUG POPULATE %d key 400", LARGE_KEYS);
    fill(server->connection, FILL_ALL, COUNT, random_next(&random));
    struct writers *writers =
        writers_start(server, CONNECTIONS, COUNT, random_next(&random));
    writers_pace(writers, MOST_WRITES);
    double began = clock_seconds();
    do {
        save_and_compare(server, &random);
        tally->commands = writers_commands(writers);
        tally->seconds = clock_seconds() - began;
    } while (tally->seconds < ROUND_SECONDS);
    writers_stop(writers);
    server_stop(server);
}

/* ---- kills ----------------------------------------------------------------------- */

#define KEYS         1500
#define FEW          10
#define SLOW         "100"
#define IDLE_SECONDS 5

/* What is known to be in the dump, and the file itself. */
struct saved {
    const char *digest;
    ino_t inode;
    off_t size;
};

static struct saved look(struct server *server, const char *digest)
{
    struct stat dump;
    CHECK(stat(server_path(server, "dump.rdb"), &dump) == 0, "there is no dump");
    return (struct saved){digest, dump.st_ino, dump.st_size};
}

static void make_good(struct server *server, uint64_t *random)
{
    server_config_set(server, "rdb-key-save-delay", "0");
    if (server_integer(server, "DBSIZE") < KEYS) {
        server_ok(server, "DEBUG POPULATE %d key 200", KEYS);
        fill(server->connection, FILL_ALL - FILL_FUNCTIONS, FEW, random_next(random));
    }
    /* So that no two dumps are the same. */
    server_ok(server, "SET changed %llu", (unsigned long long)random_next(random));
    server_config_set(server, "rdb-key-save-delay", SLOW);
}

static void check_idle(struct server *server)
{
    wait_for_info(server, "rdb_bgsave_in_progress", "0", IDLE_SECONDS);
    wait_for_info(server, "aof_rewrite_in_progress", "0", IDLE_SECONDS);
    wait_for_info(server, "uffd_state", "idle", IDLE_SECONDS);
    check_no_temporary_file(server);
}

static struct server *restart(struct server *server)
{
    return server_start(
        &(struct server_options){.config = FILL_CONFIG, .directory = server->directory});
}

/* The server lives: what it does to end a save. */
static void end_by_command(struct server *server, unsigned kind)
{
    static const char *const commands[] = {"FLUSHALL", "FLUSHALL ASYNC", "BGSAVE CANCEL",
                                           "CONFIG SET appendonly no"};
    double began = patient_seconds();
    server_command(server, commands[kind]);
    check_idle(server);
    double took = patient_seconds() - began;
    tally->longest_end = took > tally->longest_end ? took : tally->longest_end;
}

/* It does not: what it loads is the dump that is there. */
static struct server *end_with_server(struct server *server, bool at_once)
{
    if (!at_once) {
        server_stop(server);
        check_no_temporary_file(server);
        return restart(server);
    }
    server_kill(server);
    /* Nobody could remove it. */
    const char *left = server_temporary_file(server);
    if (left)
        unlink(left);
    return restart(server);
}

static void wait_at_random(uint64_t *random)
{
    sleep_msec((long)below(random, below(random, 4) ? 200 : 800));
}

/* 0 to 3: by commands; 4 the server with SIGKILL, 5 with SHUTDOWN. */
static unsigned draw_kind(uint64_t *random, bool knows_cancel)
{
    static const unsigned kinds[] = {0, 0, 0, 0, 0, 1, 1, 1, 1, 2,
                                     2, 2, 2, 2, 3, 3, 3, 4, 4, 5};
    unsigned kind = ONE_OF(kinds, random);
    return kind == 2 && !knows_cancel ? 0 : kind;
}

static struct server *kill_once(struct server *server, struct saved *saved, unsigned kind,
                                uint64_t *random)
{
    const char *digest = server_digest(server);
    if (kind == 3)
        server_config_set(server, "appendonly", "yes");
    else
        server_save_start(server);
    wait_at_random(random);
    if (kind < 4)
        end_by_command(server, kind);
    else
        server = end_with_server(server, kind == 4);
    struct saved now = look(server, digest);
    bool untouched = now.inode == saved->inode && now.size == saved->size;
    tally->kills++;
    tally->finished += !untouched;
    CHECK(untouched || kind != 3, "a rewrite has changed the dump");
    if (!untouched)
        *saved = now;
    const char *loaded = kind >= 4 ? server_digest(server) : saved->digest;
    CHECK(strcmp(loaded, saved->digest) == 0, "%s dump has %s, not %s",
          untouched ? "the old" : "the new", loaded, saved->digest);
    return server;
}

static void kills_round(void)
{
    uint64_t random = tally->seed;
    double began = clock_seconds();
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    bool knows_cancel =
        strstr(server_error(server, "BGSAVE CANCEL"), "not in progress") != NULL;
    make_good(server, &random);
    server_ok(server, "SAVE");
    struct saved saved = look(server, server_digest(server));
    for (int i = 0; i < ROUND_KILLS; i++) {
        server = kill_once(server, &saved, draw_kind(&random, knows_cancel), &random);
        make_good(server, &random);
        tally->seconds = clock_seconds() - began;
    }
    server_config_set(server, "rdb-key-save-delay", "0");
    server_save(server);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the last dump is wrong");
    tally->saves++;
    tally->keys += keys_of(server);
    server_stop(server);
}

/* ---- rounds ---------------------------------------------------------------------- */

static void report(const char *kind, int code)
{
    const char *path = getenv("SOAK_RESULTS"), *server = getenv("SERVER_NAME");
    FILE *file = path ? fopen(path, "a") : stdout;
    char when[32];
    time_t now = time(NULL);
    strftime(when, sizeof when, "%H:%M:%S", localtime(&now));
    if (!file)
        return;
    fprintf(
        file,
        "%s %s %s %s SEED=%llu seconds=%.0f saves=%ld kills=%ld finished=%ld keys=%ld "
        "commands=%ld longest_end=%.2f  %s\n",
        when, code ? "FAILED" : "ok", kind, server ? server : "installed",
        (unsigned long long)tally->seed, tally->seconds, tally->saves, tally->kills,
        tally->finished, tally->keys, tally->commands, tally->longest_end,
        tally->options);
    if (path)
        fclose(file);
}

static int one_round(const char *kind, void (*body)(void), uint64_t seed)
{
    memset(tally, 0, sizeof(*tally));
    tally->seed = seed;
    printf("SEED=%llu soak %s\n", (unsigned long long)seed, kind);
    int code = test_run_alone(kind, body, ROUND_LIMIT);
    report(kind, code);
    return code;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fputs("soak writers|kills SECONDS AMOUNT\n", stderr);
        return 2;
    }
    bool kills = strcmp(argv[1], "kills") == 0;
    double end = clock_seconds() + atof(argv[2]), amount = atof(argv[3]), done = 0;
    const char *given = getenv("SEED");
    uint64_t random = given ? strtoull(given, NULL, 10)
                            : (uint64_t)time(NULL) << 20 ^ (uint64_t)(end * 1e6);
    int failed = 0;
    tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                 -1, 0);
    if (tally == MAP_FAILED)
        return 2;
    while (done < amount && clock_seconds() < end) {
        failed += one_round(argv[1], kills ? kills_round : writers_round,
                            given ? random : random_next(&random)) != 0;
        done += kills ? (double)tally->kills : tally->seconds;
        if (given)
            break;
    }
    return failed != 0;
}
