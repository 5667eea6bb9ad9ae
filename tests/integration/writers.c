#include "writers.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fill.h"

#define PIPELINE    16
#define VALUE_MAX   (64 * 1024)
#define HUGE_MAX    (12 * 1024 * 1024)
#define HUGE_KEYS   4
#define ENTRIES     200 /* stream entries that fill() made have IDs up to this */
#define THREADS_MAX 32

struct writer {
    struct writers *owner;
    pthread_t thread;
    redisContext *connection;
    uint64_t random;
    int pending;
    char value[VALUE_MAX];
};

struct writers {
    _Atomic bool stop;
    _Atomic long commands;
    _Atomic long pace; /* commands a second and connection, 0: no bound */
    bool field_times;  /* the server knows expiring fields */
    int count;         /* keys of each kind */
    int threads;
    struct writer *writer[THREADS_MAX];
};

static int below(struct writer *writer, int limit)
{
    return (int)(random_next(&writer->random) % (unsigned)limit);
}

static int key(struct writer *writer)
{
    return below(writer, writer->owner->count);
}

static void send(struct writer *writer, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    redisvAppendCommand(writer->connection, format, list);
    va_end(list);
    writer->pending++;
}

static const char *value_of(struct writer *writer, size_t length)
{
    if (below(writer, 2))
        random_text(&writer->random, writer->value, length);
    else
        random_bytes(&writer->random, writer->value, length);
    return writer->value;
}

static size_t any_length(struct writer *writer)
{
    int dice = below(writer, 100);
    return (size_t)(dice < 70   ? below(writer, 60)
                    : dice < 98 ? below(writer, 2000)
                                : below(writer, 20000));
}

/* ---- one function a kind of change ---- */

static void write_string(struct writer *writer)
{
    size_t length = any_length(writer);
    const char *value = value_of(writer, length);
    switch (below(writer, 8)) {
    case 0:
        send(writer, "SETRANGE string:%d %d %b", key(writer), below(writer, 300), value,
             length);
        break;
    case 1:
        send(writer, "APPEND string:%d %b", key(writer), value, length / 4);
        break;
    case 2:
        send(writer, "INCRBY counter:%d %d", key(writer), below(writer, 1000) - 500);
        break;
    case 3:
        send(writer, "SETBIT bits:%d %d 1", below(writer, 4), below(writer, 200000));
        break;
    case 4:
        send(writer, "INCRBYFLOAT counter:%d 1.5", key(writer));
        break;
    case 5: /* the bulk of the data, changed in place */
        send(writer, "SETRANGE key:%d %d x%d", below(writer, 20000), below(writer, 900),
             below(writer, 1000));
        break;
    default:
        send(writer, "SET string:%d %b", key(writer), value, length);
        send(writer, "SET counter:%d %d", key(writer), below(writer, 20000));
    }
}

static void write_list(struct writer *writer)
{
    size_t length = any_length(writer) / 4;
    const char *value = value_of(writer, length);
    switch (below(writer, 6)) {
    case 0:
        send(writer, "LSET list:%d %d %b", key(writer), below(writer, 6) - 3, value,
             length);
        break;
    case 1:
        send(writer, "LTRIM list:%d 0 150", key(writer));
        break;
    case 2:
        send(writer, "LPOP list:%d", key(writer));
        break;
    case 3:
        send(writer, "LMOVE list:%d list:%d LEFT RIGHT", key(writer), key(writer));
        break;
    case 4:
        send(writer, "LPUSH list:%d %d", key(writer), below(writer, 100000));
        break;
    default:
        send(writer, "RPUSH list:%d %b", key(writer), value, length);
    }
}

static void write_set(struct writer *writer)
{
    switch (below(writer, 4)) {
    case 0:
        send(writer, "SADD set:%d %d", key(writer), below(writer, 500));
        break;
    case 1:
        send(writer, "SADD set:%d member-%d", key(writer), below(writer, 500));
        break;
    case 2:
        send(writer, "SREM set:%d %d", key(writer), below(writer, 500));
        break;
    default:
        send(writer, "SMOVE set:%d set:%d %d", key(writer), key(writer),
             below(writer, 500));
    }
}

/* What becomes of the times of fields, in small hashes and in large ones. Errors, as
 * of HPERSIST for a key that is no hash, are the server's answer as any other. */
static void write_field_times(struct writer *writer)
{
    bool few = below(writer, 2);
    const char *name = few ? "few" : "hash";
    int number = key(writer), field = below(writer, few ? 20 : 300);
    int seconds = 100000 + below(writer, 100000);
    switch (below(writer, 8)) {
    case 0:
        send(writer, "HPERSIST %s:%d FIELDS 1 field-%d", name, number, field);
        break;
    case 1:
        send(writer, "HDEL %s:%d field-%d", name, number, field);
        break;
    case 2:
        send(writer, "HEXPIRE %s:%d %d FIELDS 2 field-%d field-%d", name, number, seconds,
             field, field + 1);
        break;
    case 3:
        send(writer, "HSETEX %s:%d EX %d FIELDS 1 field-%d %d", name, number, seconds,
             field, below(writer, 70000));
        break;
    case 4: /* loses the field's time */
        send(writer, "HSET %s:%d field-%d %d", name, number, field, seconds);
        break;
    case 5: /* in the past: the field goes at once */
        send(writer, "HPEXPIREAT %s:%d 1 FIELDS 1 field-%d", name, number, field);
        break;
    default:
        send(writer, "HSET %s:%d field-%d %d", name, number, field, number);
        send(writer, "HPEXPIRE %s:%d %d000 FIELDS 1 field-%d", name, number, seconds,
             field);
    }
}

static void write_hash(struct writer *writer)
{
    if (writer->owner->field_times && below(writer, 2)) {
        write_field_times(writer);
        return;
    }
    size_t length = any_length(writer) / 8;
    switch (below(writer, 4)) {
    case 0:
        send(writer, "HINCRBY hash:%d field-%d 7", key(writer), below(writer, 300));
        break;
    case 1:
        send(writer, "HDEL hash:%d field-%d", key(writer), below(writer, 300));
        break;
    default:
        send(writer, "HSET hash:%d field-%d %b", key(writer), below(writer, 300),
             value_of(writer, length), length);
    }
}

static void write_sorted_set(struct writer *writer)
{
    switch (below(writer, 5)) {
    case 0:
        send(writer, "ZINCRBY zset:%d 0.5 member-%d", key(writer), below(writer, 300));
        break;
    case 1:
        send(writer, "ZREM zset:%d member-%d", key(writer), below(writer, 300));
        break;
    case 2:
        send(writer, "ZREMRANGEBYRANK zset:%d 0 3", key(writer));
        break;
    default:
        send(writer, "ZADD zset:%d %d.25 member-%d", key(writer), below(writer, 100000),
             below(writer, 300));
    }
}

static void write_stream(struct writer *writer)
{
    int group = below(writer, 3);
    size_t length = any_length(writer) / 8;
    switch (below(writer, 8)) {
    case 0:
        send(writer, "XDEL stream:%d %d-1", key(writer), 1 + below(writer, ENTRIES));
        break;
    case 1:
        send(writer, "XACK stream:%d group-%d %d-1", key(writer), group,
             1 + below(writer, ENTRIES));
        break;
    case 2:
        send(writer, "XREADGROUP GROUP group-%d consumer-%d COUNT 5 STREAMS stream:%d >",
             group, below(writer, 5), key(writer));
        break;
    case 3:
        send(writer, "XAUTOCLAIM stream:%d group-%d consumer-%d 0 0 COUNT 3", key(writer),
             group, below(writer, 5));
        break;
    case 4:
        send(writer, "XGROUP CREATE stream:%d group-%d 0", key(writer), group);
        break;
    case 5:
        if (below(writer, 4) == 0)
            send(writer, "XGROUP DELCONSUMER stream:%d group-%d consumer-%d", key(writer),
                 group, below(writer, 5));
        break;
    default:
        send(writer, "XADD stream:%d MAXLEN ~ 300 * f %b", key(writer),
             value_of(writer, length), length);
    }
}

static void change_keys(struct writer *writer)
{
    static const char *const kinds[] = {"string", "list", "set",
                                        "hash",   "zset", "stream"};
    const char *kind = kinds[below(writer, 6)];
    switch (below(writer, 8)) {
    case 0:
        send(writer, "DEL %s:%d", kind, key(writer));
        break;
    case 1:
        send(writer, "UNLINK %s:%d", kind, key(writer));
        break;
    case 2:
    case 3:
        send(writer, "EXPIRE %s:%d %d", kind, key(writer),
             100000 + below(writer, 100000));
        break;
    case 4:
        send(writer, "PERSIST %s:%d", kind, key(writer));
        break;
    case 5:
        send(writer, "RENAME %s:%d %s:%d", kind, key(writer), kind, key(writer));
        break;
    default:
        send(writer, "COPY %s:%d %s:%d REPLACE", kind, key(writer), kind, key(writer));
    }
}

static void store_results(struct writer *writer)
{
    switch (below(writer, 4)) {
    case 0:
        send(writer, "SORT list:%d ALPHA STORE list:%d", key(writer), key(writer));
        break;
    case 1:
        send(writer, "SORT set:%d ALPHA LIMIT 0 50 STORE list:%d", key(writer),
             key(writer));
        break;
    case 2:
        send(writer, "SDIFFSTORE set:%d set:%d set:%d", key(writer), key(writer),
             key(writer));
        break;
    default:
        send(writer, "ZINTERSTORE zset:%d 2 zset:%d zset:%d", key(writer), key(writer),
             key(writer));
    }
}

static void change_huge(struct writer *writer)
{
    int number = below(writer, HUGE_KEYS);
    switch (below(writer, 6)) {
    case 0:
        send(writer, "SET huge:%d small", number);
        break;
    case 1:
        send(writer, "%s huge:%d", below(writer, 2) ? "DEL" : "UNLINK", number);
        break;
    case 2:
        send(writer, "SETRANGE huge:%d %d end", number, below(writer, HUGE_MAX));
        break;
    default:
        send(writer, "SETRANGE huge:%d %d %b", number, below(writer, HUGE_MAX),
             value_of(writer, VALUE_MAX), (size_t)VALUE_MAX);
    }
}

/* Databases 2 and 3 are those that are emptied, and filled again. */
static void change_database(struct writer *writer)
{
    switch (below(writer, 6)) {
    case 0:
        send(writer, "SWAPDB 0 1");
        break;
    case 1:
        send(writer, "SWAPDB 2 3");
        break;
    case 2:
        send(writer, "SELECT %d", 2 + below(writer, 2));
        send(writer, "FLUSHDB %s", below(writer, 2) ? "ASYNC" : "SYNC");
        break;
    default:
        send(writer, "SELECT 2");
        for (int i = 0; i < 50; i++) {
            send(writer, "MSET string:%d a%d counter:%d %d", i, i, i, i);
            send(writer, "HSET hash:%d field-%d %d", i, below(writer, 300), i);
        }
        send(writer, "MOVE string:%d 3", below(writer, 50));
    }
    send(writer, "SELECT 0");
}

static void change_server(struct writer *writer)
{
    if (below(writer, 2))
        send(writer, "MEMORY PURGE");
    else
        send(writer, "FUNCTION LOAD REPLACE %s%d",
             "#!lua name=changing\n"
             "redis.register_function('changing', function() return 1 end) -- ",
             below(writer, 1000));
}

/* ---- the loop ---- */

static void change_something(struct writer *writer)
{
    static const struct {
        int weight;
        void (*change)(struct writer *writer);
    } changes[] = {{2500, write_string},  {1200, write_list},       {1000, write_set},
                   {1500, write_hash},    {1200, write_sorted_set}, {1200, write_stream},
                   {900, change_keys},    {400, store_results},     {60, change_huge},
                   {30, change_database}, {10, change_server}};
    int dice = below(writer, 10000);
    for (int i = 0;; i++) {
        dice -= changes[i].weight;
        if (dice < 0) {
            changes[i].change(writer);
            return;
        }
    }
}

static bool drain(struct writer *writer)
{
    for (; writer->pending; writer->pending--) {
        redisReply *reply;
        if (redisGetReply(writer->connection, (void **)&reply) != REDIS_OK)
            return false;
        freeReplyObject(reply);
        atomic_fetch_add_explicit(&writer->owner->commands, 1, memory_order_relaxed);
    }
    return true;
}

static void keep_pace(struct writer *writer, double *due)
{
    long pace = atomic_load_explicit(&writer->owner->pace, memory_order_relaxed);
    double now = clock_seconds();
    /* What was missed is not made up for. */
    if (*due < now)
        *due = now;
    if (pace)
        *due += (double)writer->pending / (double)pace;
    if (*due > now)
        sleep_msec((int)((*due - now) * 1000));
}

static void *write_until_stopped(void *argument)
{
    struct writer *writer = argument;
    double due = 0;
    while (!atomic_load_explicit(&writer->owner->stop, memory_order_relaxed)) {
        while (writer->pending < PIPELINE)
            change_something(writer);
        keep_pace(writer, &due);
        /* A server that is gone is the case's business, not ours. */
        if (!drain(writer))
            break;
    }
    return NULL;
}

struct writers *writers_start(struct server *server, int connections, int count,
                              uint64_t seed)
{
    struct writers *writers = calloc(1, sizeof *writers);
    CHECK(writers && connections <= THREADS_MAX, "too many writers");
    writers->count = count;
    writers->threads = connections;
    writers->field_times = server_knows(server, "hpexpire");
    for (int i = 0; i < connections; i++) {
        struct writer *writer = calloc(1, sizeof *writer);
        CHECK(writer, "no memory");
        writer->owner = writers;
        writer->random = seed + (uint64_t)i;
        writer->connection = server_connect(server);
        writers->writer[i] = writer;
        CHECK(pthread_create(&writer->thread, NULL, write_until_stopped, writer) == 0,
              "no thread");
    }
    return writers;
}

void writers_pace(struct writers *writers, long per_second)
{
    long pace = per_second / writers->threads;
    atomic_store_explicit(&writers->pace, per_second && !pace ? 1 : pace,
                          memory_order_relaxed);
}

long writers_commands(struct writers *writers)
{
    return atomic_load_explicit(&writers->commands, memory_order_relaxed);
}

long writers_stop(struct writers *writers)
{
    atomic_store_explicit(&writers->stop, true, memory_order_relaxed);
    for (int i = 0; i < writers->threads; i++) {
        pthread_join(writers->writer[i]->thread, NULL);
        redisFree(writers->writer[i]->connection);
        free(writers->writer[i]);
    }
    long commands = writers_commands(writers);
    free(writers);
    return commands;
}

pid_t garbage_start(struct server *server, size_t bytes)
{
    pid_t child = fork();
    CHECK(child >= 0, "fork");
    if (child)
        return child;
    redisContext *connection = server_connect(server);
    char *value = malloc(bytes);
    memset(value, 'x', bytes);
    for (int i = 0;; i++) {
        freeReplyObject(
            redisCommand(connection, "SET garbage:%d %b", i % 16, value, bytes));
        freeReplyObject(redisCommand(connection, "UNLINK garbage:%d", (i + 8) % 16));
    }
}
