/* Whether saves are served without fork, why not if they are not, and what has been counted
 * over all of them. */
#ifndef RDB_UFFD_SERVICE_H
#define RDB_UFFD_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "keyspace/sample.h"
#include "reporting/history.h"
#include "reporting/log_limit.h"
#include "snapshot.h"

/* How long saves fork for what a walk has met. */
enum doubt_end {
    DOUBT_UNTIL_TOLD,
    DOUBT_UNTIL_COMPARED, /* it was not compared: until something more is */
    DOUBT_WHILE_STRANGER, /* until what no walker knows is gone */
};

/* Main thread, but for what says otherwise. */
struct service {
    bool started;
    char unsupported[REASON_BYTES];   /* why no save can be served, "" if it can */
    char layout_reason[REASON_BYTES]; /* why the server is not known, "" if it is */
    bool proved;                      /* walks see what the server says: upkeep/proof.h */
    struct keyspace_kinds proved_kinds;
    uint64_t proof_tried_usec;
    char doubt[REASON_BYTES]; /* what a walk met that cannot be, "" if none did */
    enum doubt_end doubt_end;
    /* Where that is, when it is looked for again, and the pause before. */
    frozen_address stranger;
    uint64_t stranger_look_usec, stranger_pause_usec;
    bool has_allocator;
    char guard_reason[REASON_BYTES]; /* why its calls cannot be guarded, "" if they are */
    bool merging_lifted;             /* KSM was on for this process when we came */
    int huge_pages_refused; /* by the process before we came; 0: not, or it still is */
    char last_fallback_reason[REASON_BYTES];
    uint64_t forks_replaced;
    uint64_t fork_fallbacks;
    bool in_forked_child;
    struct history history;
    struct log_limit warnings;
    unsigned workers_wanted;     /* when last there were to be others */
    unsigned cpu_quota;          /* percent of a CPU, 0: no limit; as it was last read */
    uint64_t predicted_bytes;    /* by the last measurement */
    uint64_t written_per_second; /* pages, by the same */
    uint64_t saves;              /* asked for; the number of the last one */
    const char *last_cause;
};

extern struct service the_service;

#endif
