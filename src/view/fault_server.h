/* The fault server: the one thread that preserves pages.
 *
 * While a snapshot is frozen, a thread of the server that writes to a protected
 * page stops in the kernel; the fault server reads the message, puts the page
 * into the preserved pages, lifts the protection of that page, and the writer
 * goes on. Of a block of the allocator's own (memory/metadata.h) nothing is kept, and it
 * is lifted as a whole. Nobody else writes to the preserved pages: who needs a range preserved
 * before the kernel drops it (madvise, munmap) asks fault_server_preserve().
 *
 * It touches nothing that is or may be protected: its stack and TLS, this
 * structure, the view and the preserved pages all come from memory_map() or
 * are in the module's own data, which the scan for regions leaves out. It never
 * allocates, takes no lock, and calls no stdio.
 */
#ifndef RDB_UFFD_VIEW_FAULT_SERVER_H
#define RDB_UFFD_VIEW_FAULT_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "view/audit.h"
#include "view/splitter.h"
#include "view/view.h"
#include "view/wait_histogram.h"

struct fault_statistics {
    _Atomic uint64_t faults;       /* messages served in this snapshot */
    _Atomic uint64_t unprotects;   /* calls that lifted protection */
    _Atomic uint64_t writer_waits; /* faults that waited for the spool or for room */
    _Atomic uint64_t writer_wait_usec;
    _Atomic uint64_t writer_wait_longest_usec;
    _Atomic uint64_t saver_faults; /* faults of our own threads: should be 0 */
};

/* A range that somebody wants preserved; or pages that he has spooled himself. */
struct preserve_request {
    struct region range;               /* what is left of it */
    uint64_t pages[SPOOL_BATCH_PAGES]; /* their addresses, rising */
    size_t page_count;
    uint32_t place; /* of the first of them */
};

/* What is done with a fault. */
enum fault_duty {
    FAULTS_PARKED,    /* nothing is protected: none is served */
    FAULTS_PRESERVED, /* a snapshot: its page is preserved or forgone, and is lifted */
};

struct fault_server {
    struct thread thread;
    struct view *view;
    struct audit audit; /* of what it lifts and copies: audit.h */
    int wake_event;     /* eventfd: requests, changes of the limit, the end */
    _Atomic int userfaultfd;
    _Atomic uint32_t duty;    /* enum fault_duty, as it is wanted */
    _Atomic uint32_t on_duty; /* futex word: as it is; follows `duty` */
    _Atomic bool stopping;
    /* The heart beat for the watchdog: grows whenever the server looks, and with each
     * fault and each page that it is done with. */
    _Atomic uint64_t beats;
    _Atomic bool busy; /* with what it has found; else it sleeps, or is about to */
    /* It has not come back in time, and nobody waits for it any more. */
    _Atomic bool missing;
    /* A page waits because the policy says so, not because we hang. */
    _Atomic bool blocked_by_policy;

    /* One request at a time; requesters queue on `request_owner`. */
    _Atomic uint32_t request_owner;
    _Atomic uint32_t request_state; /* futex word */
    struct preserve_request request;
    _Atomic int request_result;

    /* Called once, from the server's thread, when the snapshot must be given
     * up; the view has already been failed. Must not block. */
    void (*failed)(void *context, int error);
    void *context;
    /* The main thread and this one stay on one CPU during a snapshot; set when
     * armed, by the main thread. */
    pid_t writer_id;
    bool may_forgo; /* set when armed, too */
    uint32_t writer_cpu;
    uint64_t armed_at;              /* of inherited_affinity_now() */
    struct thread_cpus writer_cpus; /* where it may run otherwise */
    _Atomic int32_t own_id;
    _Atomic bool roaming;       /* that CPU is too busy: both run anywhere */
    _Atomic int32_t own_thread; /* a thread that must never fault (the saver) */

    struct fault_statistics statistics;
    struct splitter splitter; /* of huge pages, where reads are slow */
    /* How long each fault of this snapshot waited once the server was awake for it;
     * the way into and out of the kernel, some microseconds, is not seen. */
    struct wait_histogram *waits; /* from memory_map() */
    uint64_t woken_nsec;          /* the serving thread's own */
};

/* Starts the thread, parked. `server` must be in memory that is never
 * protected. 0 or -errno. */
int fault_server_start(struct fault_server *server, struct view *view,
                       void (*failed)(void *context, int error), void *context);
/* Ends the thread. Not while armed. */
void fault_server_stop(struct fault_server *server);

/* Begins to keep the pages of this descriptor's faults. Before the first page is
 * protected. `may_forgo`: nothing is wanted of the allocator's own blocks
 * (memory/metadata.h): not where a child goes on allocating. Main thread. */
void fault_server_arm(struct fault_server *server, int userfaultfd, bool may_forgo);
/* Ends that, once nothing is protected any more. True when no page will be preserved any
 * more; false when the server is missing, and may still preserve one when it is back. */
bool fault_server_disarm(struct fault_server *server);
/* Its thread, once it has begun. Any thread. */
pid_t fault_server_thread(const struct fault_server *server);
/* Somebody may be waiting for it: it is busy, late, or asked for something. Any
 * thread. */
bool fault_server_is_due(const struct fault_server *server);
/* The emergency exit: it is missing from now on. Whoever waits for it goes on: requests
 * end with -EAGAIN. Nothing that it may be using may be taken from it until it has come
 * back. The view has failed before. Any thread. */
void fault_server_leave(struct fault_server *server);
bool fault_server_is_missing(const struct fault_server *server);
/* True if it is not missing (any more): it is parked, and uses nothing. Any thread but
 * its own, between snapshots. */
bool fault_server_is_back(struct fault_server *server);
/* Makes the server look at the limit again. Any thread. */
void fault_server_nudge(struct fault_server *server);

/* Lets the server and the writer run on any CPU until the snapshot ends: the
 * one they share has no time for them. Any thread. */
void fault_server_roam(struct fault_server *server);

/* Preserves every page of [start, end) that belongs to the frozen view, so that the
 * kernel may drop the range afterwards. Returns when it is done: 0; -EAGAIN
 * when the snapshot is over or failed (nothing to preserve any more), also because a page of
 * it had lost its protection, or the server is missing; -ENOBUFS when
 * there is no room and the policy is not to spool. Any thread but the fault server's. */
int fault_server_preserve(struct fault_server *server, uint64_t start, uint64_t end);
/* The same for up to SPOOL_BATCH_PAGES pages of the view, by address, that the caller has
 * written to the spool as a batch, at `place`, while they were protected or preserved
 * already: they take no room in memory. Only with BUFFER_SPOOL. */
int fault_server_take_spooled(struct fault_server *server, const uint64_t *pages,
                              size_t count, uint32_t place);

#endif
