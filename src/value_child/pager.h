/* Gives the child its pages, as they stood at the freeze, when it touches them.
 *
 * A page of the child is absent, clean (as the frozen view has it: it may be dropped and
 * given again) or its own (it has written to it: never dropped). Clean ones are dropped,
 * the oldest first, when there are more than the bound; the child does that itself, and no
 * page is given meanwhile.
 *
 * One thread, from pager_start() to pager_stop(). */
#ifndef RDB_UFFD_VALUE_CHILD_PAGER_H
#define RDB_UFFD_VALUE_CHILD_PAGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "memory/regions.h"
#include "view/view.h"

/* As much is given at once, where it is absent. */
#define PAGER_BATCH_PAGES 16

struct pager {
    /* Who starts it. */
    struct view *view;
    const struct region_set *ranges; /* that the child has anew */
    int handover;        /* the child's descriptor comes through it, drops go */
    uint64_t most_pages; /* clean at a time, at least a few batches */
    uint64_t most_own_pages;

    struct thread thread;
    _Atomic bool stopping;
    /* The pager's. */
    int userfaultfd; /* the child's, -1: not yet */
    struct view_reader reader;
    uint8_t *states; /* of the view's pages */
    uint64_t state_bytes;
    uint64_t *given; /* a ring of addresses, the oldest first */
    uint64_t given_first, given_count, given_capacity;
    unsigned char *batch;
    uint64_t own_pages;
    /* Read by any thread. */
    _Atomic uint64_t pages;      /* given, in all */
    _Atomic uint64_t pages_peak; /* that the child had at once */
    _Atomic uint64_t held;       /* that it has now */
    _Atomic uint64_t dropped;
    _Atomic int error;
};

/* 0 or -errno. */
int pager_start(struct pager *pager);
/* The child has ended, or will not touch anything any more. */
void pager_stop(struct pager *pager);

#endif
