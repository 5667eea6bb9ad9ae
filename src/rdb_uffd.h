/* rdb_uffd: background saves of a Redis or Valkey server without fork().
 *
 * This is its interface: module/ reaches a snapshot only through this header and the five
 * that it includes (it may use memory/ and kernel/ besides).
 *
 * What is always true, and where it is seen to
 *  1. Exact: the file holds the keyspace as it was when the server called
 *     fork(): nothing later, nothing lost.
 *     serve_fault() in view/fault_server.c publishes a page's copy before its protection is
 *     lifted; read_in_page() in view/view.c looks for the copy after it has read the page;
 *     save_table() in keyspace/keyspace.c counts that all keys were found.
 *  2. Bounded: memory for preserved pages never passes the operator's limit.
 *     slots_take_resident() in memory/preserved_slots.c; limit_share() in
 *     snapshot/limit_share.c leaves them less when new values take their part.
 *  3. The server's bookkeeping stays the server's: it believes a child runs, and
 *     fork, waitpid and kill answer as for one.
 *     stand_in_fork(), stand_in_waitpid() and stand_in_kill() in host/child.c;
 *     tell_server() in snapshot/saver.c.
 *  4. Nothing protected is touched by whoever serves faults.
 *     scan() in memory/heap.c leaves the module's own memory out;
 *     own_memory_is_safe() in snapshot/freeze.c looks before every freeze; serve_fault() in
 *     view/fault_server.c reaches nothing that allocates or locks: tools/check-reach, and
 *     DEMAND_NOT_THREAD in kernel/contract.h, in builds for tests.
 *  5. Any doubt, plain fork: before the freeze everything may fail, and then
 *     the real fork() runs.
 *     fall_back() in rdb_uffd.c; thaw() in snapshot/freeze.c takes back what a freeze that
 *     fails has done.
 *  6. A failed snapshot costs no data and never the server. After some failures, of
 *     which the cause may still be there, saves fork until it is gone.
 *     publish() in snapshot/dump.c is reached by a whole dump only; run() in
 *     snapshot/saver.c releases whatever happened; trust_note_end() in upkeep/trust.c and
 *     rescue_obstacle() in snapshot/rescue.c make saves fork.
 *  7. Believed only when checked: before a dump is published, the kernel has said of
 *     every page that may be read as it stands that it has kept its protection
 *     (view/audit.h).
 *     check_dump() in snapshot/dump.c.
 *  8. Nobody of ours holds the server for long: docs/WAITS.md.
 *     watch() in snapshot/watchdog.c, rescue_pull() in snapshot/rescue.c,
 *     heap_lock_in_time() in memory/heap.c.
 *
 * One snapshot: enum phase in snapshot/snapshot.h, and who performs each step
 *
 *   NONE ── save_begin(): freeze_begin(), all or nothing; begin_saving() ──▶ SAVING
 *    ▲        may fail: fall_back(), the real fork                          │  ▲
 *    │                                                        create_file() ▼  │
 *    │                                                                 CREATING
 *    │
 *    │   SAVING ── publish() ──▶ PUBLISHING ── run() ──┐
 *    │   SAVING ── a transfer, fifo or failure: run() ─┤
 *    │   SAVING, CREATING ── saver_kill(): cancel() ──▶ CANCELLED ── run() ──┐
 *    │                                                 ▼                     ▼
 *    └── run(): release_memory(), end_child() ◀── RELEASING ◀────────────────┘
 *
 *   prepare, freeze   main thread, inside the server's fork()
 *   SAVING            saver thread; faults served by the fault server
 *   CREATING          the temporary file: it is made whole or not at all
 *   PUBLISHING        too late for a kill
 *   RELEASING         saver thread; then the child "exits": save_end(), main thread
 *
 *   A fault server that hangs: rescue_pull(), on the watchdog, lifts the protection and
 *   fails the view, and the saver goes its way as after any failure. If the saver hangs as well,
 *   rescue_end_child() ends the child; rescue_tend(), on the upkeep thread, releases once
 *   both have come back, and until then begin() falls back.
 *
 * Threads, locks, wake-ups: docs/THREADS.md. Who writes what: snapshot/snapshot.h.
 *
 * Every function here is called on the main thread, but for rdb_uffd_note_crash().
 */
#ifndef RDB_UFFD_H
#define RDB_UFFD_H

#include <stdbool.h>
#include <stddef.h>

#include "backup.h"
#include "reporting/statistics.h"
#include "snapshot/callbacks.h"
#include "snapshot/settings.h"
#include "upkeep/dirty_rate.h"

#define RDB_UFFD_VERSION "0.1.0"

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

/* Whether values of modules' types are to be looked for among the keys that the server
 * held already at the start: it has such types. New values are seen as they come. */
bool rdb_uffd_values_are_possible(void);
/* There is one, of the type that RedisModule_CreateDataType() has returned: from now on
 * saves fork, or have a child for it (settings.value_child). */
void rdb_uffd_note_value(const void *type);
/* They are being looked for: saves fork meanwhile. */
void rdb_uffd_search_values(bool under_way);
/* Another module was loaded. */
void rdb_uffd_modules_changed(void);

/* The server's crash report is being written. Any thread, async-signal-safe. */
void rdb_uffd_note_crash(void);

/* To be called a few times a second: hands over what other threads want logged
 * and does what only the main thread may do. */
void rdb_uffd_tick(void);

#endif
