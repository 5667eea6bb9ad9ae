/* The inside of the child without a heap: what it does from its first instruction on.
 *
 *   fork() ── first touch of the heap: SIGSEGV ──▶ maps the same addresses anew, has them
 *             watched by a userfaultfd of its own and hands that to the parent
 *          ── inside_run() ──▶ saves values and aux data as it is told, until it is killed
 *
 * It never writes a dump, and nothing that it does reaches the parent's memory. */
#ifndef RDB_UFFD_VALUE_CHILD_INSIDE_H
#define RDB_UFFD_VALUE_CHILD_INSIDE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "keyspace/value_source.h"
#include "memory/regions.h"

#define INSIDE_RANGES_MAX 4096
#define INSIDE_DROPS_MAX  256

/* What the parent sends. */
struct inside_request {
    int aux; /* of which place it wants the aux data; 0: */
    struct wanted_value value;
};

/* What comes back: pieces with their length before them, and one of these two in the place
 * of a length. */
#define INSIDE_PIECE_BYTES 65536u
#define INSIDE_DONE        UINT32_MAX
#define INSIDE_FAILED      (UINT32_MAX - 1)

/* In memory that the child has a copy of. Written by the main thread before the fork. */
struct inside {
    struct region ranges[INSIDE_RANGES_MAX]; /* that the child does not inherit */
    size_t range_count;
    pid_t parent;
    int stream;   /* the child's end: requests in, their bytes out */
    int handover; /* the child's end: its userfaultfd out, what to drop in */
    int outer_stream, outer_handover; /* the parent's ends */
    uint64_t memory;                  /* bytes that it may take for itself */
    uint32_t writer_cpu;
    bool compress; /* strings: not as the server has set it, but as this dump has it */
    bool ready;    /* in the child: its heap is there */
    uint32_t buffered; /* of `buffer` */
    unsigned char buffer[INSIDE_PIECE_BYTES];
    unsigned char drop_stack[16384] __attribute__((aligned(16)));
    struct region drops[INSIDE_DROPS_MAX];
};

/* Before and after the fork, main thread. 0 or -errno. */
int inside_expect(struct inside *inside);
void inside_forget(void);
/* Whether this process is such a child. Async-signal-safe. */
bool inside_is_here(void);
/* In the child, when fork() has returned. */
_Noreturn void inside_run(void);

#endif
