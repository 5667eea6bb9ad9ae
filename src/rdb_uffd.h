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
 *
 * One snapshot
 *
 *            fork() by the server: begin()                last byte written
 *   IDLE ──prepare──▶ (PREPARED) ──freeze──▶ SAVING ──────▶ RELEASING ──▶ IDLE
 *          may fail:                 │          save_run()      release()
 *          the real fork    cannot   │
 *                           half-    ├─ kill(): cancelled ──▶ RELEASING
 *                           fail     └─ any failure ────────▶ RELEASING
 *
 *   prepare, freeze   main thread, inside the server's fork()
 *   SAVING            saver thread; faults served by the fault server
 *   RELEASING         saver thread; then the child "exits" and is reaped
 *
 * Threads: the server's main thread; the fault server (view/fault_server.h); the
 * saver (saver.h); the keeper (keeper.h), which does chores between snapshots
 * and watches the fault server during one. Who writes what: snapshot.h.
 *
 * Every function here is called on the main thread.
 */
#ifndef RDB_UFFD_H
#define RDB_UFFD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/preserved.h"

#define RDB_UFFD_VERSION "0.1.0"

/* What the operator sets. Defaults: rdb_uffd_default_settings(). */
struct rdb_uffd_settings {
    bool enabled;     /* no: the server's own fork, silently */
    bool fallback;    /* no: what cannot be served fails, instead of forking */
    bool compression; /* LZ4 for preserved pages when the buffer fills */
    bool huge_pages;  /* ask for huge pages, and mend them after a snapshot */
    enum buffer_policy buffer_policy;
    uint64_t buffer_limit;      /* bytes; or, if buffer_percent is not 0: */
    unsigned buffer_percent;    /* of the memory in use at the freeze, 1 … 100 */
    char spool_directory[1024]; /* "": the server's working directory */
};

/* The least buffer limit that is taken: a few hundred pages and their index. */
#define RDB_UFFD_LEAST_BUFFER_LIMIT (UINT64_C(4) << 20)

enum rdb_uffd_level { RDB_UFFD_VERBOSE, RDB_UFFD_NOTICE, RDB_UFFD_WARNING };

/* What this part needs of whoever speaks to the server. */
struct rdb_uffd_host {
    void (*log)(enum rdb_uffd_level level, const char *text);
    uint64_t (*memory_in_use)(void); /* bytes, for buffer_percent; may be NULL */
    const char *server_name;         /* "redis" or "valkey" */
    const char *server_version;      /* "7.0.15" */
};

enum rdb_uffd_state { RDB_UFFD_IDLE, RDB_UFFD_SAVING, RDB_UFFD_RELEASING };

struct rdb_uffd_statistics {
    enum rdb_uffd_state state;
    bool supported; /* false: every save falls back */
    const char *unsupported_reason;
    uint64_t snapshots_ok;
    uint64_t snapshots_failed;
    uint64_t forks_replaced;
    uint64_t fork_fallbacks;
    const char *last_fallback_reason; /* "" when there was none */
    const char *last_error;           /* of the last failed snapshot, "" */
    uint64_t last_freeze_usec;         /* of which: */
    uint64_t last_freeze_capture_usec; /* what a child would inherit; the file */
    uint64_t last_freeze_prepare_usec; /* regions, buffer, spool */
    uint64_t last_freeze_steer_usec;   /* the allocator */
    uint64_t last_freeze_protect_usec; /* the write protection itself */
    uint64_t last_save_msec;
    uint64_t last_release_usec;
    uint64_t last_faults;
    uint64_t last_unprotects;
    uint64_t last_pages_preserved;
    uint64_t last_spool_peak_bytes;
    uint64_t last_regions;
    uint64_t last_frozen_bytes;
    uint64_t keys_saved; /* of the save under way */
    uint64_t keys_total;
    uint64_t buffer_limit_bytes;
    uint64_t buffer_used_bytes;
    uint64_t buffer_peak_bytes; /* of the save under way, or the last one */
    uint64_t pages_packed;
    uint64_t packed_bytes;
    uint64_t spool_bytes;
    uint64_t writer_waits;
    uint64_t writer_wait_usec;
    uint64_t advices_refused;
    uint64_t saver_faults;
    uint64_t huge_pages_mended;
    bool vectored_madvise;
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
/* Leaves the server as it was. -EBUSY during a snapshot. */
int rdb_uffd_stop(void);

/* To be called a few times a second: hands over what other threads want logged
 * and does what only the main thread may do. */
void rdb_uffd_tick(void);

void rdb_uffd_get_statistics(struct rdb_uffd_statistics *statistics);

#endif
