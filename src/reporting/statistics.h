/* What the module tells of itself: statistics, history, findings. Main thread. */
#ifndef RDB_UFFD_STATISTICS_H
#define RDB_UFFD_STATISTICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "doctor.h"
#include "history.h"

enum rdb_uffd_state { RDB_UFFD_IDLE, RDB_UFFD_SAVING, RDB_UFFD_RELEASING };

struct rdb_uffd_statistics {
    enum rdb_uffd_state state;
    bool supported; /* false: every save falls back */
    const char *unsupported_reason;
    uint64_t snapshots_ok;
    uint64_t snapshots_failed;
    uint64_t snapshots_cancelled; /* ended by the server, as it kills a child */
    uint64_t forks_replaced;
    uint64_t fork_fallbacks;
    const char *last_fallback_reason;  /* "" when there was none */
    const char *last_error;            /* of the last failed snapshot, "" */
    uint64_t last_freeze_usec;         /* of which: */
    uint64_t last_freeze_capture_usec; /* what a child would inherit; the file */
    uint64_t last_freeze_prepare_usec; /* regions, buffer, spool */
    uint64_t last_freeze_steer_usec;   /* the allocator */
    uint64_t
        last_freeze_protect_usec; /* the write protection, and the child for modules' values */
    uint64_t last_save_msec;
    uint64_t last_rest_msec; /* of which the saver left the CPU to the writers */
    uint64_t last_release_usec;
    uint64_t last_audit_usec; /* of asking the kernel whether all stayed protected */
    uint64_t last_pages_lost; /* that had not */
    uint64_t last_faults;
    uint64_t last_unprotects;
    uint64_t last_huge_pages_split; /* since this machine is slow to read parts of them */
    uint64_t last_fault_sched_wait_usec; /* the fault server had no CPU, within 40 ms */
    uint64_t last_pages_preserved;
    uint64_t last_spool_peak_bytes;
    uint64_t last_regions;
    uint64_t last_frozen_bytes;
    uint64_t last_protected_bytes; /* of those, without holes */
    uint64_t keys_saved;           /* of the save under way */
    uint64_t keys_total;
    uint64_t buffer_limit_bytes;
    uint64_t buffer_used_bytes;
    uint64_t buffer_peak_bytes; /* of the save under way, or the last one */
    /* What else counts against the limit, in the save under way, or the last one. */
    uint64_t index_bytes;
    uint64_t new_values_peak_bytes;
    uint64_t limit_least_bytes;
    uint64_t limit_spooled_pages;
    uint64_t pages_packed;
    uint64_t packed_bytes;
    uint64_t spool_bytes;
    uint64_t writer_waits;
    uint64_t writer_wait_usec;
    uint64_t writer_wait_longest_usec;
    /* Of every fault of the save under way, or the last one. */
    uint64_t fault_wait_p50_usec;
    uint64_t fault_wait_p99_usec;
    uint64_t fault_wait_max_usec;
    uint64_t save_id;           /* of the save under way, or the last one; 0: none */
    const char *save_cause;     /* … and what made the server ask for it, "" */
    uint64_t save_elapsed_msec; /* of the save under way, 0 when idle */
    /* Of the child for values of modules' types, in this save or the last. */
    uint64_t child_values;
    uint64_t child_fork_usec; /* of the pause */
    uint64_t child_wait_usec; /* the saver's, for its bytes */
    uint64_t child_pages;     /* given to it, in all */
    uint64_t child_pages_dropped;
    uint64_t child_peak_bytes; /* of such pages, at once */
    uint64_t advices_refused;
    uint64_t deferred_free_bytes; /* freed by the server, held until the snapshot ends */
    uint64_t evicted_bytes; /* … and given back meanwhile, in this one or the last */
    uint64_t ready_bytes;   /* touched ahead for the next snapshot's new values */
    uint64_t saver_faults;
    uint64_t huge_pages_mended;
    bool vectored_madvise;
    uint64_t threads; /* that write a dump */
};

/* Fills in all of it, also when nothing is supported. Its texts are static or the
 * module's own: valid until the server runs on. */
void rdb_uffd_get_statistics(struct rdb_uffd_statistics *statistics);
/* Sets the counters to 0 and forgets the history; not what belongs to a save under
 * way, nor the number of the next one. */
void rdb_uffd_reset_statistics(void);
/* The `back`th last save, 0 the newest; NULL when there are not so many. Valid until
 * the server runs on. */
const struct history_entry *rdb_uffd_history(size_t back);

/* What is fine, doubtful or missing, and what to do about it. Asks `server` on the way.
 * Returns how many findings there are. */
size_t rdb_uffd_examine(const struct doctor_server *server,
                        struct doctor_finding findings[DOCTOR_FINDINGS]);

#endif
