#include "memory/protection.h"

#include <errno.h>
#include <stdatomic.h>

#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/pagemap.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"

#define STACK_BYTES (64 * 1024)
#define HELPERS_MAX 3
/* Pieces end at multiples of these, so that no huge page is split. */
#define FIRST_BYTES (UINT64_C(64) << 20)
#define MOST_BYTES  (UINT64_C(4) << 30)
#define SHARE_BYTES (UINT64_C(16) << 20)
/* Slower than this are small pages. */
#define SLOW_USEC_PER_GB 3000
/* A share takes less than this, unless its helper has lost its CPU. */
#define SPIN_USEC      2000
#define RANGES_AT_ONCE 64
/* A place in the set: which region, and which share of it. */
#define SHARE_BITS 32
#define SHARE_MASK ((UINT64_C(1) << SHARE_BITS) - 1)

struct protection {
    struct thread helpers[HELPERS_MAX];
    unsigned count;
    _Atomic bool stopping;
    _Atomic uint32_t jobs;   /* futex word: grows with each job */
    _Atomic bool open;       /* there is a job */
    _Atomic uint32_t inside; /* futex word: helpers that look at it */
    _Atomic uint64_t next;   /* place of the next share that nobody has */
    _Atomic int error;       /* the first */
    _Atomic uint64_t bytes;  /* that were protected */
    /* Of the job; constant while it is open. */
    int userfaultfd;
    int pagemap; /* -1: nothing is protected yet */
    const struct region_set *set;
};

static int protect_all(struct protection *protection, uint64_t start, uint64_t end)
{
    int error;
    if (start == end)
        return 0;
    do {
        error = userfaultfd_protect(protection->userfaultfd, start, end - start);
    } while (error == -EAGAIN);
    atomic_fetch_add_explicit(&protection->bytes, end - start, memory_order_relaxed);
    return error;
}

/* What lies between the ranges that are protected, from `*at` on, which moves behind the
 * last of them. */
static int protect_between(struct protection *protection, uint64_t *at,
                           const struct pagemap_range *ranges, int count)
{
    int error = 0;
    for (int i = 0; i < count && !error; i++) {
        if (!pagemap_is_protected(&ranges[i]) && !fault_point(FAULT_TRUST_STANDING))
            continue;
        error = protect_all(protection, *at, ranges[i].start);
        *at = ranges[i].end;
    }
    return error;
}

/* Leaves alone what is protected. A kernel that does not tell has all of it protected. */
static int protect_rest(struct protection *protection, uint64_t start, uint64_t end)
{
    struct pagemap_range ranges[RANGES_AT_ONCE];
    uint64_t at = start, scanned = start;
    while (scanned < end) {
        int count = pagemap_scan_protection(protection->pagemap, scanned, end, ranges,
                                            RANGES_AT_ONCE, &scanned);
        if (count < 0)
            break;
        int error = protect_between(protection, &at, ranges, count);
        if (error)
            return error;
    }
    return protect_all(protection, at, end);
}

/* Part of region `i` of the set. */
static int protect(struct protection *protection, size_t i, uint64_t start, uint64_t end)
{
    if (i == 1 && fault_point(FAULT_PROTECT_FAILS))
        return -ENOMEM;
    return protection->pagemap < 0 ? protect_all(protection, start, end)
                                   : protect_rest(protection, start, end);
}

static uint64_t piece_end(const struct region *region, uint64_t at, uint64_t bytes)
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

/* False when nothing is left. */
static bool take_share(struct protection *protection, size_t *region, uint64_t *start,
                       uint64_t *end)
{
    const struct region_set *set = protection->set;
    uint64_t next = atomic_load_explicit(&protection->next, memory_order_relaxed);
    for (;;) {
        size_t i = next >> SHARE_BITS;
        if (i >= set->count)
            return false;
        *start = share_start(&set->regions[i], next & SHARE_MASK);
        bool past = *start >= set->regions[i].end;
        uint64_t after = past ? ((uint64_t)i + 1) << SHARE_BITS : next + 1;
        if (!atomic_compare_exchange_weak_explicit(&protection->next, &next, after,
                                                   memory_order_relaxed,
                                                   memory_order_relaxed))
            continue;
        if (!past) {
            *region = i;
            *end = piece_end(&set->regions[i], *start, SHARE_BYTES);
            return true;
        }
        next = after;
    }
}

static void protect_shares(struct protection *protection)
{
    size_t region;
    uint64_t start, end;
    while (!atomic_load_explicit(&protection->error, memory_order_relaxed) &&
           take_share(protection, &region, &start, &end)) {
        int none = 0, error = protect(protection, region, start, end);
        if (error)
            atomic_compare_exchange_strong_explicit(&protection->error, &none, error,
                                                    memory_order_relaxed,
                                                    memory_order_relaxed);
    }
}

static void *help(void *argument)
{
    struct protection *protection = argument;
    uint32_t seen = 0;
    while (!atomic_load_explicit(&protection->stopping, memory_order_acquire)) {
        uint32_t jobs = atomic_load_explicit(&protection->jobs, memory_order_acquire);
        if (jobs == seen) {
            futex_wait(&protection->jobs, seen, -1);
            continue;
        }
        seen = jobs;
        /* First inside, then the look: the caller closes first and then waits. */
        atomic_fetch_add_explicit(&protection->inside, 1, memory_order_seq_cst);
        if (atomic_load_explicit(&protection->open, memory_order_seq_cst))
            protect_shares(protection);
        atomic_fetch_sub_explicit(&protection->inside, 1, memory_order_release);
        futex_wake_all(&protection->inside);
    }
    return NULL;
}

/* Until no helper is at it. Without sleeping, at first: a thread that sleeps has a word
 * of its own written by the kernel when it goes on (rseq), and the page of that word is
 * protected by now; the pause would wait for the fault server. */
static void wait_for_helpers(struct protection *protection)
{
    uint64_t until = clock_usec() + SPIN_USEC;
    uint32_t inside;
    while ((inside = atomic_load_explicit(&protection->inside, memory_order_seq_cst)) !=
           0) {
        if (clock_usec() >= until)
            futex_wait(&protection->inside, inside, 1);
    }
}

/* From a place on. */
static int protect_together(struct protection *protection, uint64_t place)
{
    atomic_store_explicit(&protection->next, place, memory_order_relaxed);
    atomic_store_explicit(&protection->error, 0, memory_order_relaxed);
    atomic_store_explicit(&protection->open, true, memory_order_seq_cst);
    atomic_fetch_add_explicit(&protection->jobs, 1, memory_order_release);
    futex_wake_all(&protection->jobs);
    protect_shares(protection);
    atomic_store_explicit(&protection->open, false, memory_order_seq_cst);
    wait_for_helpers(protection);
    return atomic_load_explicit(&protection->error, memory_order_relaxed);
}

/* ---- the caller ------------------------------------------------------------------ */

static bool is_slow(uint64_t bytes, uint64_t usec)
{
    return bytes >= SHARE_BYTES && (usec << 30) / bytes > SLOW_USEC_PER_GB;
}

/* Alone, as long as it goes fast. `*place`: where others may go on; past the end when all
 * is done. */
static int protect_fast(struct protection *protection, uint64_t *place)
{
    const struct region_set *set = protection->set;
    uint64_t bytes = FIRST_BYTES;
    for (size_t i = 0; i < set->count; i++) {
        const struct region *region = &set->regions[i];
        for (uint64_t at = region->start, end; at < region->end; at = end) {
            uint64_t began = clock_usec();
            end = piece_end(region, at, bytes);
            int error = protect(protection, i, at, end);
            if (error)
                return error;
            bool slow = is_slow(end - at, clock_usec() - began);
            if (slow && protection->count && end % SHARE_BYTES == 0) {
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

int protection_set(struct protection *protection, int userfaultfd, int pagemap,
                   const struct region_set *set)
{
    uint64_t place = 0;
    atomic_store_explicit(&protection->bytes, 0, memory_order_relaxed);
    protection->userfaultfd = userfaultfd;
    protection->pagemap = pagemap;
    protection->set = set;
    int error = protect_fast(protection, &place);
    if (error || place >> SHARE_BITS >= set->count)
        return error;
    return protect_together(protection, place);
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
    thread_get_cpus(0, &cpus);
    unsigned wanted = thread_count_cpus(&cpus) - 1;
    for (unsigned i = 0; i < wanted && i < HELPERS_MAX; i++) {
        if (thread_start(&made->helpers[i], "uffd-protect", STACK_BYTES, help, made) != 0)
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
        thread_join(&protection->helpers[i]);
    memory_unmap(protection, sizeof(*protection));
}
