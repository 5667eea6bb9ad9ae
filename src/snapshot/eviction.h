/* Old values leave memory while a snapshot is frozen.
 *
 * A value that is overwritten meanwhile is dead for the server, but not for the
 * snapshot. Its memory cannot be used again before its pages have been preserved, and
 * each page that the server itself used again would be a fault. So new values take
 * fresh memory instead, and once they have taken their share of the limit, the
 * upkeep thread hands the whole pages of dead values to the spool and gives the memory
 * back. Nobody waits for it: what is dead is not written to.
 *
 *   value      ▏ old page ▕ old page ▕ old page ▏      dead: free() was put off
 *   snapshot      spool      spool      spool          preserved first
 *   memory          -          -          -            then given back
 *
 * Only values of at least a page have such pages, and only where the policy is to
 * spool. free() itself happens after the snapshot (host/deferred_free.h,
 * which has the whole life of such a value).
 */
#ifndef RDB_UFFD_EVICTION_H
#define RDB_UFFD_EVICTION_H

#include <stdbool.h>
#include <stdint.h>

struct snapshot;

/* Whether dead values of this snapshot may be evicted. Main thread, [idle]. */
bool eviction_is_possible(const struct snapshot *snapshot);
/* A snapshot begins. Main thread. */
void eviction_begin(struct snapshot *snapshot);
/* So many bytes should go, in all, in this snapshot; `hurry`: memory is getting scarce.
 * Main thread. */
void eviction_want(struct snapshot *snapshot, uint64_t bytes, bool hurry);
/* Evicts some of what is wanted, with rests in which the server's CPU is the server's:
 * some 10 ms. True if there is more. Upkeep thread. */
bool eviction_run(struct snapshot *snapshot);

#endif
