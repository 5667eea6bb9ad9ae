#include "keyspace/crew.h"

#include <errno.h>
#include <stdio.h>

#include "kernel/memory.h"
#include "kernel/thread.h"

/* A power of two: share numbers wrap around. */
#define SHARES          32
#define SHARE_BYTES_MAX (128 * 1024)
/* What a share should come to: about a millisecond's work. */
#define SHARE_BYTES_AIM (48 * 1024)
/* The server's LZF keeps 512 KB on the stack. */
#define STACK_BYTES (2 * 1024 * 1024)
#define WAIT_MSEC   10
#define REST_USEC   1000
/* So long the caller's thread waits for the oldest share when it has nothing else to
 * do; then it walks it itself. */
#define PATIENCE_MSEC 2
/* A share that took longer than this, and of which its thread had the CPU for less than
 * one part in so many: that thread stays away for a while. */
#define STARVING_USEC 10000
#define STARVING_PART 8
#define STARVED_MSEC  500

/* What is taken next, in one word so that taking is one step: no member may stop
 * between two that belong together.
 *
 *   63       40 39                    0
 *   | number   | first unit           |   */
#define UNIT_BITS   40
#define UNIT_MASK   ((UINT64_C(1) << UNIT_BITS) - 1)
#define NUMBER_MASK ((1u << (64 - UNIT_BITS)) - 1)

/* There is one for each share that may be under way, and one for each member besides,
 * which may still be writing to what was taken from it. */
#define RESULTS (SHARES + CREW_MEMBERS_MAX)

enum result_state {
    RESULT_FREE,
    RESULT_WORKING,
    RESULT_DONE,
    RESULT_ABANDONED, /* the caller's thread walks this share itself */
};

/* Written by whoever took the share while WORKING (or ABANDONED, for nothing); read by
 * the caller's thread when DONE. `from` and `to` are set before it is published. */
struct result {
    _Atomic uint32_t state; /* enum result_state; futex word */
    uint64_t from, to;
    int error;
    bool too_big; /* thrown away */
    const char *where;
    uint64_t keys, expiring;
    size_t length;
    unsigned char *bytes; /* SHARE_BYTES_MAX */
};

struct share_sink {
    struct rdb_sink sink;
    struct result *result;
};

/* One thread's means to walk. The first member's are for the caller's thread. */
struct member {
    struct crew *crew;
    struct walk walk;
    struct view_reader reader;
    struct share_sink sink;
    struct keyspace_observer observer;
    struct thread thread;
    _Atomic pid_t id;
};

struct crew {
    /* By number; NULL until it is taken, or for that one moment longer. */
    _Atomic(struct result *) shares[SHARES];
    struct result results[RESULTS];
    unsigned char *bytes; /* of all results; NULL: no save is under way */
    struct keyspace_observer *observer;
    const struct thread_cpus *cpus;
    unsigned count; /* threads */
    _Atomic bool quit;

    /* The job: constant while open. */
    uint64_t units;
    crew_body body;
    const void *context;
    _Atomic bool open;
    _Atomic bool stop;       /* it has failed: give up what is being walked */
    _Atomic uint32_t jobs;   /* futex word: moves on when a job opens, and at the end */
    _Atomic uint32_t inside; /* futex word: threads that may be looking at the job */
    _Atomic uint64_t next;
    _Atomic uint32_t given; /* number of the oldest share; futex word */
    _Atomic uint64_t step;  /* units for the next share */

    struct member members[1 + CREW_MEMBERS_MAX];
};

/* ---- taking a share -------------------------------------------------------------- */

enum taken { TAKEN, TAKEN_ALL, NO_ROOM };

static enum taken take(struct crew *crew, uint32_t *number, uint64_t *from, uint64_t *to)
{
    uint64_t next = atomic_load_explicit(&crew->next, memory_order_relaxed), after;
    do {
        *number = (uint32_t)(next >> UNIT_BITS);
        *from = next & UNIT_MASK;
        if (*from >= crew->units)
            return TAKEN_ALL;
        /* Acquire: what stood in that share has been given. */
        uint32_t given = atomic_load_explicit(&crew->given, memory_order_acquire);
        if (((*number - given) & NUMBER_MASK) >= SHARES)
            return NO_ROOM;
        uint64_t step = atomic_load_explicit(&crew->step, memory_order_relaxed);
        *to = step < crew->units - *from ? *from + step : crew->units;
        after = (uint64_t)((*number + 1) & NUMBER_MASK) << UNIT_BITS | *to;
    } while (!atomic_compare_exchange_weak_explicit(
        &crew->next, &next, after, memory_order_relaxed, memory_order_relaxed));
    return TAKEN;
}

static _Atomic(struct result *) *share_of(struct crew *crew, uint32_t number)
{
    return &crew->shares[number % SHARES];
}

/* There are as many as can be in use, so one is free, or about to be. */
static struct result *free_result(struct crew *crew)
{
    for (size_t i = 0;; i = (i + 1) % RESULTS) {
        uint32_t expected = RESULT_FREE;
        if (atomic_compare_exchange_strong_explicit(&crew->results[i].state, &expected,
                                                    RESULT_WORKING, memory_order_acquire,
                                                    memory_order_relaxed))
            return &crew->results[i];
    }
}

/* ---- walking a share ------------------------------------------------------------- */

static int keep_bytes(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct result *result = ((struct share_sink *)sink)->result;
    if (length > SHARE_BYTES_MAX - result->length) {
        result->too_big = true;
        return -E2BIG;
    }
    memcpy(result->bytes + result->length, bytes, length);
    result->length += length;
    return 0;
}

static int may_go_on(struct keyspace_observer *observer, uint64_t keys)
{
    struct member *member =
        (struct member *)((char *)observer - offsetof(struct member, observer));
    struct crew *crew = member->crew;
    if (atomic_load_explicit(&crew->stop, memory_order_relaxed) ||
        atomic_load_explicit(&member->sink.result->state, memory_order_relaxed) ==
            RESULT_ABANDONED)
        return -ECANCELED;
    int error = crew->observer->progress(crew->observer, keys);
    /* Not in the middle of a share: others wait for it. */
    return error == -EAGAIN ? 0 : error;
}

static void walk_share(struct member *member, uint32_t number, uint64_t from, uint64_t to)
{
    struct crew *crew = member->crew;
    struct walk *walk = &member->walk;
    struct result *result = free_result(crew);
    uint32_t working = RESULT_WORKING;
    result->from = from;
    result->to = to;
    result->length = 0;
    result->too_big = false;
    atomic_store_explicit(share_of(crew, number), result, memory_order_release);
    member->sink.result = result;
    walk->keys = walk->expiring = 0;
    rdb_encoder_reset(walk->encoder);
    result->error = crew->body(walk, from, to, crew->context);
    if (!result->error)
        result->error = rdb_encoder_flush(walk->encoder);
    result->keys = walk->keys;
    result->expiring = walk->expiring;
    result->where = walk->where;
    if (atomic_compare_exchange_strong_explicit(&result->state, &working, RESULT_DONE,
                                                memory_order_release,
                                                memory_order_relaxed))
        futex_wake_all(&result->state);
    else
        atomic_store_explicit(&result->state, RESULT_FREE, memory_order_release);
}

/* ---- members --------------------------------------------------------------------- */

static void wait_for_room(struct crew *crew)
{
    uint32_t given = atomic_load_explicit(&crew->given, memory_order_relaxed);
    uint64_t next = atomic_load_explicit(&crew->next, memory_order_relaxed);
    if ((((uint32_t)(next >> UNIT_BITS) - given) & NUMBER_MASK) >= SHARES)
        futex_wait(&crew->given, given, WAIT_MSEC);
}

/* Walks a share. False if the CPU was hardly to be had: then this member delays the
 * others more than it helps. */
static bool walk_share_in_time(struct member *member, uint32_t number, uint64_t from,
                               uint64_t to)
{
    uint64_t began = clock_usec(), cpu_began = thread_cpu_usec(member->id);
    walk_share(member, number, from, to);
    uint64_t wall = clock_usec() - began;
    uint64_t cpu = thread_cpu_usec(member->id) - cpu_began;
    return wall < STARVING_USEC || cpu > wall / STARVING_PART;
}

/* Returns true when there may be more to do after a pause. */
static bool help(struct member *member)
{
    struct crew *crew = member->crew;
    uint32_t number;
    uint64_t from, to;
    thread_set_cpus(0, crew->cpus);
    while (!atomic_load_explicit(&crew->stop, memory_order_relaxed)) {
        int error = crew->observer->progress(crew->observer, 0);
        if (error == -EAGAIN) {
            sleep_usec(REST_USEC);
            continue;
        }
        if (error)
            return false;
        enum taken taken = take(crew, &number, &from, &to);
        if (taken == TAKEN_ALL)
            return false;
        if (taken == NO_ROOM)
            wait_for_room(crew);
        else if (!walk_share_in_time(member, number, from, to))
            return true;
    }
    return false;
}

static void *member_thread(void *argument)
{
    struct member *member = argument;
    struct crew *crew = member->crew;
    bool more;
    atomic_store_explicit(&member->id, thread_own_id(), memory_order_release);
    while (!atomic_load_explicit(&crew->quit, memory_order_acquire)) {
        uint32_t jobs = atomic_load_explicit(&crew->jobs, memory_order_acquire);
        thread_set_idle();
        /* Said before looking whether the job is open; the caller closes it before
         * it looks who is inside: one of the two sees the other. */
        atomic_fetch_add_explicit(&crew->inside, 1, memory_order_seq_cst);
        more = atomic_load_explicit(&crew->open, memory_order_seq_cst) && help(member);
        atomic_fetch_sub_explicit(&crew->inside, 1, memory_order_release);
        futex_wake_all(&crew->inside);
        futex_wait(&crew->jobs, jobs, more ? STARVED_MSEC : -1);
    }
    return NULL;
}

/* Somebody waits for them now: who runs when nobody else wants to may not run for
 * seconds. */
static void hurry(struct crew *crew)
{
    for (unsigned i = 1; i <= crew->count; i++) {
        pid_t id = atomic_load_explicit(&crew->members[i].id, memory_order_acquire);
        if (id)
            thread_end_idle(id);
    }
}

static void dismiss(struct crew *crew)
{
    atomic_store_explicit(&crew->quit, true, memory_order_release);
    atomic_fetch_add_explicit(&crew->jobs, 1, memory_order_release);
    futex_wake_all(&crew->jobs);
    hurry(crew);
    for (unsigned i = 1; i <= crew->count; i++) {
        thread_join(&crew->members[i].thread);
        atomic_store_explicit(&crew->members[i].id, 0, memory_order_relaxed);
    }
    crew->count = 0;
    atomic_store_explicit(&crew->quit, false, memory_order_relaxed);
}

unsigned crew_set_members(struct crew *crew, unsigned members)
{
    if (members > CREW_MEMBERS_MAX)
        members = CREW_MEMBERS_MAX;
    if (members < crew->count)
        dismiss(crew);
    while (crew->count < members) {
        struct member *member = &crew->members[crew->count + 1];
        char name[16];
        snprintf(name, sizeof(name), "uffd-saver-%u", (crew->count + 2) % 100);
        if (thread_start(&member->thread, name, STACK_BYTES, member_thread, member) != 0)
            break;
        crew->count++;
    }
    return crew->count;
}

unsigned crew_members(const struct crew *crew)
{
    return crew->count;
}

struct crew *crew_create(void)
{
    struct crew *crew = memory_map(sizeof(*crew));
    for (unsigned i = 0; crew && i <= CREW_MEMBERS_MAX; i++)
        crew->members[i].crew = crew;
    return crew;
}

void crew_destroy(struct crew *crew)
{
    if (!crew)
        return;
    dismiss(crew);
    memory_unmap(crew, sizeof(*crew));
}

/* ---- a save ---------------------------------------------------------------------- */

int crew_begin(struct crew *crew, struct view *view, rdb_compress_function compress,
               struct keyspace_observer *observer, const struct thread_cpus *cpus)
{
    crew->bytes = memory_map((size_t)RESULTS * SHARE_BYTES_MAX);
    if (!crew->bytes)
        return -ENOMEM;
    for (size_t i = 0; i < RESULTS; i++)
        crew->results[i].bytes = crew->bytes + i * SHARE_BYTES_MAX;
    crew->observer = observer;
    crew->cpus = cpus;
    for (unsigned i = 0; i <= crew->count; i++) {
        struct member *member = &crew->members[i];
        view_reader_init(&member->reader, view);
        member->observer.progress = may_go_on;
        member->sink.sink.write = keep_bytes;
        member->walk = (struct walk){
            .reader = &member->reader,
            .encoder = rdb_encoder_create(&member->sink.sink, compress),
            .observer = &member->observer,
        };
        if (member->walk.encoder)
            continue;
        crew_end(crew);
        return -ENOMEM;
    }
    return 0;
}

void crew_end(struct crew *crew)
{
    for (unsigned i = 0; i <= crew->count; i++) {
        struct walk *walk = &crew->members[i].walk;
        rdb_encoder_destroy(walk->encoder);
        walk_release(walk);
        *walk = (struct walk){0};
    }
    memory_unmap(crew->bytes, (size_t)RESULTS * SHARE_BYTES_MAX);
    crew->bytes = NULL;
}

/* ---- a job ----------------------------------------------------------------------- */

/* Lets the shares that follow come to about what they should. */
static void adapt_step(struct crew *crew, uint64_t units, uint64_t bytes)
{
    uint64_t step = atomic_load_explicit(&crew->step, memory_order_relaxed);
    uint64_t wanted = units * SHARE_BYTES_AIM / (bytes ? bytes : 1);
    if (wanted > step * 4)
        wanted = step * 4;
    if (wanted < 1)
        wanted = 1;
    atomic_store_explicit(&crew->step, wanted, memory_order_relaxed);
}

/* Straight into the caller's encoder. */
static int walk_directly(struct crew *crew, struct walk *walk, uint64_t from, uint64_t to)
{
    uint64_t before = rdb_encoder_bytes(walk->encoder);
    int error = crew->body(walk, from, to, crew->context);
    adapt_step(crew, to - from, rdb_encoder_bytes(walk->encoder) - before);
    return error;
}

static void move_on(struct crew *crew)
{
    uint32_t given = atomic_load_explicit(&crew->given, memory_order_relaxed);
    atomic_store_explicit(share_of(crew, given), NULL, memory_order_relaxed);
    atomic_store_explicit(&crew->given, (given + 1) & NUMBER_MASK, memory_order_release);
    futex_wake_all(&crew->given);
}

static int give(struct crew *crew, struct walk *walk, const struct result *result)
{
    if (result->too_big)
        return walk_directly(crew, walk, result->from, result->to);
    walk->where = result->where;
    if (result->error)
        return result->error;
    adapt_step(crew, result->to - result->from, result->length);
    int error = rdb_encode_raw(walk->encoder, result->bytes, result->length);
    walk->keys += result->keys;
    walk->expiring += result->expiring;
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

static int give_oldest(struct crew *crew, struct walk *walk, struct result *result)
{
    int error = give(crew, walk, result);
    move_on(crew);
    atomic_store_explicit(&result->state, RESULT_FREE, memory_order_release);
    return error;
}

static bool is_done(const struct result *result)
{
    return result &&
           atomic_load_explicit(&result->state, memory_order_acquire) == RESULT_DONE;
}

/* Somebody has the oldest share, and there is nothing else to do. */
static int wait_for_oldest(struct crew *crew, struct walk *walk, struct result *result)
{
    uint32_t working = RESULT_WORKING;
    if (!result) {
        sleep_usec(REST_USEC / 10);
        return 0;
    }
    futex_wait(&result->state, RESULT_WORKING, PATIENCE_MSEC);
    /* Before it is abandoned: it may be somebody else's as soon as its thread sees. */
    uint64_t from = result->from, to = result->to;
    if (!atomic_compare_exchange_strong_explicit(&result->state, &working,
                                                 RESULT_ABANDONED, memory_order_relaxed,
                                                 memory_order_relaxed))
        return 0;
    int error = walk_directly(crew, walk, from, to);
    move_on(crew);
    return error;
}

/* One step of the caller's thread. 1 when all is given, else 0 or -errno. */
static int work(struct crew *crew, struct walk *walk)
{
    uint32_t given = atomic_load_explicit(&crew->given, memory_order_relaxed), number;
    struct result *oldest =
        atomic_load_explicit(share_of(crew, given), memory_order_acquire);
    uint64_t from, to;
    if (is_done(oldest))
        return give_oldest(crew, walk, oldest);
    enum taken taken = take(crew, &number, &from, &to);
    if (taken == TAKEN && number == given) {
        int error = walk_directly(crew, walk, from, to);
        move_on(crew);
        return error;
    }
    if (taken == TAKEN) {
        walk_share(&crew->members[0], number, from, to);
        return walk->observer->progress(walk->observer, walk->keys);
    }
    uint64_t next = atomic_load_explicit(&crew->next, memory_order_relaxed);
    if (taken == TAKEN_ALL && (uint32_t)(next >> UNIT_BITS) == given)
        return 1;
    int error = wait_for_oldest(crew, walk, oldest);
    return error ? error : walk->observer->progress(walk->observer, walk->keys);
}

static void open_job(struct crew *crew, uint64_t units, uint64_t step, crew_body body,
                     const void *context)
{
    for (size_t i = 0; i < SHARES; i++)
        atomic_store_explicit(&crew->shares[i], NULL, memory_order_relaxed);
    for (size_t i = 0; i < RESULTS; i++)
        atomic_store_explicit(&crew->results[i].state, RESULT_FREE, memory_order_relaxed);
    crew->units = units;
    crew->body = body;
    crew->context = context;
    atomic_store_explicit(&crew->next, 0, memory_order_relaxed);
    atomic_store_explicit(&crew->given, 0, memory_order_relaxed);
    atomic_store_explicit(&crew->step, step, memory_order_relaxed);
    atomic_store_explicit(&crew->stop, false, memory_order_relaxed);
    atomic_store_explicit(&crew->open, true, memory_order_seq_cst);
    atomic_fetch_add_explicit(&crew->jobs, 1, memory_order_release);
    futex_wake_all(&crew->jobs);
}

static void close_job(struct crew *crew)
{
    atomic_store_explicit(&crew->stop, true, memory_order_relaxed);
    atomic_store_explicit(&crew->open, false, memory_order_seq_cst);
    for (;;) {
        uint32_t inside = atomic_load_explicit(&crew->inside, memory_order_seq_cst);
        if (!inside)
            return;
        futex_wake_all(&crew->given);
        if (futex_wait(&crew->inside, inside, WAIT_MSEC) == -ETIMEDOUT)
            hurry(crew);
    }
}

int crew_do(struct walk *walk, uint64_t units, uint64_t step, crew_body body,
            const void *context)
{
    struct crew *crew = walk->crew;
    if (!crew || !crew->count || units <= step || units > UNIT_MASK)
        return body(walk, 0, units, context);
    for (unsigned i = 0; i <= crew->count; i++) {
        crew->members[i].walk.roots = walk->roots;
        crew->members[i].walk.family = walk->family;
    }
    walk->crew = NULL; /* shares are not cut up again */
    open_job(crew, units, step, body, context);
    int result;
    do {
        result = work(crew, walk);
    } while (result == 0);
    close_job(crew);
    walk->crew = crew;
    return result < 0 ? result : 0;
}
