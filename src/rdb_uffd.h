/* rdb_uffd: background saves of a Redis or Valkey server without fork().
 *
 * This is the face: the rest of the module calls only this.
 *
 * What is always true
 *  1. Exact: the file holds the keyspace as it was when the server called
 *     fork(): nothing later, nothing lost.
 *  2. Bounded: memory for preserved pages never passes the operator's limit.
 *  3. The server's bookkeeping stays the server's: it believes a child runs, and
 *     fork, waitpid and kill answer as for one.
 *  4. Nothing protected is touched by whoever serves faults.
 *  5. Any doubt, plain fork: before the freeze everything may fail, and then
 *     the real fork() runs.
 *  6. A failed snapshot costs the snapshot only.
 *  7. Believed only when checked: before a dump is published, the kernel has said of
 *     every page that was not preserved that it has kept its protection (view/audit.h).
 *  8. Nobody of ours holds the server for long: docs/WAITS.md.
 *
 * One snapshot: enum phase in snapshot/snapshot.h, and who performs each step
 *
 *   NONE ── begin(): freeze_begin(), all or nothing; then begin_saving() ──▶ SAVING
 *    ▲        may fail: fall_back(), the real fork                          │  ▲
 *    │                                                        create_file() ▼  │
 *    │                                                                 CREATING
 *    │
 *    │   SAVING ── publish() ──▶ PUBLISHING ── run() ──┐
 *    │   SAVING ── any failure: run() ─────────────────┤
 *    │   SAVING, CREATING ── saver_kill(): cancel() ──▶ CANCELLED ── run() ──┐
 *    │                                                 ▼                     ▼
 *    └── run(): release_memory(), end_child() ◀── RELEASING ◀────────────────┘
 *
 *   prepare, freeze   main thread, inside the server's fork()
 *   SAVING            saver thread; faults served by the fault server
 *   PUBLISHING        too late for a kill
 *   RELEASING         saver thread; then the child "exits" and is reaped
 *
 * Threads: the server's main thread; the fault server (view/fault_server.h); the
 * saver (snapshot/saver.h) and those that help it walk (keyspace/crew.h); the keeper
 * (upkeep/keeper.h), which does chores between snapshots; the watchdog (snapshot/watchdog.h), which
 * watches the fault server during one, and between two where protection stands
 * (snapshot/standing.h); those that help to protect
 * (memory/protection.h); the packer (memory/packer.h). Who writes what: snapshot/snapshot.h.
 *
 * Every function here is called on the main thread.
 */
#ifndef RDB_UFFD_H
#define RDB_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/preserved.h"
#include "reporting/doctor.h"
#include "reporting/history.h"
#include "upkeep/dirty_rate.h"

#define RDB_UFFD_VERSION "0.1.0"

/* What the operator sets. Defaults: rdb_uffd_default_settings(). */
struct rdb_uffd_settings {
    bool enabled;             /* no: the server's own fork, silently */
    bool fallback;            /* no: what cannot be served fails, instead of forking */
    bool compression;         /* LZ4 for preserved pages when the buffer fills */
    bool huge_pages;          /* ask for huge pages, and mend them after a snapshot */
    bool standing_protection; /* what a snapshot has left unwritten stays protected */
    enum buffer_policy buffer_policy;
    uint64_t buffer_limit;      /* bytes; or, if buffer_percent is not 0: */
    unsigned buffer_percent;    /* of the memory in use at the freeze, 1 … 100 */
    unsigned threads;           /* that save, at most RDB_UFFD_THREADS_MAX; 0: chosen */
    char spool_directory[1024]; /* "": the server's working directory */
};

#define RDB_UFFD_THREADS_MAX 16

/* The least buffer limit that is taken: a few hundred pages and their index. */
#define RDB_UFFD_LEAST_BUFFER_LIMIT (UINT64_C(4) << 20)

/* What the server says of a key. */
enum rdb_uffd_key_type {
    RDB_UFFD_NO_KEY,
    RDB_UFFD_STRING,
    RDB_UFFD_LIST,
    RDB_UFFD_SET,
    RDB_UFFD_SORTED_SET,
    RDB_UFFD_HASH,
    RDB_UFFD_MODULE_VALUE,
    RDB_UFFD_STREAM,
};

struct rdb_uffd_testimony {
    enum rdb_uffd_key_type type;
    int64_t expire;       /* milliseconds since 1970, -1: never */
    unsigned char *value; /* as DUMP has it, cut off at `room` bytes; 0: not asked for */
    size_t room;
    size_t value_length; /* 0: it does not say */
};

enum rdb_uffd_level { RDB_UFFD_VERBOSE, RDB_UFFD_NOTICE, RDB_UFFD_WARNING };

/* What this part needs of whoever speaks to the server. */
struct rdb_uffd_host {
    void (*log)(enum rdb_uffd_level level, const char *text);
    uint64_t (*memory_in_use)(void); /* bytes, for buffer_percent; may be NULL */
    /* Makes the server call rdb_uffd_tick() at once, besides the usual ticks. Any
     * thread. */
    void (*wake)(void);
    /* To prove what is known of its keyspace by, before the first save. Also called
     * from within the server's fork(). */
    bool (*has_database)(int database);
    uint64_t (*count_keys)(int database);
    void (*ask_key)(int database, const void *name, size_t length,
                    struct rdb_uffd_testimony *said);
    const char *server_name;    /* "redis" or "valkey" */
    const char *server_version; /* "7.0.15" */
    const char *saver_cpus;     /* the server's bgsave_cpulist, "": any */
    const char *rewriter_cpus;  /* and its aof_rewrite_cpulist */
};

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
    uint64_t last_freeze_protect_usec; /* the write protection itself */
    uint64_t last_save_msec;
    uint64_t last_rest_msec; /* of which the saver left the CPU to the writers */
    uint64_t last_release_usec;
    uint64_t last_audit_usec; /* of asking the kernel whether all stayed protected */
    uint64_t last_pages_lost; /* that had not */
    uint64_t last_faults;
    uint64_t last_unprotects;
    uint64_t last_pages_preserved;
    uint64_t last_spool_peak_bytes;
    uint64_t last_regions;
    uint64_t last_frozen_bytes;
    uint64_t last_protected_bytes; /* of those, what did not stand protected already */
    bool protection_stands;        /* some of the heap, since the last save */
    uint64_t standing_lifts;       /* writes that waited for that, 2 MB each */
    uint64_t keys_saved;           /* of the save under way */
    uint64_t keys_total;
    uint64_t buffer_limit_bytes;
    uint64_t buffer_used_bytes;
    uint64_t buffer_peak_bytes; /* of the save under way, or the last one */
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
    uint64_t advices_refused;
    uint64_t late_free_bytes; /* freed by the server, held until the snapshot ends */
    uint64_t evicted_bytes;   /* … and given back meanwhile, in this one or the last */
    uint64_t ready_bytes;     /* touched ahead for the next snapshot's new values */
    uint64_t saver_faults;
    uint64_t huge_pages_mended;
    bool vectored_madvise;
    uint64_t threads; /* that write a dump */
};

void rdb_uffd_default_settings(struct rdb_uffd_settings *settings);

/* Begins to stand in for the server's forks. Returns 0 also when this server or
 * kernel is not supported: then every save falls back, and the statistics and
 * one log line say why. -errno when the module cannot be loaded at all.
 * `host` must stay valid. */
int rdb_uffd_start(const struct rdb_uffd_host *host,
                   const struct rdb_uffd_settings *settings);
/* Takes new settings; a new limit also reaches a snapshot under way. */
void rdb_uffd_configure(const struct rdb_uffd_settings *settings);
/* Leaves the server as it was. -EBUSY and a sentence in `reason` during a snapshot, and
 * when somebody else has patched since what is to be put back: then nothing has changed. */
int rdb_uffd_stop(char *reason, size_t reason_size);

/* Whether values of module types are to be looked for among the keys that the server
 * held already at the start: it has such types of its own (Redis 8.0: vectorset), and
 * new values are seen as they come. */
bool rdb_uffd_watches_values(void);
/* There are such values, or there may be: saves fork from now on. Static text. */
void rdb_uffd_note_values(const char *why);
/* They are being looked for: saves fork meanwhile. */
void rdb_uffd_search_values(bool under_way);
/* Another module was loaded. */
void rdb_uffd_modules_changed(void);

/* To be called a few times a second: hands over what other threads want logged
 * and does what only the main thread may do. */
void rdb_uffd_tick(void);

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

/* Begins to measure how fast the heap is written to, for 1 to DIRTY_RATE_MAX_SECONDS
 * seconds; 0: as long as the last save took, within 1 to 10. Returns NULL, or why it
 * cannot be done (static text, or valid until the module is unloaded). */
const char *rdb_uffd_begin_dirty_rate(unsigned seconds);
/* True when the measurement has ended: then `*result` is filled in, or `*failure` says
 * why there is none (else it is NULL). To be called until it returns true. */
bool rdb_uffd_end_dirty_rate(struct rdb_uffd_dirty_rate *result, const char **failure);

#endif
