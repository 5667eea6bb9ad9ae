#include "memory/packer.h"

#include "kernel/contract.h"
#include "kernel/memory.h"

#define STACK_BYTES (128 * 1024)
/* A lost wake-up costs at most this. */
#define SLEEP_MSEC 200
/* Microseconds that 64 pages take, until it was measured. */
#define FIRST_GUESS 640

struct packer *packer_create(void)
{
    struct packer *packer = memory_map(sizeof(struct packer));
    if (packer)
        atomic_store_explicit(&packer->usec_for_64, FIRST_GUESS, memory_order_relaxed);
    return packer;
}

void packer_destroy(struct packer *packer)
{
    memory_unmap(packer, sizeof(*packer));
}

/* ---- the thread ------------------------------------------------------------------ */

static void note_duration(struct packer *packer, uint64_t usec)
{
    uint32_t mean = atomic_load_explicit(&packer->usec_for_64, memory_order_relaxed);
    mean = (uint32_t)(mean - mean / 16 + usec * 64 / 16);
    atomic_store_explicit(&packer->usec_for_64, mean, memory_order_relaxed);
}

static void pack_job(struct packer *packer, struct packer_job *job)
{
    job->length = 0;
    if (atomic_load_explicit(&packer->abandoned, memory_order_relaxed))
        return;
    uint64_t began = clock_usec();
    job->length = piece_pack(&job->piece, &packer->work, job->page, job->page_bytes);
    note_duration(packer, clock_usec() - began);
}

/* Said first, then looked (seq_cst): packer_post() does it the other way round, and one of
 * the two sees the other. */
static void wait_for_jobs(struct packer *packer, uint32_t packed)
{
    atomic_store_explicit(&packer->asleep, 1, memory_order_seq_cst);
    if (atomic_load_explicit(&packer->posted, memory_order_seq_cst) == packed)
        futex_wait(&packer->posted, packed, SLEEP_MSEC);
    atomic_store_explicit(&packer->asleep, 0, memory_order_relaxed);
}

static void keep_off_writer(struct packer *packer, const struct thread_cpus *all,
                            uint32_t *avoided)
{
    uint32_t cpu = atomic_load_explicit(&packer->avoided_cpu, memory_order_relaxed);
    if (cpu == *avoided)
        return;
    *avoided = cpu;
    thread_stay_off(all, cpu);
}

static void *run_packer(void *argument)
{
    struct packer *packer = argument;
    struct thread_cpus all;
    uint32_t packed = 0, avoided = UINT32_MAX;
    thread_get_cpus(0, &all);
    while (!atomic_load_explicit(&packer->stopping, memory_order_acquire)) {
        /* The jobs that packer_post() has filled in before. */
        uint32_t posted = atomic_load_explicit(&packer->posted, memory_order_acquire);
        if (posted == packed) {
            wait_for_jobs(packer, packed);
            continue;
        }
        keep_off_writer(packer, &all, &avoided);
        while (packed != posted) {
            pack_job(packer, &packer->jobs[packed % PACKER_JOBS]);
            /* The piece is there, and the page is not looked at any more: whoever finds
             * this by acquire may use its slot for something else. */
            atomic_store_explicit(&packer->packed, ++packed, memory_order_release);
        }
        futex_wake_all(&packer->packed);
        if (!atomic_load_explicit(&packer->abandoned, memory_order_relaxed))
            packer->drained(packer->context);
    }
    return NULL;
}

int packer_start(struct packer *packer, void (*drained)(void *context), void *context)
{
    packer->drained = drained;
    packer->context = context;
    return thread_start(&packer->thread, THREAD_PACKER, STACK_BYTES, run_packer, packer);
}

void packer_stop(struct packer *packer)
{
    if (!packer->thread.running)
        return;
    atomic_store_explicit(&packer->stopping, true, memory_order_release);
    thread_join_sleeper(&packer->thread, &packer->posted);
}

/* ---- for the others -------------------------------------------------------------- */

void packer_begin(struct packer *packer)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&packer->avoided_cpu, thread_own_cpu(), memory_order_relaxed);
    atomic_store_explicit(&packer->abandoned, false, memory_order_relaxed);
}

void packer_end(struct packer *packer)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    uint32_t posted = atomic_load_explicit(&packer->posted, memory_order_acquire);
    atomic_store_explicit(&packer->abandoned, true, memory_order_relaxed);
    for (;;) {
        uint32_t packed = atomic_load_explicit(&packer->packed, memory_order_acquire);
        if (packed == posted)
            break;
        futex_wait(&packer->packed, packed, 1);
    }
    packer->taken = posted;
}

struct packer_job *packer_next_job(struct packer *packer, uint32_t ahead)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    uint32_t posted = atomic_load_explicit(&packer->posted, memory_order_relaxed);
    if (!packer->thread.running || posted + ahead - packer->taken >= PACKER_JOBS)
        return NULL;
    return &packer->jobs[(posted + ahead) % PACKER_JOBS];
}

void packer_post(struct packer *packer, uint32_t count)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    if (!count)
        return;
    atomic_fetch_add_explicit(&packer->posted, count, memory_order_seq_cst);
    if (atomic_load_explicit(&packer->asleep, memory_order_seq_cst))
        futex_wake_all(&packer->posted);
}

struct packer_job *packer_first_done(struct packer *packer)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    if (packer->taken == atomic_load_explicit(&packer->packed, memory_order_acquire))
        return NULL;
    return &packer->jobs[packer->taken % PACKER_JOBS];
}

void packer_take(struct packer *packer)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    packer->taken++;
}
