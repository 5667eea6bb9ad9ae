/* Huge pages for the heap, without which a freeze takes twenty times as long.
 *
 * Where the heap is dense (memory/density.h) they are asked for ahead: new memory comes in
 * huge pages. Where it is not, and until something is known of it, huge pages are put
 * together only where all small ones are there. Those that a save has split are put
 * together again, but not in memory for which they were asked ahead before the heap became
 * sparse: the kernel keeps to the last advice.
 *
 *          15 of 16 pages hold something
 *   SPARING ───────────────────────────▶ AHEAD
 *           ◀───────────────────────────
 *                    fewer do
 *
 * With `huge-pages always` it is AHEAD from the start, whatever that takes.
 *
 * Upkeep thread. */
#ifndef RDB_UFFD_HUGE_PAGES_H
#define RDB_UFFD_HUGE_PAGES_H

#include "snapshot/snapshot.h"

/* Between snapshots, when the heap is registered: looks how dense it is, and puts huge
 * pages together if there is a reason to. Gives way to a snapshot and a measurement. */
void huge_pages_tend(struct snapshot *snapshot);
/* What has just been registered. Under heap_lock(). */
void huge_pages_ask(struct snapshot *snapshot);

#endif
