/* UFFD.DIRTYRATE: what it predicts is what the next save needs; a save that begins
 * meanwhile wins, and is exact. */
#include "fill.h"
#include "overwriter.h"
#include "replicas.h"
#include "snapshot.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEYS     30000
#define BYTES    1000
#define MEGABYTE (1024.0 * 1024)
/* Their headers lie in 4000 pages, or in many more where they are one with the values. */
#define KEYS_READ 1000000

static struct server *start(const char *config, uint64_t seed)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = format_text("save \"\"\n%s%s", FILL_CONFIG, config), .fault = ""});
    json_fill(server->connection, KEYS, BYTES, seed);
    return server;
}

static double number(struct server *server, const char *field)
{
    return server_info_number(server, format_text("uffd_%s", field));
}

static long long answer(redisReply *map, const char *name)
{
    for (size_t i = 0; i + 1 < map->elements; i += 2)
        if (strcmp(map->element[i]->str, name) == 0) {
            CHECK(map->element[i + 1]->type == REDIS_REPLY_INTEGER, "%s is no number",
                  name);
            return map->element[i + 1]->integer;
        }
    fail("there is no field %s", name);
}

/* Whether this kernel can measure: Linux 6.7. */
static void needs_tracking(struct server *server)
{
    redisReply *reply;
    /* One whose client is gone may not have ended. */
    WAIT_UNTIL(
        (reply = server_command(server, "UFFD.DIRTYRATE 1"),
         reply->type != REDIS_REPLY_ERROR || !strstr(reply->str, "running already")),
        15, "the measurement never ends");
    if (reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "Linux 6.7"))
        skip("this kernel cannot tell which pages were written");
    CHECK(reply->type == REDIS_REPLY_ARRAY, "%s", reply->str);
}

/* ---- a load of a fixed rate ------------------------------------------------------ */

struct load {
    redisContext *connection;
    pthread_t thread;
    uint64_t random;
    int per_10_msec;
    int in_place; /* percent: SETRANGE, the others are new values */
    int read;     /* not 0: nothing is written, so many keys are read */
    _Atomic bool stop;
    _Atomic long done; /* commands */
};

static void send_batch(struct load *load)
{
    char record[BYTES + 1];
    for (int i = 0; i < load->per_10_msec; i++) {
        int key = (int)(random_next(&load->random) % KEYS);
        if (load->read) {
            redisAppendCommand(load->connection, "GET key:%d",
                               (int)(random_next(&load->random) % load->read));
            continue;
        }
        size_t length = json_record(&load->random, record, BYTES);
        if ((int)(random_next(&load->random) % 100) < load->in_place)
            redisAppendCommand(load->connection, "SETRANGE json:%d 100 abcd", key);
        else
            redisAppendCommand(load->connection, "SET json:%d %b", key, record, length);
    }
    for (int i = 0; i < load->per_10_msec; i++) {
        void *reply = NULL;
        if (redisGetReply(load->connection, &reply) != REDIS_OK)
            return;
        freeReplyObject(reply);
        atomic_fetch_add(&load->done, 1);
    }
}

static void *run_load(void *argument)
{
    struct load *load = argument;
    double due = clock_seconds();
    while (!atomic_load(&load->stop)) {
        send_batch(load);
        due += 0.01;
        double left = due - clock_seconds();
        if (left > 0)
            sleep_msec((long)(left * 1000) + 1);
    }
    return NULL;
}

static struct load *load_start(struct server *server, int per_second, int in_place,
                               uint64_t seed)
{
    static struct load load;
    load.connection = server_connect(server);
    load.per_10_msec = per_second / 100;
    load.in_place = in_place;
    load.read = 0;
    load.random = seed;
    atomic_store(&load.stop, false);
    atomic_store(&load.done, 0);
    CHECK(pthread_create(&load.thread, NULL, run_load, &load) == 0, "pthread_create");
    return &load;
}

static void load_stop(struct load *load)
{
    atomic_store(&load->stop, true);
    pthread_join(load->thread, NULL);
}

/* ---- the estimate ---------------------------------------------------------------- */

/* Two saves, a measurement, and a save again, all under the same load; with so much
 * written in between that what one leaves in fresh memory is free again in the next.
 * Two, because new values go to fresh memory in one of two arenas in turn. */
static void check_estimate(const char *command, int per_second, int in_place)
{
    uint64_t seed = test_seed();
    struct server *server = start("", seed);
    server_config_set(server, "rdb-key-save-delay", "10");
    needs_tracking(server);
    struct load *load = load_start(server, per_second, in_place, seed + 1);
    sleep_msec(300);
    for (int i = 0; i < 2; i++)
        server_save(server);
    json_fill(server->connection, KEYS, BYTES, seed + 2);
    long before = atomic_load(&load->done);
    redisReply *rate = server_ok(server, command);
    long while_measured = atomic_load(&load->done) - before;
    json_fill(server->connection, KEYS, BYTES, seed + 3);
    sleep_msec(1500); /* what is free is given back once a second */
    before = atomic_load(&load->done);
    server_save(server);
    long while_saved = atomic_load(&load->done) - before;
    load_stop(load);
    double predicted = (double)answer(rate, "predicted_pages");
    double needed = number(server, "last_pages_preserved");
    double bytes = (double)answer(rate, "predicted_buffer_bytes");
    test_note("measured %lld pages in %lld ms, predicted %.0f pages for %lld ms, "
              "%.0f were needed in %.0f ms; %.1f MB predicted, peak %.1f MB",
              answer(rate, "pages_written"), answer(rate, "measured_msec"), predicted,
              answer(rate, "save_msec"), needed, number(server, "last_save_msec"),
              bytes / MEGABYTE, number(server, "buffer_peak_bytes") / MEGABYTE);
    test_note("%ld writes while it was measured, %ld while it was saved", while_measured,
              while_saved);
    CHECK(needed > 1000, "too few pages to say anything");
    /* The machine may be slower or faster this time, or have less time for the load, and
     * a save with as many writes as the one predicted for was not made. What it would
     * have needed is between this one's need and the same share of it as of its writes:
     * pages are written to for the first time ever more seldom. */
    double expected = (double)while_measured * (double)answer(rate, "save_msec") /
                      (double)answer(rate, "measured_msec");
    double longer = (double)while_saved / expected;
    double least = longer > 1 ? needed / longer : needed;
    double most = longer > 1 ? needed : needed / longer;
    CHECK(predicted >= 0.7 * least && predicted <= 1.3 * most, "more than 30 %% off");
    CHECK(answer(rate, "recommended_buffer_limit") >= least * 4096,
          "the recommended limit is too small");
    check_fork_free(server, 3);
    server_stop(server);
}

static void predicts_mixed_writes(void)
{
    check_estimate("UFFD.DIRTYRATE", 4000, 25);
}

/* Measured for a shorter time than a save takes. */
static void predicts_from_less(void)
{
    check_estimate("UFFD.DIRTYRATE 3", 2000, 50);
}

static void predicts_changes_in_place(void)
{
    check_estimate("UFFD.DIRTYRATE", 2000, 100);
}

static void quiet_server(void)
{
    struct server *server = start("", test_seed());
    needs_tracking(server);
    redisReply *rate = server_ok(server, "UFFD.DIRTYRATE 1");
    test_note("%lld pages", answer(rate, "pages_written"));
    CHECK(answer(rate, "pages_written") < 500, "a quiet server writes");
    CHECK(answer(rate, "save_msec") == 0, "no save has been");
    CHECK(answer(rate, "heap_bytes") > KEYS * (long long)BYTES, "heap_bytes");
    server_stop(server);
}

/* Each read writes to a value's header: when it was. A save has none of that. */
static void reads_are_no_writes(void)
{
    uint64_t seed = test_seed();
    struct server *server = start("", seed);
    needs_tracking(server);
    server_ok(server, "DEBUG POPULATE %d key 100", KEYS_READ);
    struct load *load = load_start(server, 20000, 0, seed);
    load->read = KEYS_READ;
    redisReply *rate = server_ok(server, "UFFD.DIRTYRATE 3");
    load_stop(load);
    test_note("%lld pages", answer(rate, "pages_written"));
    CHECK(answer(rate, "pages_written") < 1500, "reads count as writes");
    long long save = answer(rate, "predicted_buffer_bytes");
    long long backup = answer(rate, "predicted_backup_buffer_bytes");
    CHECK(backup > 2 * save, "to a backup they are: %lld, %lld", backup, save);
    server_stop(server);
}

/* ---- with saves ------------------------------------------------------------------ */

static void send_now(redisContext *connection, const char *command)
{
    int done = 0;
    redisAppendCommand(connection, command);
    while (!done)
        CHECK(redisBufferWrite(connection, &done) == REDIS_OK, "%s", connection->errstr);
}

static redisContext *ask(struct server *server, int seconds)
{
    redisContext *other = server_connect(server);
    send_now(other, format_text("UFFD.DIRTYRATE %d", seconds));
    sleep_msec(700);
    return other;
}

static void check_given_up(redisContext *other)
{
    void *reply = NULL;
    CHECK(redisGetReply(other, &reply) == REDIS_OK, "%s", other->errstr);
    redisReply *given_up = reply;
    CHECK(given_up->type == REDIS_REPLY_ERROR && strstr(given_up->str, "background save"),
          "not given up");
}

static void save_wins(void)
{
    uint64_t seed = test_seed();
    struct server *server = start("", seed);
    needs_tracking(server);
    server_config_set(server, "rdb-key-save-delay", "10");
    for (int i = 0; i < 2; i++) {
        redisContext *other = ask(server, 30);
        double began = patient_seconds();
        struct snapshot snapshot = snapshot_begin(server);
        struct overwriter *overwriter =
            overwriter_start(server, KEYS, BYTES, OVERWRITE_SET, seed + 1);
        const char *fault = snapshot_fault(&snapshot, FILL_CONFIG);
        CHECK(!fault, "%s", fault);
        overwriter_stop(overwriter, NULL);
        check_given_up(other);
        CHECK(patient_seconds() - began < 30, "the save waited for the measurement");
    }
    check_fork_free(server, 2);
    server_stop(server);
}

/* ---- where it is asked ----------------------------------------------------------- */

static void on_replica(void)
{
    struct server *master = start("", test_seed());
    needs_tracking(master);
    struct server *replica = replica_start(master, NULL);
    replica_wait_link(replica);
    wait_until_no_child(replica, 10);
    CHECK(answer(server_ok(replica, "UFFD.DIRTYRATE 1"), "measured_msec") >= 900,
          "measured_msec");
    server_stop(replica);
    server_stop(master);
}

/* While the cluster is down, some servers let nobody wait for a module. */
static void in_cluster(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = "cluster-enabled yes\n"});
    redisReply *down = server_command(server, "UFFD.DIRTYRATE 1");
    CHECK(down->type != REDIS_REPLY_ERROR ||
              strncmp(down->str, "CLUSTERDOWN ", 12) == 0 ||
              strstr(down->str, "Linux 6.7"),
          "%s", down->str);
    server_ok(server, "CLUSTER ADDSLOTSRANGE 0 16383");
    WAIT_UNTIL(strstr(server_text(server, "CLUSTER INFO"), "cluster_state:ok"), 15,
               "the cluster does not come up");
    needs_tracking(server);
    server_stop(server);
}

/* The server itself refuses, as it does for other commands. */
static void while_loading(void)
{
    struct server *server =
        start("loading-process-events-interval-bytes 1024\n", test_seed());
    struct server observer = *server;
    observer.connection = server_connect(server);
    server_config_set(server, "key-load-delay", "100");
    send_now(server->connection, "DEBUG RELOAD");
    WAIT_UNTIL(server_info_number(&observer, "loading") != 0, 5, "it does not load");
    const char *error = server_error(&observer, "UFFD.DIRTYRATE 1");
    CHECK(strncmp(error, "LOADING ", 8) == 0, "%s", error);
    server_config_set(&observer, "key-load-delay", "0");
    void *reply;
    CHECK(redisGetReply(server->connection, &reply) == REDIS_OK, "DEBUG RELOAD");
    server_stop(server);
}

/* What was measured is held against the limit. */
static void doctor_knows(void)
{
    uint64_t seed = test_seed();
    struct server *server = start("", seed);
    needs_tracking(server);
    server_config_set(server, "uffd.buffer-limit", "8mb");
    struct load *load = load_start(server, 4000, 100, seed + 1);
    redisReply *rate = server_ok(server, "UFFD.DIRTYRATE 2");
    load_stop(load);
    CHECK(answer(rate, "predicted_buffer_bytes") > 8 * MEGABYTE, "too few writes");
    redisReply *lines = server_ok(server, "UFFD.DOCTOR");
    bool warned = false;
    for (size_t i = 0; i < lines->elements; i++)
        warned |= strstr(lines->element[i]->str, "WARN buffer-limit: 8 MB, but ") &&
                  strstr(lines->element[i]->str, "CONFIG SET uffd.buffer-limit ");
    CHECK(warned, "UFFD.DOCTOR does not warn");
    server_stop(server);
}

/* Switched off after it was asked for, before the upkeep thread has begun. */
static void switched_off_meanwhile(void)
{
    struct server *server = start("", test_seed());
    needs_tracking(server);
    server_ok(server, "UFFD.FAULT held_upkeep on");
    sleep_msec(1500); /* it has come back from earlier chores, and waits */
    redisContext *asks = server_connect(server);
    send_now(asks, "UFFD.DIRTYRATE 1");
    WAIT_UNTIL(server_info_number(server, "blocked_clients") == 1, 5, "it does not wait");
    server_config_set(server, "uffd.enabled", "no");
    server_ok(server, "UFFD.FAULT held_upkeep off");
    void *reply = NULL;
    CHECK(redisGetReply(asks, &reply) == REDIS_OK, "no answer: %s", asks->errstr);
    redisReply *answered = reply;
    CHECK(answered->type == REDIS_REPLY_ERROR && strstr(answered->str, "switched off"),
          "measured all the same");
    server_config_set(server, "uffd.enabled", "yes");
    server_ok(server, "UFFD.DIRTYRATE 1");
    server_stop(server);
}

/* A save that ends early says nothing of how long the next one takes. */
static void failed_save_does_not_count(void)
{
    struct server *server = start("", test_seed());
    needs_tracking(server);
    server_config_set(server, "rdb-key-save-delay", "50");
    server_save(server);
    double took = number(server, "last_save_msec");
    CHECK(took > 1000, "the save took %.0f ms only", took);
    server_ok(server, "UFFD.FAULT output_write on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save did not fail");
    CHECK(number(server, "last_save_msec") < took, "the failed save took as long");
    redisReply *rate = server_ok(server, "UFFD.DIRTYRATE 1");
    CHECK(answer(rate, "save_msec") == (long long)took, "predicted for %lld ms, not %.0f",
          answer(rate, "save_msec"), took);
    server_stop(server);
}

/* The client that asked is gone: nothing waits for it. */
static void client_goes(void)
{
    struct server *server = start("", test_seed());
    needs_tracking(server);
    redisFree(ask(server, 2));
    WAIT_UNTIL(server_command(server, "UFFD.DIRTYRATE 1")->type != REDIS_REPLY_ERROR, 15,
               "the measurement never ends");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

static void refuses(struct server *server, const char *command, const char *why)
{
    const char *error = server_error(server, command);
    CHECK(strstr(error, why), "%s: \"%s\"", command, error);
}

static void asked_wrongly(void)
{
    struct server *server = start("", test_seed());
    needs_tracking(server);
    refuses(server, "UFFD.DIRTYRATE 0", "from 1 to 60");
    refuses(server, "UFFD.DIRTYRATE 61", "from 1 to 60");
    refuses(server, "UFFD.DIRTYRATE x", "not an integer");
    refuses(server, "UFFD.DIRTYRATE 1 2", "wrong number of arguments");
    server_ok(server, "MULTI");
    server_ok(server, "UFFD.DIRTYRATE 1");
    redisReply *replies = server_ok(server, "EXEC");
    CHECK(replies->elements == 1 && replies->element[0]->type == REDIS_REPLY_ERROR &&
              strstr(replies->element[0]->str, "transaction"),
          "in a transaction");
    refuses(server, "EVAL return(redis.call('UFFD.DIRTYRATE')) 0",
            "not allowed from script");
    redisContext *other = ask(server, 3);
    refuses(server, "UFFD.DIRTYRATE 1", "running already");
    CHECK(server_command(server, "MODULE UNLOAD uffd")->type == REDIS_REPLY_ERROR,
          "unloaded while it measures");
    redisFree(other);
    needs_tracking(server);
    server_config_set(server, "rdb-key-save-delay", "10");
    server_save_start(server);
    refuses(server, "UFFD.DIRTYRATE 1", "a background save is running");
    CHECK(server_save_wait(server), "the save failed");
    server_config_set(server, "uffd.enabled", "no");
    refuses(server, "UFFD.DIRTYRATE 1", "uffd.enabled");
    server_stop(server);
}

static void kernel_cannot(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = "save \"\"\n", .fault = "no_dirty_tracking"});
    refuses(server, "UFFD.DIRTYRATE 1", "Linux 6.7");
    server_save(server);
    check_fork_free(server, 1);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"predicts_mixed_writes", predicts_mixed_writes, 60},
        {"predicts_from_less", predicts_from_less, 60},
        {"predicts_changes_in_place", predicts_changes_in_place, 60},
        {"reads_are_no_writes", reads_are_no_writes, 60},
        {"quiet_server", quiet_server, 30},
        {"save_wins", save_wins, 120},
        {"client_goes", client_goes, 30},
        {"switched_off_meanwhile", switched_off_meanwhile, 30},
        {"failed_save_does_not_count", failed_save_does_not_count, 30},
        {"asked_wrongly", asked_wrongly, 60},
        {"kernel_cannot", kernel_cannot, 30},
        {"on_replica", on_replica, 30},
        {"in_cluster", in_cluster, 30},
        {"while_loading", while_loading, 30},
        {"doctor_knows", doctor_knows, 30},
        {0},
    };
    return test_run("dirty_rate", cases, argc, argv);
}
