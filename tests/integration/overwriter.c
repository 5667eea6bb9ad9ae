#include "overwriter.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* After every batch: two CPUs are shared with the server and its saver. */
#define REST_USEC    300
#define PIPELINE     16
#define RECORD_MAX   8192
#define FILL_AT_ONCE 1000

struct overwriter {
    pthread_t thread;
    redisContext *connection;
    uint64_t random;
    int keys;
    size_t bytes;
    enum overwrite_how how;
    _Atomic bool stop;
    _Atomic long commands;
    double worst_msec;
    char value[RECORD_MAX];
};

/* Words, numbers and field names as they come in practice. */
size_t json_record(uint64_t *random, char *to, size_t bytes)
{
    static const char *const words[] = {"delivery", "order",   "before",   "noon",
                                        "please",   "call",    "left",     "invoice",
                                        "gift",     "fragile", "address",  "new",
                                        "contact",  "door",    "returned", "customer"};
    uint64_t a = random_next(random), b = random_next(random);
    size_t at = (size_t)snprintf(
        to, bytes,
        "{\"id\":%u,\"session\":\"%08x-%08x\",\"email\":\"user%u@example.com\","
        "\"created\":\"2024-%02u-%02uT%02u:%02u:%02uZ\",\"balance\":%u.%02u,"
        "\"active\":%s,\"items\":[",
        (unsigned)(a % 10000000), (unsigned)(a >> 32), (unsigned)b,
        (unsigned)(b >> 40) % 100000, (unsigned)(a % 12 + 1), (unsigned)(b % 28 + 1),
        (unsigned)(a % 24), (unsigned)(b % 60), (unsigned)(a % 60), (unsigned)(b % 9000),
        (unsigned)(a % 100), a & 4096 ? "true" : "false");
    while (at + bytes / 2 < bytes) {
        a = random_next(random);
        at +=
            (size_t)snprintf(to + at, bytes - at,
                             "{\"sku\":\"SKU-%06u\",\"quantity\":%u,\"price\":%u.%02u},",
                             (unsigned)(a % 1000000), (unsigned)(a >> 32) % 9 + 1,
                             (unsigned)(a >> 40) % 500, (unsigned)(a >> 50) % 100);
    }
    at += (size_t)snprintf(to + at, bytes - at, "],\"note\":\"");
    while (at + 16 < bytes)
        at +=
            (size_t)snprintf(to + at, bytes - at, "%s ", words[random_next(random) % 16]);
    at += (size_t)snprintf(to + at, bytes - at, "\"}");
    return at < bytes ? at : bytes - 1;
}

void take_replies(redisContext *connection, int count)
{
    redisReply *reply;
    for (int i = 0; i < count; i++) {
        CHECK(redisGetReply(connection, (void **)&reply) == REDIS_OK,
              "the server went away: %s", connection->errstr);
        CHECK(reply->type != REDIS_REPLY_ERROR, "%s", reply->str);
        freeReplyObject(reply);
    }
}

void json_fill(redisContext *connection, int keys, size_t bytes, uint64_t seed)
{
    char value[RECORD_MAX];
    int pending = 0;
    for (int i = 0; i < keys; i++) {
        size_t length = json_record(&seed, value, bytes);
        redisAppendCommand(connection, "SET json:%d %b", i, value, length);
        if (++pending == FILL_AT_ONCE) {
            take_replies(connection, pending);
            pending = 0;
        }
    }
    take_replies(connection, pending);
}

static void send_one(struct overwriter *self)
{
    int key = (int)(random_next(&self->random) % (unsigned)self->keys);
    if (self->how == OVERWRITE_IN_PLACE) {
        redisAppendCommand(self->connection, "SETRANGE json:%d %d %06u", key,
                           (int)(random_next(&self->random) % (self->bytes / 2)),
                           (unsigned)(random_next(&self->random) % 1000000));
        return;
    }
    size_t length = json_record(&self->random, self->value, self->bytes);
    redisAppendCommand(self->connection, "SET json:%d %b", key, self->value, length);
}

static void *overwrite(void *argument)
{
    struct overwriter *self = argument;
    while (!atomic_load(&self->stop)) {
        double began = clock_seconds();
        for (int i = 0; i < PIPELINE; i++)
            send_one(self);
        take_replies(self->connection, PIPELINE);
        double msec = (clock_seconds() - began) * 1000;
        if (msec > self->worst_msec)
            self->worst_msec = msec;
        atomic_fetch_add(&self->commands, PIPELINE);
        usleep(REST_USEC);
    }
    redisFree(self->connection);
    return NULL;
}

struct overwriter *overwriter_start(struct server *server, int keys, size_t bytes,
                                    enum overwrite_how how, uint64_t seed)
{
    struct overwriter *self = calloc(1, sizeof *self);
    self->connection = server_connect(server);
    self->random = seed;
    self->keys = keys;
    self->bytes = bytes;
    self->how = how;
    CHECK(bytes <= RECORD_MAX, "records are too long");
    CHECK(pthread_create(&self->thread, NULL, overwrite, self) == 0, "no thread");
    return self;
}

long overwriter_commands(struct overwriter *overwriter)
{
    return atomic_load(&overwriter->commands);
}

long overwriter_stop(struct overwriter *overwriter, double *worst_msec)
{
    atomic_store(&overwriter->stop, true);
    pthread_join(overwriter->thread, NULL);
    if (worst_msec)
        *worst_msec = overwriter->worst_msec;
    return atomic_load(&overwriter->commands);
}

/* ---- the kernel's view ----------------------------------------------------------- */

static size_t rolled_up(struct server *server, const char *field)
{
    FILE *file = fopen(format_text("/proc/%d/smaps_rollup", server->pid), "r");
    char line[256], name[32];
    size_t kilobytes = 0;
    bool found = false;
    CHECK(file, "no smaps_rollup");
    while (!found && fgets(line, sizeof line, file))
        found = sscanf(line, "%31[^:]: %zu kB", name, &kilobytes) == 2 &&
                strcmp(name, field) == 0;
    fclose(file);
    CHECK(found, "smaps_rollup has no %s", field);
    return kilobytes << 10;
}

size_t process_resident(struct server *server)
{
    return rolled_up(server, "Rss");
}

size_t process_huge(struct server *server)
{
    return rolled_up(server, "AnonHugePages");
}

int process_mappings(struct server *server)
{
    FILE *file = fopen(format_text("/proc/%d/maps", server->pid), "r");
    int lines = 0;
    CHECK(file, "no maps");
    for (int byte; (byte = fgetc(file)) != EOF;)
        lines += byte == '\n';
    fclose(file);
    return lines;
}
