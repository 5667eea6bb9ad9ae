/* The packer: a thread that packs pages while the fault server does other
 * things. A writer must not pay for LZ4, and the fault server runs on the
 * writer's CPU; this thread keeps off it.
 *
 * It changes nothing of the preserved pages: the fault server posts raw pages
 * (which nobody may move until they come back), and later takes the pieces in
 * the order of posting and puts them in place. A ring with one producer and one
 * consumer each way:
 *
 *      taken ≤ packed ≤ posted ≤ taken + PACKER_JOBS
 */
#ifndef RDB_UFFD_MEMORY_PACKER_H
#define RDB_UFFD_MEMORY_PACKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "memory/packing.h"

#define PACKER_JOBS 32u

struct packer_job {
    uint32_t slot; /* the caller's */
    uint32_t page;
    const void *page_bytes;
    size_t length; /* result: of the piece; 0: it does not pack */
    struct piece piece;
};

struct packer {
    struct thread thread;
    _Atomic bool stopping;
    _Atomic bool abandoned;  /* nobody wants the results any more */
    _Atomic uint32_t posted; /* futex word */
    _Atomic uint32_t packed; /* futex word */
    _Atomic uint32_t asleep;
    uint32_t taken; /* the poster's */
    _Atomic uint32_t avoided_cpu;
    _Atomic uint32_t usec_for_64;   /* what 64 pages take, a running mean */
    void (*drained)(void *context); /* all that was posted is packed */
    void *context;

    LZ4_stream_t work;     /* the thread's */
    LZ4_stream_t own_work; /* for who packs without the thread */
    struct piece own_piece;
    unsigned char own_page[PAGE_BYTES];
    struct packer_job jobs[PACKER_JOBS];
};

/* NULL when there is no memory. */
struct packer *packer_create(void);
void packer_destroy(struct packer *packer);
/* Starts the thread; without it nothing can be posted. `drained` is called on
 * that thread. 0 or -errno. */
int packer_start(struct packer *packer, void (*drained)(void *context), void *context);
void packer_stop(struct packer *packer);

/* A new snapshot: the thread keeps off the calling thread's CPU. */
void packer_begin(struct packer *packer);
/* Drops what is posted; returns when the thread looks at no page any more. */
void packer_end(struct packer *packer);

/* The ring, by the one thread that posts. packer_next_job() gives the job to fill
 * in, `ahead` of those not yet handed over, NULL when the ring is full;
 * packer_post() hands `count` of them over. */
struct packer_job *packer_next_job(struct packer *packer, uint32_t ahead);
void packer_post(struct packer *packer, uint32_t count);
/* The oldest job that is done, NULL when there is none; valid until
 * packer_take() removes it. */
struct packer_job *packer_first_done(struct packer *packer);
void packer_take(struct packer *packer);

#endif
