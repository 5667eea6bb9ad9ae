/* When one of our threads does not come back: out of a disk that does not answer, most of
 * all. The server must not wait for it (docs/WAITS.md), and needs nothing from it: what it
 * may be using, the buffer and the spool, stays as it is until it has come back, and saves
 * fork until then.
 */
#ifndef RDB_UFFD_RESCUE_H
#define RDB_UFFD_RESCUE_H

#include <stdbool.h>
#include <stdint.h>

#include "reporting/history.h"
#include "snapshot.h"

/* So long the server waits for one of ours, at most. */
#define RESCUE_MSEC 4000
/* Why nothing is begun that the upkeep thread has its hand on. */
#define UPKEEP_IS_LATE                                                                   \
    "the upkeep thread has not come back: does memory, or a disk, keep it waiting?"

/* The emergency exit: all protection goes, the snapshot fails, and nobody waits for the
 * fault server any more. False if the snapshot that `watch` was counted for is over.
 * Watchdog. */
bool rescue_pull(struct snapshot *snapshot, uint32_t watch);
/* The same for whatever is under way now: the server crashes. Any thread,
 * async-signal-safe. */
void rescue_from_crash(struct snapshot *snapshot);
/* Ends the child of that snapshot, as failed. Nothing if it is over. Watchdog. */
void rescue_end_watched(struct snapshot *snapshot, uint32_t watch);
/* Ends the child in the saver's place. False if it has ended. Any thread. */
bool rescue_end_child(struct snapshot *snapshot, enum history_result result,
                      const char *reason, int status);

/* The snapshot is over for the server: gives back what it held, or leaves it to
 * rescue_tend() if somebody may still be using it. `unused`: the fault server does not.
 * Saver; main thread in a freeze that has failed. */
void rescue_give_back(struct snapshot *snapshot, bool unused);
/* Gives it back once all have come back. Upkeep thread. */
void rescue_tend(struct snapshot *snapshot);

/* Why no save can begin without fork and the module cannot be unloaded: somebody has not
 * come back. NULL: nothing. Main thread, when no child runs. */
const char *rescue_obstacle(struct snapshot *snapshot);

#endif
