#include "load.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fill.h"

#define MOST_SECONDS 300
#define MOST_SAMPLES ((size_t)MOST_SECONDS * LOAD_PER_SECOND)
#define MOST_BYTES   4096

struct load {
    redisContext *connection;
    long keys;
    size_t value_bytes;
    uint64_t random;
    atomic_bool writes, stops;
    pthread_t thread;
    struct load_sample *samples;
    size_t count;
};

double now_seconds(void)
{
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void wait_until(double due)
{
    double left = due - now_seconds();
    if (left <= 0)
        return;
    struct timespec time = {.tv_nsec = (long)(left * 1e9)};
    nanosleep(&time, NULL);
}

static void append_command(struct load *load, bool writes)
{
    char value[MOST_BYTES];
    long key = (long)(random_next(&load->random) % (uint64_t)load->keys);
    if (writes) {
        random_text(&load->random, value, load->value_bytes);
        redisAppendCommand(load->connection, "SET key:%ld %b", key, value,
                           load->value_bytes);
    } else {
        redisAppendCommand(load->connection, "GET key:%ld", key);
    }
}

static bool run_batch(struct load *load)
{
    bool writes = atomic_load_explicit(&load->writes, memory_order_acquire);
    for (int i = 0; i < LOAD_BATCH; i++)
        append_command(load, writes);
    for (int i = 0; i < LOAD_BATCH; i++) {
        void *reply;
        if (redisGetReply(load->connection, &reply) != REDIS_OK)
            return false;
        freeReplyObject(reply);
    }
    return true;
}

static void *run(void *argument)
{
    struct load *load = argument;
    double due = now_seconds();
    while (load->count < MOST_SAMPLES &&
           !atomic_load_explicit(&load->stops, memory_order_acquire)) {
        wait_until(due);
        if (!run_batch(load))
            break;
        load->samples[load->count++] =
            (struct load_sample){due, (now_seconds() - due) * 1e3};
        due += 1.0 / LOAD_PER_SECOND;
    }
    return NULL;
}

struct load *load_start(struct server *server, long keys, size_t value_bytes,
                        uint64_t seed)
{
    CHECK(value_bytes <= MOST_BYTES, "a value of %zu bytes", value_bytes);
    struct load *load = calloc(1, sizeof *load);
    CHECK(load, "no memory");
    *load = (struct load){.connection = server_connect(server),
                          .keys = keys,
                          .value_bytes = value_bytes,
                          .random = seed,
                          .samples = calloc(MOST_SAMPLES, sizeof *load->samples)};
    CHECK(load->samples, "no memory");
    CHECK(pthread_create(&load->thread, NULL, run, load) == 0, "no thread");
    return load;
}

void load_write(struct load *load)
{
    atomic_store_explicit(&load->writes, true, memory_order_release);
}

struct load_sample *load_stop(struct load *load, size_t *count)
{
    atomic_store_explicit(&load->stops, true, memory_order_release);
    pthread_join(load->thread, NULL);
    *count = load->count;
    return load->samples;
}
