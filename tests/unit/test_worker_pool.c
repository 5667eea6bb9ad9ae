/* A pool against one thread alone: the same bytes in the same order, whoever walked
 * what; errors where one thread would have met them. Worth most under ThreadSanitizer
 * (make tsan). */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/thread.h"
#include "keyspace/worker_pool.h"

#define UNITS           40000
#define BIG_BYTES       (300 * 1024)
#define STANDSTILL_USEC 1500000

static struct view view;
static struct thread_cpus cpus;

/* ---- what is walked: the bytes of a unit follow from its number ------------------ */

struct content {
    uint64_t seed;
    uint64_t big_every; /* units that do not fit in a task, 0: none */
    uint64_t wrong;     /* the unit that cannot be read, UNITS: none */
    /* Units that only who may ask for modules' values can write, 0: none. */
    uint64_t asked_every;
    /* Threads but this one get no further for a while in every task; 0: all work. */
    pid_t only;
};

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

static size_t length_of(const struct content *content, uint64_t unit)
{
    if (content->big_every && unit % content->big_every == content->big_every - 1)
        return BIG_BYTES;
    return mix(unit + content->seed) % 100;
}

static int write_unit(struct rdb_encoder *encoder, const struct content *content,
                      uint64_t unit)
{
    unsigned char bytes[128];
    int error = rdb_encode_raw(encoder, &unit, sizeof(unit));
    memset(bytes, (int)(unit & 255), sizeof(bytes));
    for (size_t left = length_of(content, unit); left && !error;) {
        size_t piece = left < sizeof(bytes) ? left : sizeof(bytes);
        error = rdb_encode_raw(encoder, bytes, piece);
        left -= piece;
    }
    return error;
}

static int walk_units(struct walk *walk, uint64_t from, uint64_t to, const void *context)
{
    const struct content *content = context;
    if (content->only && content->only != thread_own_id())
        sleep_usec(STANDSTILL_USEC);
    for (uint64_t unit = from; unit < to; unit++) {
        walk->where = "a unit";
        if (unit == content->wrong) {
            walk->where = "the wrong unit";
            return -EBADMSG;
        }
        if (content->asked_every && unit % content->asked_every == 0 && !walk->values)
            return -ENOTSUP;
        int error = write_unit(walk->encoder, content, unit);
        if (error)
            return error;
        if (unit % 64 == 0)
            error = walk->observer->progress(walk->observer, walk->keys);
        walk->keys++;
        if (error)
            return error;
    }
    return 0;
}

/* ---- what comes out --------------------------------------------------------------- */

struct collecting_sink {
    struct rdb_sink sink;
    unsigned char *bytes;
    size_t length, capacity;
};

static int collect(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct collecting_sink *collecting = (struct collecting_sink *)sink;
    while (collecting->length + length > collecting->capacity) {
        collecting->capacity = collecting->capacity ? 2 * collecting->capacity : 1 << 20;
        collecting->bytes = realloc(collecting->bytes, collecting->capacity);
        assert_non_null(collecting->bytes);
    }
    memcpy(collecting->bytes + collecting->length, bytes, length);
    collecting->length += length;
    return 0;
}

/* ---- one save ---------------------------------------------------------------------- */

struct counting_observer {
    struct keyspace_observer observer;
    _Atomic uint64_t calls;
    uint64_t cancel_at;   /* keys, 0: never */
    uint64_t latest_usec; /* when keys were last seen */
    int answer;           /* to workers that ask before a task … */
    uint64_t one_in;      /* … once in so many calls */
};

static int watch(struct keyspace_observer *observer, uint64_t keys)
{
    struct counting_observer *counting = (struct counting_observer *)observer;
    atomic_fetch_add_explicit(&counting->calls, 1, memory_order_relaxed);
    counting->latest_usec = clock_usec();
    return counting->cancel_at && keys >= counting->cancel_at ? -ECANCELED : 0;
}

static int ask(struct keyspace_observer *observer, uint64_t keys)
{
    struct counting_observer *counting = (struct counting_observer *)observer;
    uint64_t calls = atomic_fetch_add_explicit(&counting->calls, 1, memory_order_relaxed);
    return keys || (counting->one_in && calls % counting->one_in) ? 0 : counting->answer;
}

struct outcome {
    int error;
    uint64_t keys;
    const char *where;
    struct collecting_sink output;
};

static void save(struct worker_pool *pool, const struct content *content,
                 struct counting_observer *own, struct counting_observer *workers,
                 struct outcome *outcome)
{
    memset(outcome, 0, sizeof(*outcome));
    outcome->output.sink.write = collect;
    struct rdb_encoder *encoder = rdb_encoder_create(&outcome->output.sink, NULL);
    struct value_source values = {0};
    struct walk walk = {
        .encoder = encoder,
        .observer = &own->observer,
        .values = content->asked_every ? &values : NULL,
        .pool = pool,
    };
    if (pool)
        assert_int_equal(worker_pool_begin(pool, &view, NULL, &workers->observer, &cpus),
                         0);
    outcome->error = worker_pool_walk(&walk, UNITS, 16, walk_units, content);
    if (pool) {
        assert_ptr_equal(walk.pool, pool);
        worker_pool_end(pool);
    }
    if (!outcome->error)
        assert_int_equal(rdb_encoder_flush(encoder), 0);
    outcome->keys = walk.keys;
    outcome->where = walk.where;
    rdb_encoder_destroy(encoder);
}

static void save_simply(struct worker_pool *pool, const struct content *content,
                        struct outcome *outcome)
{
    struct counting_observer own = {.observer.progress = watch};
    struct counting_observer workers = {.observer.progress = ask};
    save(pool, content, &own, &workers, outcome);
}

static void compare_with_one(struct worker_pool *pool, const struct content *content)
{
    struct outcome alone, together;
    save_simply(NULL, content, &alone);
    save_simply(pool, content, &together);
    assert_int_equal(alone.error, 0);
    assert_int_equal(together.error, 0);
    assert_int_equal(alone.keys, UNITS);
    assert_int_equal(together.keys, UNITS);
    assert_int_equal(together.output.length, alone.output.length);
    assert_memory_equal(together.output.bytes, alone.output.bytes, alone.output.length);
    free(alone.output.bytes);
    free(together.output.bytes);
}

static uint64_t seed(void)
{
    const char *given = getenv("SEED");
    uint64_t value = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    fprintf(stderr, "SEED=%llu\n", (unsigned long long)value);
    return value;
}

static struct worker_pool *pool_of(unsigned workers)
{
    struct worker_pool *pool = worker_pool_create();
    assert_non_null(pool);
    thread_get_cpus(0, &cpus);
    assert_int_equal(worker_pool_resize(pool, workers), workers);
    assert_int_equal(worker_pool_size(pool), workers);
    return pool;
}

/* ---- tests ------------------------------------------------------------------------- */

static void in_order(void **state)
{
    (void)state;
    uint64_t start = seed();
    for (unsigned workers = 0; workers <= 5; workers++) {
        struct worker_pool *pool = pool_of(workers);
        for (uint64_t i = 0; i < 5; i++)
            compare_with_one(pool, &(struct content){.seed = start + i, .wrong = UNITS});
        worker_pool_destroy(pool);
    }
}

static void more_than_a_task_holds(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(3);
    uint64_t start = seed();
    compare_with_one(pool,
                     &(struct content){.seed = start, .big_every = 1000, .wrong = UNITS});
    compare_with_one(pool,
                     &(struct content){.seed = start, .big_every = 170, .wrong = UNITS});
    worker_pool_destroy(pool);
}

static void values_that_one_thread_asks_for(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(3);
    uint64_t start = seed();
    for (uint64_t every = 1; every < UNITS; every *= 12)
        compare_with_one(
            pool, &(struct content){.seed = start, .asked_every = every, .wrong = UNITS});
    worker_pool_destroy(pool);
}

/* All before the wrong unit may be out, nothing after it; and the pool is fit for the
 * next save. */
static void errors_come_in_order(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(3);
    uint64_t start = seed();
    for (uint64_t i = 0; i < 20; i++) {
        struct content content = {.seed = start + i, .wrong = mix(start + i) % UNITS};
        struct outcome alone, together;
        save_simply(NULL, &content, &alone);
        save_simply(pool, &content, &together);
        assert_int_equal(alone.error, -EBADMSG);
        assert_int_equal(together.error, -EBADMSG);
        assert_string_equal(together.where, "the wrong unit");
        assert_true(together.keys <= content.wrong);
        size_t common = alone.output.length < together.output.length
                            ? alone.output.length
                            : together.output.length;
        if (common)
            assert_memory_equal(together.output.bytes, alone.output.bytes, common);
        free(alone.output.bytes);
        free(together.output.bytes);
    }
    compare_with_one(pool, &(struct content){.seed = start, .wrong = UNITS});
    worker_pool_destroy(pool);
}

static void cancelled(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(3);
    struct content content = {.seed = seed(), .wrong = UNITS};
    struct counting_observer workers = {.observer.progress = ask};
    struct outcome outcome;
    for (uint64_t at = 1; at < UNITS - UNITS / 7; at += UNITS / 7) {
        struct counting_observer own = {.observer.progress = watch, .cancel_at = at};
        save(pool, &content, &own, &workers, &outcome);
        assert_int_equal(outcome.error, -ECANCELED);
        free(outcome.output.bytes);
    }
    compare_with_one(pool, &content);
    worker_pool_destroy(pool);
}

/* All of it is saved, whatever the workers are told. */
static void check_saved_with(struct worker_pool *pool, int answer, uint64_t one_in)
{
    struct content content = {.seed = seed(), .wrong = UNITS};
    struct counting_observer own = {.observer.progress = watch};
    struct counting_observer workers = {
        .observer.progress = ask, .answer = answer, .one_in = one_in};
    struct outcome outcome;
    save(pool, &content, &own, &workers, &outcome);
    assert_int_equal(outcome.error, 0);
    assert_int_equal(outcome.keys, UNITS);
    free(outcome.output.bytes);
}

/* Workers that are always to rest cost nothing but their help; those that are told to
 * stop do no harm either. */
static void workers_that_do_not_help(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(2);
    check_saved_with(pool, -EAGAIN, 0);
    check_saved_with(pool, -ECANCELED, 0);
    worker_pool_destroy(pool);
}

/* … and in the middle of a task there is no rest. */
static void workers_that_rest(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(2);
    for (uint64_t one_in = 2; one_in < 20; one_in++)
        check_saved_with(pool, -EAGAIN, one_in);
    worker_pool_destroy(pool);
}

/* A worker that has taken a task and does not run: the task is taken from it. */
static void workers_that_stand_still(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(2);
    struct content content = {.seed = seed(), .wrong = UNITS, .only = thread_own_id()};
    struct outcome alone, together;
    save_simply(NULL, &content, &alone);
    for (int i = 0; i < 2; i++) {
        struct counting_observer own = {.observer.progress = watch};
        struct counting_observer workers = {.observer.progress = ask};
        uint64_t began = clock_usec();
        save(pool, &content, &own, &workers, &together);
        assert_int_equal(together.error, 0);
        assert_int_equal(together.keys, UNITS);
        assert_true(own.latest_usec - began < STANDSTILL_USEC / 2);
        assert_int_equal(together.output.length, alone.output.length);
        assert_memory_equal(together.output.bytes, alone.output.bytes,
                            alone.output.length);
        free(together.output.bytes);
    }
    free(alone.output.bytes);
    worker_pool_destroy(pool);
}

/* Of workers: tasks in which one was let run like others; ended without. */
static _Atomic unsigned hurried, starved;

static int wait_for_hurry(struct walk *walk, uint64_t from, uint64_t to,
                          const void *context)
{
    const struct content *content = context;
    uint64_t until = clock_usec() + STANDSTILL_USEC;
    if (content->only == thread_own_id())
        return walk_units(walk, from, to, context);
    while (sched_getscheduler(0) != SCHED_OTHER && clock_usec() < until)
        sleep_usec(1000);
    atomic_fetch_add(sched_getscheduler(0) == SCHED_OTHER ? &hurried : &starved, 1);
    return 0;
}

/* They run when nobody else wants to, until all else is done and the end waits for
 * them. */
static void workers_are_hurried(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(1);
    struct content content = {.seed = seed(), .wrong = UNITS, .only = thread_own_id()};
    struct counting_observer own = {.observer.progress = watch};
    struct counting_observer workers = {.observer.progress = ask};
    struct collecting_sink output = {.sink.write = collect};
    struct walk walk = {.observer = &own.observer, .pool = pool};
    hurried = starved = 0;
    for (int round = 0; round < 10 && !hurried && !starved; round++) {
        walk.encoder = rdb_encoder_create(&output.sink, NULL);
        assert_int_equal(worker_pool_begin(pool, &view, NULL, &workers.observer, &cpus),
                         0);
        assert_int_equal(worker_pool_walk(&walk, UNITS, 16, wait_for_hurry, &content), 0);
        worker_pool_end(pool);
        rdb_encoder_destroy(walk.encoder);
    }
    assert_true(hurried);
    assert_int_equal(starved, 0);
    free(output.bytes);
    worker_pool_destroy(pool);
}

static void workers_come_and_go(void **state)
{
    (void)state;
    struct worker_pool *pool = pool_of(1);
    uint64_t start = seed();
    for (uint64_t i = 0; i < 12; i++) {
        unsigned workers = (unsigned)(mix(start + i) % 6);
        assert_int_equal(worker_pool_resize(pool, workers), workers);
        compare_with_one(pool, &(struct content){.seed = start + i, .wrong = UNITS});
    }
    assert_int_equal(worker_pool_resize(pool, 1000), WORKERS_MAX);
    compare_with_one(pool, &(struct content){.seed = start, .wrong = UNITS});
    worker_pool_destroy(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order),
        cmocka_unit_test(more_than_a_task_holds),
        cmocka_unit_test(values_that_one_thread_asks_for),
        cmocka_unit_test(errors_come_in_order),
        cmocka_unit_test(cancelled),
        cmocka_unit_test(workers_that_do_not_help),
        cmocka_unit_test(workers_that_rest),
        cmocka_unit_test(workers_that_stand_still),
        cmocka_unit_test(workers_are_hurried),
        cmocka_unit_test(workers_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
