/* Protection that stands between snapshots (setting standing-protection).
 *
 * A heap in 4 KB pages takes 10 to 25 ms a gigabyte to protect. What nobody has written
 * to since the last snapshot need not lose its protection, and is then looked at only:
 *
 *   save ──▶ release: what was written to is lifted, the rest stands
 *                │
 *                ▼                      ┌─ first write to 2 MB: the fault server
 *            standing ──────────────────┤  lifts them, the writer goes on
 *                │                      └─ dropped, unmapped, mapped anew: not protected,
 *                ▼                         and nobody need tell
 *   next freeze: the kernel says of every page whether it is protected; what is not, is
 *
 * Nothing is remembered of what was written: a freeze relies on the kernel's answer alone.
 *
 * The price: between snapshots a write may fault as well, so the fault server serves at
 * all times, and the watchdog watches it. */
#ifndef RDB_UFFD_STANDING_H
#define RDB_UFFD_STANDING_H

#include <stdbool.h>

#include "snapshot.h"

/* Lifts the protection of the snapshot's regions, or of what was written to when the rest
 * may stand. Returns what the fault server has to do from here on. The saver, once the
 * view has ended. */
enum fault_duty standing_release(struct snapshot *snapshot);
/* Lifts what stands if it shall not any more, a slice at a time; gives up when a snapshot
 * begins. The upkeep thread, without heap_lock(). */
void standing_end_unwanted(struct snapshot *snapshot);
/* Lifts all that stands. Main thread, between snapshots, when nobody else works on the
 * heap any more, or under heap_lock(). */
void standing_end(struct snapshot *snapshot);
/* All that stood has been lifted otherwise: nobody has to serve. Under heap_lock(). */
void standing_has_ended(struct snapshot *snapshot);

#endif
