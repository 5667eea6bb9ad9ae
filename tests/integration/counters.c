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

void counters_go_on(struct counters *counters, struct server *server)
{
    /* The list may be one behind the number: make them even. */
    server_ok(server, "SELECT %d", DATABASE);
    for (int i = 0; i < counters->count; i++) {
        struct counter *counter = &counters->each[i];
        counter->appended = (long)server_integer(server, "LLEN counted-up:%d", i);
        counter->incremented = counter->appended;
        server_ok(server, "SET count:%d %ld", i, counter->appended);
    }
    server_ok(server, "SELECT 0");
    start_all(counters, server);
}

static void check_within(const char *what, int number, long is, long acknowledged,
                         int unanswered)
{
    CHECK(is >= acknowledged && is <= acknowledged + unanswered,
          "%s:%d is %ld, %ld were acknowledged", what, number, is, acknowledged);
}

static void check_list(struct server *server, int number)
{
    redisReply *list = server_ok(server, "LRANGE counted-up:%d 0 -1", number);
    for (size_t i = 0; i < list->elements; i++)
        CHECK(atol(list->element[i]->str) == (long)i + 1,
              "counted-up:%d has %s at place %zu", number, list->element[i]->str, i);
}

void counters_check(struct counters *counters, struct server *server, int unanswered)
{
    server_ok(server, "SELECT %d", DATABASE);
    for (int i = 0; i < counters->count; i++) {
        const struct counter *counter = &counters->each[i];
        check_within("count", i, atol(server_text(server, "GET count:%d", i)),
                     counter->incremented, unanswered);
        check_within("counted-up", i,
                     (long)server_integer(server, "LLEN counted-up:%d", i),
                     counter->appended, unanswered);
        check_list(server, i);
    }
    server_ok(server, "SELECT 0");
}
