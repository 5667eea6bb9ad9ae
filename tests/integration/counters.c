#include "counters.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define CONNECTIONS_MAX 16
/* Which nobody else writes to, or flushes. */
#define DATABASE 9

struct counter {
    pthread_t thread;
    struct counters *all;
    redisContext *connection;
    int number;
    long incremented; /* acknowledged */
    long appended;
    long prepended;
};

struct counters {
    struct counter each[CONNECTIONS_MAX];
    int count;
    atomic_bool stopping;
};

/* False when the server is gone. */
static bool send_command(redisContext *connection, const char *format, int number,
                         long value, long *answer)
{
    redisReply *reply = redisCommand(connection, format, number, value);
    bool good = reply && reply->type == REDIS_REPLY_INTEGER;
    if (good)
        *answer = (long)reply->integer;
    if (reply)
        freeReplyObject(reply);
    return good;
}

static void *run(void *argument)
{
    struct counter *counter = argument;
    while (!atomic_load(&counter->all->stopping)) {
        long answer;
        if (!send_command(counter->connection, "INCR count:%d", counter->number, 0,
                          &answer))
            break;
        counter->incremented = answer;
        if (!send_command(counter->connection, "RPUSH counted-up:%d %ld", counter->number,
                          counter->incremented, &answer))
            break;
        counter->appended = answer;
        if (!send_command(counter->connection, "LPUSH counted-down:%d %ld",
                          counter->number, counter->incremented, &answer))
            break;
        counter->prepended = answer;
    }
    return NULL;
}

static void start_all(struct counters *counters, struct server *server)
{
    atomic_store(&counters->stopping, false);
    for (int i = 0; i < counters->count; i++) {
        counters->each[i].connection = server_connect(server);
        freeReplyObject(
            redisCommand(counters->each[i].connection, "SELECT %d", DATABASE));
        int error =
            pthread_create(&counters->each[i].thread, NULL, run, &counters->each[i]);
        CHECK(!error, "no thread");
    }
}

struct counters *counters_start(struct server *server, int connections)
{
    struct counters *counters = calloc(1, sizeof(*counters));
    CHECK(counters && connections <= CONNECTIONS_MAX, "no memory");
    counters->count = connections;
    for (int i = 0; i < connections; i++) {
        counters->each[i].all = counters;
        counters->each[i].number = i;
    }
    start_all(counters, server);
    return counters;
}

void counters_join(struct counters *counters)
{
    for (int i = 0; i < counters->count; i++) {
        pthread_join(counters->each[i].thread, NULL);
        redisFree(counters->each[i].connection);
    }
}

void counters_stop(struct counters *counters)
{
    atomic_store(&counters->stopping, true);
    counters_join(counters);
    for (int i = 0; i < counters->count; i++)
        CHECK(counters->each[i].incremented > 20, "hardly anything was counted");
}

/* What comes later may be one behind. */
static void make_even(struct counter *counter, struct server *server)
{
    int i = counter->number;
    long least = (long)server_integer(server, "LLEN counted-down:%d", i);
    if (server_integer(server, "LLEN counted-up:%d", i) > least)
        server_ok(server, "RPOP counted-up:%d", i);
    server_ok(server, "SET count:%d %ld", i, least);
    counter->incremented = counter->appended = counter->prepended = least;
}

void counters_go_on(struct counters *counters, struct server *server)
{
    server_ok(server, "SELECT %d", DATABASE);
    for (int i = 0; i < counters->count; i++)
        make_even(&counters->each[i], server);
    server_ok(server, "SELECT 0");
    start_all(counters, server);
}

static void check_within(const char *what, int number, long is, long acknowledged,
                         int unanswered)
{
    CHECK(is >= acknowledged && is <= acknowledged + unanswered,
          "%s:%d is %ld, %ld were acknowledged", what, number, is, acknowledged);
}

/* One number after the other: `from` is the first, `step` 1 or -1. */
static void check_list(struct server *server, const char *name, int number, long from,
                       long step)
{
    redisReply *list = server_ok(server, "LRANGE %s:%d 0 -1", name, number);
    for (size_t i = 0; i < list->elements; i++)
        CHECK(atol(list->element[i]->str) == from + step * (long)i,
              "%s:%d has %s at place %zu", name, number, list->element[i]->str, i);
}

void counters_check(struct counters *counters, struct server *server, int unanswered)
{
    server_ok(server, "SELECT %d", DATABASE);
    for (int i = 0; i < counters->count; i++) {
        const struct counter *counter = &counters->each[i];
        check_within("count", i, atol(server_text(server, "GET count:%d", i)),
                     counter->incremented, unanswered);
        long up = (long)server_integer(server, "LLEN counted-up:%d", i);
        check_within("counted-up", i, up, counter->appended, unanswered);
        check_list(server, "counted-up", i, 1, 1);
        long down = (long)server_integer(server, "LLEN counted-down:%d", i);
        check_within("counted-down", i, down, counter->prepended, unanswered);
        check_list(server, "counted-down", i, down, -1);
    }
    server_ok(server, "SELECT 0");
}
