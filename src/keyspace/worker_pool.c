#include "keyspace/worker_pool.h"

#include <errno.h>
#include <stdio.h>

#include "kernel/contract.h"
#include "kernel/memory.h"
#include "kernel/thread.h"

/* A power of two: task numbers wrap around. */
#define TASKS          32
#define TASK_BYTES_MAX (128 * 1024)
/* What a task should come to: about a millisecond's work. */
#define TASK_BYTES_AIM (48 * 1024)
/* The server's LZF keeps 512 KB on the stack. */
#define STACK_BYTES (2 * 1024 * 1024)
#define WAIT_MSEC   10
#define REST_USEC   1000
/* So long the caller's thread waits for the oldest task when it has nothing else to
 * do; then it walks it itself. */
#define PATIENCE_MSEC 2
/* A task that took longer than this, and of which its thread had the CPU for less than
 * one part in so many: that thread stays away for a while, and twice as long each time it
 * finds no time again. */
#define STARVING_USEC      10000
#define STARVING_PART      8
#define STARVED_MSEC_LEAST 16
#define STARVED_MSEC_MOST  512

/* What is taken next, in one word so that taking is one step: no worker may stop
 * between two that belong together.
 *
 *   63       40 39                    0
 *   | number   | first unit           |   */
#define UNIT_BITS   40
#define UNIT_MASK   ((UINT64_C(1) << UNIT_BITS) - 1)
#define NUMBER_MASK ((1u << (64 - UNIT_BITS)) - 1)

/* There is one for each task that may be under way, and one for each worker besides,
 * which may still be writing to what was taken from it. */
#define RESULTS (TASKS + WORKERS_MAX)

enum result_state {
    RESULT_FREE,
    RESULT_WORKING,
    RESULT_DONE,
    RESULT_ABANDONED, /* the caller's thread walks this task itself */
};

/* Written by whoever took the task while WORKING (or ABANDONED, for nothing); read by
 * the caller's thread when DONE. `from` and `to` are set before it is published. */
struct result {
    _Atomic uint32_t state; /* enum result_state; futex word */
    uint64_t from, to;
    int error;
    bool walk_again; /* thrown away */
    const char *where;
    uint64_t keys, expiring;
    size_t length;
    unsigned char *bytes; /* TASK_BYTES_MAX */
};

struct task_sink {
    struct rdb_sink sink;
    struct result *result;
};

/* One thread's means to walk. The first worker's are for the caller's thread. */
struct worker {
    struct worker_pool *pool;
    struct walk walk;
    struct view_reader reader;
    struct task_sink sink;
    struct keyspace_observer observer;
    struct thread thread;
    _Atomic pid_t id;
    int starved_msec; /* its own: how long it stayed away the last time, 0: it had time */
};

struct worker_pool {
    /* By number; NULL until it is taken, or for that one moment longer. */
    _Atomic(struct result *) tasks[TASKS];
    struct result results[RESULTS];
    unsigned char *bytes; /* of all results; NULL: no save is under way */
    struct keyspace_observer *observer;
    const struct thread_cpus *cpus;
    unsigned count; /* threads */
    _Atomic bool quit;

    /* The job: constant while open. */
    uint64_t units;
    task_body body;
    const void *context;
    _Atomic bool open;
    _Atomic bool stop;       /* it has failed: give up what is being walked */
    _Atomic uint32_t jobs;   /* futex word: moves on when a job opens, and at the end */
    _Atomic uint32_t inside; /* futex word: threads that may be looking at the job */
    _Atomic uint64_t next;
    _Atomic uint32_t delivered; /* number of the oldest task; futex word */
    _Atomic uint64_t step;      /* units for the next task */

    struct worker workers[1 + WORKERS_MAX];
};

/* ---- taking a task -------------------------------------------------------------- */

enum taken { TAKEN, TAKEN_ALL, NO_ROOM };

static enum taken take_task(struct worker_pool *pool, uint32_t *number, uint64_t *from,
                            uint64_t *to)
{
    uint64_t next = atomic_load_explicit(&pool->next, memory_order_relaxed), after;
    do {
        *number = (uint32_t)(next >> UNIT_BITS);
        *from = next & UNIT_MASK;
        if (*from >= pool->units)
            return TAKEN_ALL;
        /* Acquire: what stood in that task has been delivered. */
        uint32_t delivered = atomic_load_explicit(&pool->delivered, memory_order_acquire);
        if (((*number - delivered) & NUMBER_MASK) >= TASKS)
            return NO_ROOM;
        uint64_t step = atomic_load_explicit(&pool->step, memory_order_relaxed);
        *to = step < pool->units - *from ? *from + step : pool->units;
        after = (uint64_t)((*number + 1) & NUMBER_MASK) << UNIT_BITS | *to;
    } while (!atomic_compare_exchange_weak_explicit(
        &pool->next, &next, after, memory_order_relaxed, memory_order_relaxed));
    return TAKEN;
}

static _Atomic(struct result *) *task_of(struct worker_pool *pool, uint32_t number)
{
    return &pool->tasks[number % TASKS];
}

/* There are as many as can be in use, so one is free, or about to be. */
static struct result *free_result(struct worker_pool *pool)
{
    for (size_t i = 0;; i = (i + 1) % RESULTS) {
        uint32_t expected = RESULT_FREE;
        if (atomic_compare_exchange_strong_explicit(&pool->results[i].state, &expected,
                                                    RESULT_WORKING, memory_order_acquire,
                                                    memory_order_relaxed))
            return &pool->results[i];
    }
}

/* ---- walking a task ------------------------------------------------------------- */

static int keep_bytes(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct result *result = ((struct task_sink *)sink)->result;
    if (length > TASK_BYTES_MAX - result->length) {
        result->walk_again = true;
        return -E2BIG;
    }
    memcpy(result->bytes + result->length, bytes, length);
    result->length += length;
    return 0;
}

static int may_go_on(struct keyspace_observer *observer, uint64_t keys)
{
    struct worker *worker =
        (struct worker *)((char *)observer - offsetof(struct worker, observer));
    struct worker_pool *pool = worker->pool;
    if (atomic_load_explicit(&pool->stop, memory_order_relaxed) ||
        atomic_load_explicit(&worker->sink.result->state, memory_order_relaxed) ==
            RESULT_ABANDONED)
        return -ECANCELED;
    int error = pool->observer->progress(pool->observer, keys);
    /* Not in the middle of a task: others wait for it. */
    return error == -EAGAIN ? 0 : error;
}

static void walk_task(struct worker *worker, uint32_t number, uint64_t from, uint64_t to)
{
    struct worker_pool *pool = worker->pool;
    struct walk *walk = &worker->walk;
    struct result *result = free_result(pool);
    uint32_t working = RESULT_WORKING;
    result->from = from;
    result->to = to;
    result->length = 0;
    result->walk_again = false;
    atomic_store_explicit(task_of(pool, number), result, memory_order_release);
    worker->sink.result = result;
    walk->keys = walk->expiring = 0;
    rdb_encoder_reset(walk->encoder);
    result->error = pool->body(walk, from, to, pool->context);
    if (!result->error)
        result->error = rdb_encoder_flush(walk->encoder);
    /* A module's value: whoever writes them is asked by one thread, in the dump's order. And
     * who began the walk is to know which object it ends at. */
    if (result->error == -ENOTSUP || result->error == KEYSPACE_STRANGER)
        result->walk_again = true;
    result->keys = walk->keys;
    result->expiring = walk->expiring;
    result->where = walk->where;
    if (atomic_compare_exchange_strong_explicit(&result->state, &working, RESULT_DONE,
                                                memory_order_release,
                                                memory_order_acquire))
        futex_wake_all(&result->state);
    else
        atomic_store_explicit(&result->state, RESULT_FREE, memory_order_release);
}

/* ---- workers --------------------------------------------------------------------- */

static void wait_for_delivery(struct worker_pool *pool)
{
    uint32_t delivered = atomic_load_explicit(&pool->delivered, memory_order_relaxed);
    uint64_t next = atomic_load_explicit(&pool->next, memory_order_relaxed);
    if ((((uint32_t)(next >> UNIT_BITS) - delivered) & NUMBER_MASK) >= TASKS)
        futex_wait(&pool->delivered, delivered, WAIT_MSEC);
}

/* Walks a task. False if the CPU was hardly to be had: then this worker delays the
 * others more than it helps. */
static bool walk_task_in_time(struct worker *worker, uint32_t number, uint64_t from,
                              uint64_t to)
{
    uint64_t began = clock_usec(), cpu_began = thread_cpu_usec(worker->id);
    walk_task(worker, number, from, to);
    uint64_t wall = clock_usec() - began;
    uint64_t cpu = thread_cpu_usec(worker->id) - cpu_began;
    bool in_time = wall < STARVING_USEC || cpu > wall / STARVING_PART;
    if (in_time)
        worker->starved_msec = 0;
    else if (!worker->starved_msec)
        worker->starved_msec = STARVED_MSEC_LEAST;
    else if (worker->starved_msec < STARVED_MSEC_MOST)
        worker->starved_msec *= 2;
    return in_time;
}

/* Returns true when there may be more to do after a pause. */
static bool do_tasks(struct worker *worker)
{
    struct worker_pool *pool = worker->pool;
    uint32_t number;
    uint64_t from, to;
    thread_set_cpus(0, pool->cpus);
    while (!atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
        int error = pool->observer->progress(pool->observer, 0);
        if (error == -EAGAIN) {
            sleep_usec(REST_USEC);
            continue;
        }
        if (error)
            return false;
        enum taken taken = take_task(pool, &number, &from, &to);
        if (taken == TAKEN_ALL)
            return false;
        if (taken == NO_ROOM)
            wait_for_delivery(pool);
        else if (!walk_task_in_time(worker, number, from, to))
            return true;
    }
    return false;
}

static void *worker_thread(void *argument)
{
    struct worker *worker = argument;
    struct worker_pool *pool = worker->pool;
    bool more;
    atomic_store_explicit(&worker->id, thread_own_id(), memory_order_release);
    while (!atomic_load_explicit(&pool->quit, memory_order_acquire)) {
        uint32_t jobs = atomic_load_explicit(&pool->jobs, memory_order_acquire);
        thread_set_idle();
        /* Said before looking whether the job is open; the caller closes it before
         * it looks who is inside: one of the two sees the other. */
        atomic_fetch_add_explicit(&pool->inside, 1, memory_order_seq_cst);
        more =
            atomic_load_explicit(&pool->open, memory_order_seq_cst) && do_tasks(worker);
        if (!more)
            worker->starved_msec = 0;
        atomic_fetch_sub_explicit(&pool->inside, 1, memory_order_release);
        futex_wake_all(&pool->inside);
        futex_wait(&pool->jobs, jobs, more ? worker->starved_msec : -1);
    }
    return NULL;
}

/* Somebody waits for them now: who runs when nobody else wants to may not run for
 * seconds. The caller's CPU has nothing to do meanwhile. */
static void hurry(struct worker_pool *pool)
{
    struct thread_cpus own;
    thread_get_cpus(0, &own);
    for (unsigned i = 1; i <= pool->count; i++) {
        pid_t id = atomic_load_explicit(&pool->workers[i].id, memory_order_acquire);
        if (!id)
            continue;
        thread_end_idle(id);
        thread_set_cpus(id, &own);
    }
}

static void dismiss(struct worker_pool *pool)
{
    atomic_store_explicit(&pool->quit, true, memory_order_release);
    atomic_fetch_add_explicit(&pool->jobs, 1, memory_order_release);
    futex_wake_all(&pool->jobs);
    hurry(pool);
    for (unsigned i = 1; i <= pool->count; i++) {
        thread_join(&pool->workers[i].thread);
        atomic_store_explicit(&pool->workers[i].id, 0, memory_order_relaxed);
    }
    pool->count = 0;
    atomic_store_explicit(&pool->quit, false, memory_order_relaxed);
}

unsigned worker_pool_resize(struct worker_pool *pool, unsigned workers)
{
    if (workers > WORKERS_MAX)
        workers = WORKERS_MAX;
    if (workers < pool->count)
        dismiss(pool);
    while (pool->count < workers) {
        struct worker *worker = &pool->workers[pool->count + 1];
        char name[16];
        snprintf(name, sizeof(name), "uffd-saver-%u", (pool->count + 2) % 100);
        if (thread_start(&worker->thread, name, STACK_BYTES, worker_thread, worker) != 0)
            break;
        pool->count++;
    }
    return pool->count;
}

unsigned worker_pool_size(const struct worker_pool *pool)
{
    return pool->count;
}

struct worker_pool *worker_pool_create(void)
{
    struct worker_pool *pool = memory_map(sizeof(*pool));
    for (unsigned i = 0; pool && i <= WORKERS_MAX; i++)
        pool->workers[i].pool = pool;
    return pool;
}

void worker_pool_destroy(struct worker_pool *pool)
{
    if (!pool)
        return;
    dismiss(pool);
    memory_unmap(pool, sizeof(*pool));
}

/* ---- a save ---------------------------------------------------------------------- */

int worker_pool_begin(struct worker_pool *pool, struct view *view,
                      rdb_compress_function compress, struct keyspace_observer *observer,
                      const struct thread_cpus *cpus)
{
    DEMAND_THREAD(THREAD_SAVER);
    pool->bytes = memory_map((size_t)RESULTS * TASK_BYTES_MAX);
    if (!pool->bytes)
        return -ENOMEM;
    for (size_t i = 0; i < RESULTS; i++)
        pool->results[i].bytes = pool->bytes + i * TASK_BYTES_MAX;
    pool->observer = observer;
    pool->cpus = cpus;
    for (unsigned i = 0; i <= pool->count; i++) {
        struct worker *worker = &pool->workers[i];
        view_reader_init(&worker->reader, view);
        worker->observer.progress = may_go_on;
        worker->sink.sink.write = keep_bytes;
        worker->walk = (struct walk){
            .reader = &worker->reader,
            .encoder = rdb_encoder_create(&worker->sink.sink, compress),
            .observer = &worker->observer,
        };
        if (worker->walk.encoder)
            continue;
        worker_pool_end(pool);
        return -ENOMEM;
    }
    return 0;
}

void worker_pool_end(struct worker_pool *pool)
{
    DEMAND_THREAD(THREAD_SAVER);
    for (unsigned i = 0; i <= pool->count; i++) {
        struct walk *walk = &pool->workers[i].walk;
        rdb_encoder_destroy(walk->encoder);
        walk_release(walk);
        *walk = (struct walk){0};
    }
    memory_unmap(pool->bytes, (size_t)RESULTS * TASK_BYTES_MAX);
    pool->bytes = NULL;
}

/* ---- a job ----------------------------------------------------------------------- */

/* Lets the tasks that follow come to about what they should. */
static void adapt_step(struct worker_pool *pool, uint64_t units, uint64_t bytes)
{
    uint64_t step = atomic_load_explicit(&pool->step, memory_order_relaxed);
    uint64_t wanted = units * TASK_BYTES_AIM / (bytes ? bytes : 1);
    if (wanted > step * 4)
        wanted = step * 4;
    if (wanted < 1)
        wanted = 1;
    atomic_store_explicit(&pool->step, wanted, memory_order_relaxed);
}

/* Straight into the caller's encoder. */
static int walk_directly(struct worker_pool *pool, struct walk *walk, uint64_t from,
                         uint64_t to)
{
    uint64_t before = rdb_encoder_bytes(walk->encoder);
    int error = pool->body(walk, from, to, pool->context);
    adapt_step(pool, to - from, rdb_encoder_bytes(walk->encoder) - before);
    return error;
}

static void move_on(struct worker_pool *pool)
{
    uint32_t delivered = atomic_load_explicit(&pool->delivered, memory_order_relaxed);
    atomic_store_explicit(task_of(pool, delivered), NULL, memory_order_relaxed);
    atomic_store_explicit(&pool->delivered, (delivered + 1) & NUMBER_MASK,
                          memory_order_release);
    futex_wake_all(&pool->delivered);
}

static int deliver(struct worker_pool *pool, struct walk *walk,
                   const struct result *result)
{
    if (result->walk_again)
        return walk_directly(pool, walk, result->from, result->to);
    walk->where = result->where;
    if (result->error)
        return result->error;
    adapt_step(pool, result->to - result->from, result->length);
    int error = rdb_encode_raw(walk->encoder, result->bytes, result->length);
    walk->keys += result->keys;
    walk->expiring += result->expiring;
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

static int deliver_oldest(struct worker_pool *pool, struct walk *walk,
                          struct result *result)
{
    int error = deliver(pool, walk, result);
    move_on(pool);
    atomic_store_explicit(&result->state, RESULT_FREE, memory_order_release);
    return error;
}

static bool is_done(const struct result *result)
{
    return result &&
           atomic_load_explicit(&result->state, memory_order_acquire) == RESULT_DONE;
}

/* Somebody has the oldest task, and there is nothing else to do. */
static int wait_for_oldest(struct worker_pool *pool, struct walk *walk,
                           struct result *result)
{
    uint32_t working = RESULT_WORKING;
    if (!result) {
        sleep_usec(REST_USEC / 10);
        return 0;
    }
    futex_wait(&result->state, RESULT_WORKING, PATIENCE_MSEC);
    /* Before it is abandoned (release): it may be somebody else's as soon as its thread
     * sees that (acquire, walk_task()). */
    uint64_t from = result->from, to = result->to;
    if (!atomic_compare_exchange_strong_explicit(&result->state, &working,
                                                 RESULT_ABANDONED, memory_order_release,
                                                 memory_order_relaxed))
        return 0;
    int error = walk_directly(pool, walk, from, to);
    move_on(pool);
    return error;
}

/* One step of the caller's thread. 1 when all is delivered, else 0 or -errno. */
static int work(struct worker_pool *pool, struct walk *walk)
{
    uint32_t delivered = atomic_load_explicit(&pool->delivered, memory_order_relaxed),
             number;
    struct result *oldest =
        atomic_load_explicit(task_of(pool, delivered), memory_order_acquire);
    uint64_t from, to;
    if (is_done(oldest))
        return deliver_oldest(pool, walk, oldest);
    enum taken taken = take_task(pool, &number, &from, &to);
    if (taken == TAKEN && number == delivered) {
        int error = walk_directly(pool, walk, from, to);
        move_on(pool);
        return error;
    }
    if (taken == TAKEN) {
        walk_task(&pool->workers[0], number, from, to);
        return walk->observer->progress(walk->observer, walk->keys);
    }
    uint64_t next = atomic_load_explicit(&pool->next, memory_order_relaxed);
    if (taken == TAKEN_ALL && (uint32_t)(next >> UNIT_BITS) == delivered)
        return 1;
    int error = wait_for_oldest(pool, walk, oldest);
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

static void open_job(struct worker_pool *pool, uint64_t units, uint64_t step,
                     task_body body, const void *context)
{
    for (size_t i = 0; i < TASKS; i++)
        atomic_store_explicit(&pool->tasks[i], NULL, memory_order_relaxed);
    for (size_t i = 0; i < RESULTS; i++)
        atomic_store_explicit(&pool->results[i].state, RESULT_FREE, memory_order_relaxed);
    pool->units = units;
    pool->body = body;
    pool->context = context;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->delivered, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->step, step, memory_order_relaxed);
    atomic_store_explicit(&pool->stop, false, memory_order_relaxed);
    atomic_store_explicit(&pool->open, true, memory_order_seq_cst);
    atomic_fetch_add_explicit(&pool->jobs, 1, memory_order_release);
    futex_wake_all(&pool->jobs);
}

static void close_job(struct worker_pool *pool)
{
    atomic_store_explicit(&pool->stop, true, memory_order_relaxed);
    atomic_store_explicit(&pool->open, false, memory_order_seq_cst);
    for (;;) {
        uint32_t inside = atomic_load_explicit(&pool->inside, memory_order_seq_cst);
        if (!inside)
            return;
        futex_wake_all(&pool->delivered);
        if (futex_wait(&pool->inside, inside, WAIT_MSEC) == -ETIMEDOUT)
            hurry(pool);
    }
}

int worker_pool_walk(struct walk *walk, uint64_t units, uint64_t step, task_body body,
                     const void *context)
{
    struct worker_pool *pool = walk->pool;
    if (!pool || !pool->count || units <= step || units > UNIT_MASK)
        return body(walk, 0, units, context);
    for (unsigned i = 0; i <= pool->count; i++) {
        pool->workers[i].walk.roots = walk->roots;
        pool->workers[i].walk.family = walk->family;
    }
    walk->pool = NULL; /* tasks are not cut up again */
    open_job(pool, units, step, body, context);
    int result;
    do {
        result = work(pool, walk);
    } while (result == 0);
    close_job(pool);
    walk->pool = pool;
    return result < 0 ? result : 0;
}
