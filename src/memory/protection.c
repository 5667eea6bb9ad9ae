#include "memory/protection.h"

#include <errno.h>
#include <stdatomic.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"

#define STACK_BYTES (64 * 1024)
#define HELPERS_MAX 3
/* A set of more the caller protects alone. */
#define REGIONS_MAX 4096
/* Shares end at multiples of these, so that no huge page is split. */
#define FIRST_BYTES (UINT64_C(64) << 20)
#define MOST_BYTES  (UINT64_C(4) << 30)
#define SHARE_BYTES (UINT64_C(16) << 20)
/* Slower than this are small pages. */
#define SLOW_USEC_PER_GB 3000
/* A share takes less than this, unless its helper has lost its CPU. */
#define SPIN_USEC 500
/* FAULT_SLEEPING_HELPER */
#define HELPER_SLEEP_USEC 3000000
/* A place in the set: which region, and which share of it. */
#define SHARE_BITS 32
#define SHARE_MASK ((UINT64_C(1) << SHARE_BITS) - 1)
#define NO_PLACE   UINT64_MAX

struct job {
    int userfaultfd;
    struct region_set set;
};

struct helper {
    struct thread thread;
    struct protection *protection;
    /* Which share it is about to take, or has; NO_PLACE: none. Said before it takes it,
     * so that whoever finds no share left also finds who has the last ones; and after what
     * it had before is protected (release; acquire in do_what_helpers_have()). */
    _Atomic uint64_t place;
};

struct protection {
    struct helper helpers[HELPERS_MAX];
    unsigned count;
    _Atomic bool stopping;
    _Atomic uint32_t jobs;   /* futex word: grows with each job */
    _Atomic bool open;       /* there is a job */
    _Atomic bool taken_over; /* the caller has done what helpers had taken */
    _Atomic uint32_t inside; /* futex word: helpers that look at it */
    _Atomic uint64_t next;   /* place of the next share that nobody has */
    _Atomic int error;       /* the first */
    _Atomic uint64_t bytes;  /* that were protected */
    /* What helpers share. Constant while one is inside: who is late from the last one would
     * else protect with another's descriptor, or tell another of its error. */
    struct job job;
    struct region storage[REGIONS_MAX]; /* of its set */
};

/* Part of region `i` of the set. */
static int protect(struct protection *protection, const struct job *job, size_t i,
                   uint64_t start, uint64_t end)
{
    int error;
    if (i == 1 && fault_point(FAULT_PROTECT_FAILS))
        return -ENOMEM;
    if (start == end)
        return 0;
    do {
        error = userfaultfd_protect(job->userfaultfd, start, end - start);
    } while (error == -EAGAIN);
    atomic_fetch_add_explicit(&protection->bytes, end - start, memory_order_relaxed);
    return error;
}

static uint64_t share_end(const struct region *region, uint64_t at, uint64_t bytes)
{
    uint64_t end = round_down(at, bytes) + bytes;
    return end < region->end ? end : region->end;
}

/* ---- shared ---------------------------------------------------------------------- */

static uint64_t share_start(const struct region *region, uint64_t share)
{
    uint64_t start = round_down(region->start, SHARE_BYTES) + share * SHARE_BYTES;
    return start > region->start ? start : region->start;
}

/* False when nothing is left. `helper`: NULL for the caller. */
static bool take_share(struct protection *protection, struct helper *helper,
                       size_t *region, uint64_t *start, uint64_t *end)
{
    const struct region_set *set = &protection->job.set;
    uint64_t next = atomic_load_explicit(&protection->next, memory_order_acquire);
    for (;;) {
        size_t i = next >> SHARE_BITS;
        if (i >= set->count)
            return false;
        *start = share_start(&set->regions[i], next & SHARE_MASK);
        bool past = *start >= set->regions[i].end;
        uint64_t after = past ? ((uint64_t)i + 1) << SHARE_BITS : next + 1;
        if (helper)
            atomic_store_explicit(&helper->place, next, memory_order_release);
        if (!atomic_compare_exchange_weak_explicit(&protection->next, &next, after,
                                                   memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        if (!past) {
            *region = i;
            *end = share_end(&set->regions[i], *start, SHARE_BYTES);
            return true;
        }
        next = after;
    }
}

static void note_error(struct protection *protection, int error)
{
    int none = 0;
    atomic_compare_exchange_strong_explicit(&protection->error, &none, error,
                                            memory_order_relaxed, memory_order_relaxed);
}

static void protect_shares(struct protection *protection, struct helper *helper)
{
    size_t region;
    uint64_t start, end;
    while (!atomic_load_explicit(&protection->error, memory_order_relaxed) &&
           take_share(protection, helper, &region, &start, &end)) {
        if (helper && fault_point(FAULT_SLEEPING_HELPER))
            sleep_usec(HELPER_SLEEP_USEC);
        /* A page that has lost its mark meanwhile must not get it back: the audit would
         * take it for one that kept it (view/audit.h). */
        if (helper && atomic_load_explicit(&protection->taken_over, memory_order_acquire))
            return;
        int error = protect(protection, &protection->job, region, start, end);
        if (error)
            note_error(protection, error);
    }
}

static void *help(void *argument)
{
    struct helper *helper = argument;
    struct protection *protection = helper->protection;
    uint32_t seen = 0;
    while (!atomic_load_explicit(&protection->stopping, memory_order_acquire)) {
        uint32_t jobs = atomic_load_explicit(&protection->jobs, memory_order_acquire);
        if (jobs == seen) {
            futex_wait(&protection->jobs, seen, -1);
            continue;
        }
        seen = jobs;
        /* First inside, then the look: the caller closes first and then looks who is. */
        atomic_fetch_add_explicit(&protection->inside, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&protection->open, memory_order_seq_cst))
            protect_shares(protection, helper);
        atomic_store_explicit(&helper->place, NO_PLACE, memory_order_release);
        atomic_fetch_sub_explicit(&protection->inside, 1, memory_order_release);
        futex_wake_all(&protection->inside);
    }
    return NULL;
}

bool protection_is_at_work(struct protection *protection)
{
    return atomic_load_explicit(&protection->inside, memory_order_seq_cst) != 0;
}

/* What a helper has taken and not done: a page may be protected twice. A helper that has
 * lost its CPU would keep the server waiting until it gets one again, which on a busy
 * machine was seconds. */
static void do_what_helpers_have(struct protection *protection)
{
    const struct region_set *set = &protection->job.set;
    for (unsigned i = 0; i < protection->count; i++) {
        uint64_t place =
            atomic_load_explicit(&protection->helpers[i].place, memory_order_acquire);
        size_t region = place >> SHARE_BITS;
        if (place == NO_PLACE || region >= set->count)
            continue;
        uint64_t start = share_start(&set->regions[region], place & SHARE_MASK);
        if (start >= set->regions[region].end)
            continue;
        int error = protect(protection, &protection->job, region, start,
                            share_end(&set->regions[region], start, SHARE_BYTES));
        if (error)
            note_error(protection, error);
    }
}

/* Without sleeping: a thread that sleeps has a word of its own written by the kernel when
 * it goes on (rseq), and the page of that word is protected by now; the pause would wait
 * for the fault server. */
static void end_shares(struct protection *protection)
{
    uint64_t until = clock_usec() + SPIN_USEC;
    while (protection_is_at_work(protection))
        if (clock_usec() >= until) {
            do_what_helpers_have(protection);
            atomic_store_explicit(&protection->taken_over, true, memory_order_release);
            return;
        }
}

/* FAULT_SLEEPING_HELPER: so that there is one, on a busy machine too. */
static void let_a_helper_begin(struct protection *protection)
{
    uint64_t until = clock_usec() + HELPER_SLEEP_USEC / 3;
    while (!protection_is_at_work(protection) && clock_usec() < until)
        sleep_usec(100);
}

/* From a place on. No helper is inside. */
static int protect_together(struct protection *protection, const struct job *job,
                            uint64_t place)
{
    int error = regions_copy(&job->set, &protection->job.set);
    if (error)
        return error;
    protection->job.userfaultfd = job->userfaultfd;
    atomic_store_explicit(&protection->next, place, memory_order_relaxed);
    atomic_store_explicit(&protection->error, 0, memory_order_relaxed);
    atomic_store_explicit(&protection->taken_over, false, memory_order_relaxed);
    atomic_store_explicit(&protection->open, true, memory_order_seq_cst);
    atomic_fetch_add_explicit(&protection->jobs, 1, memory_order_release);
    futex_wake_all(&protection->jobs);
    if (fault_point(FAULT_SLEEPING_HELPER))
        let_a_helper_begin(protection);
    protect_shares(protection, NULL);
    atomic_store_explicit(&protection->open, false, memory_order_seq_cst);
    end_shares(protection);
    return atomic_load_explicit(&protection->error, memory_order_relaxed);
}

/* ---- the caller ------------------------------------------------------------------ */

static bool is_slow(uint64_t bytes, uint64_t usec)
{
    return bytes >= SHARE_BYTES && (usec << 30) / bytes > SLOW_USEC_PER_GB;
}

/* Alone, as long as it goes fast. `*place`: where others may go on; past the end when all
 * is done. */
static int protect_fast(struct protection *protection, const struct job *job, bool alone,
                        uint64_t *place)
{
    const struct region_set *set = &job->set;
    uint64_t bytes = FIRST_BYTES;
    for (size_t i = 0; i < set->count; i++) {
        const struct region *region = &set->regions[i];
        for (uint64_t at = region->start, end; at < region->end; at = end) {
            uint64_t began = clock_usec();
            end = share_end(region, at, bytes);
            int error = protect(protection, job, i, at, end);
            if (error)
                return error;
            bool slow = is_slow(end - at, clock_usec() - began) ||
                        fault_point(FAULT_SLEEPING_HELPER);
            if (slow && !alone && end % SHARE_BYTES == 0) {
                *place = (uint64_t)i << SHARE_BITS |
                         (end - round_down(region->start, SHARE_BYTES)) / SHARE_BYTES;
                return 0;
            }
            if (!slow && bytes < MOST_BYTES)
                bytes *= 2;
        }
    }
    *place = (uint64_t)set->count << SHARE_BITS;
    return 0;
}

int protection_set(struct protection *protection, int userfaultfd,
                   const struct region_set *set)
{
    DEMAND_MAIN_THREAD();
    const struct job job = {userfaultfd, *set};
    uint64_t place = 0;
    /* One that is late still looks at the last job. */
    bool alone = !protection->count || set->count > protection->job.set.capacity ||
                 protection_is_at_work(protection);
    atomic_store_explicit(&protection->bytes, 0, memory_order_relaxed);
    int error = protect_fast(protection, &job, alone, &place);
    if (error || place >> SHARE_BITS >= set->count)
        return error;
    return protect_together(protection, &job, place);
}

void protection_wait(struct protection *protection)
{
    DEMAND_THREAD(THREAD_SAVER);
    uint32_t inside;
    while ((inside = atomic_load_explicit(&protection->inside, memory_order_seq_cst)) !=
           0)
        futex_wait(&protection->inside, inside, 10);
}

uint64_t protection_bytes(const struct protection *protection)
{
    return atomic_load_explicit(&protection->bytes, memory_order_relaxed);
}

/* ---- life ------------------------------------------------------------------------ */

struct protection *protection_create(void)
{
    struct protection *made = memory_map(sizeof(*made));
    struct thread_cpus cpus;
    if (!made)
        return NULL;
    regions_init(&made->job.set, made->storage, REGIONS_MAX);
    thread_get_cpus(0, &cpus);
    unsigned wanted = thread_count_cpus(&cpus) - 1;
    for (unsigned i = 0; i < wanted && i < HELPERS_MAX; i++) {
        struct helper *helper = &made->helpers[i];
        helper->protection = made;
        atomic_store_explicit(&helper->place, NO_PLACE, memory_order_relaxed);
        if (thread_start(&helper->thread, THREAD_HELPER, STACK_BYTES, help, helper) != 0)
            break;
        made->count++;
    }
    return made;
}

void protection_destroy(struct protection *protection)
{
    if (!protection)
        return;
    atomic_store_explicit(&protection->stopping, true, memory_order_release);
    atomic_fetch_add_explicit(&protection->jobs, 1, memory_order_release);
    futex_wake_all(&protection->jobs);
    for (unsigned i = 0; i < protection->count; i++)
        thread_join(&protection->helpers[i].thread);
    memory_unmap(protection, sizeof(*protection));
}
