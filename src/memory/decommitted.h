/* Memory that the pool's arenas (memory/allocator.h) hold without using it.
 *
 * Values stored during one snapshot die during the next hours, and their places in
 * the pool's arenas are free again by the next snapshot. A new value that takes such
 * a place would fault, and a page of nothing would be preserved. So these arenas tell,
 * by jemalloc's extent hooks, which ranges they have given up (decommit) and which
 * they take back (commit), and the freeze leaves out what is decommitted at that moment:
 *
 *        in use ──last free──▶ dirty ──purge, decommit()──▶ decommitted
 *           ▲                                                    │
 *           └───────────────────── commit() ◀────────────────────┘
 *
 * No snapshot misses anything: what is decommitted at the freeze has no content then. What
 * is given up while frozen stays as it is.
 *
 * Threads: whoever makes jemalloc purge or allocate; a lock, held for some
 * microseconds, or for one madvise().
 */
#ifndef RDB_UFFD_MEMORY_DECOMMITTED_H
#define RDB_UFFD_MEMORY_DECOMMITTED_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/regions.h"

/* 0 or -ENOMEM. */
int decommitted_create(void);
/* After the hooks have been taken away; a thread may still be in one. */
void decommitted_destroy(void);
/* In a forked child, which shares what this is kept in: nothing is noted any more. */
void decommitted_forked(void);
/* Gives the memory of [start, end) back to the system, and notes it. False while
 * frozen, and when the system refuses: nothing has changed then. */
bool decommitted_give_up(uint64_t start, uint64_t end);
/* [start, end) is going to be used. */
void decommitted_take_back(uint64_t start, uint64_t end);
/* The server crashes: its report's test of the memory must not fill what is decommitted.
 * Any thread, async-signal-safe. */
void decommitted_abandon(void);
/* Part of [start, end) is decommitted. */
bool decommitted_overlaps(uint64_t start, uint64_t end);
/* From here on nothing becomes decommitted; what is, if it is worth a region of its own, is
 * taken out of `set`. 0 or -errno of regions_remove(). Under heap_lock():
 * main thread, in the freeze; upkeep thread, in a measurement. */
int decommitted_freeze(struct region_set *set);
/* The snapshot is over. */
void decommitted_thaw(void);

#endif
