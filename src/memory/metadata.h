/* The allocator's own memory, in which there is nothing of the server's.
 *
 * jemalloc keeps arenas, lists and statistics in blocks that it maps for that alone: of 2 MB
 * or a multiple, at multiples of it. To look at its statistics writes to some 150 pages of
 * them, which the server does ten times a second, and we do: in a snapshot, 4 ms of faults at
 * once. Nothing of the past is read there, so they need not be frozen.
 *
 *   main thread     metadata_begin_look()   the look at the statistics   metadata_end_look()
 *   fault server                                 its faults: metadata_note()
 *
 * Of a block that becomes known so nothing more is kept in this save (preserved_forgo()), and
 * it is left out of the heap from the next one on (registered it stays); but not where a child
 * is to save modules' values, which goes on allocating. Were that wrong, the view would refuse
 * to read there and the save fail.
 */
#ifndef RDB_UFFD_MEMORY_METADATA_H
#define RDB_UFFD_MEMORY_METADATA_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/regions.h"

/* Between the two the calling thread runs nothing but the allocator's look at its own
 * statistics. Main thread. */
void metadata_begin_look(void);
void metadata_end_look(void);
/* Whether the main thread is between them. Fault server, while a fault of the main thread
 * waits for it. */
bool metadata_is_looked_at(void);
/* The main thread has written there in such a look. Fault server. */
void metadata_note(uint64_t address);

/* Takes what is known out of `set`, where it is part of a region of it. 0 or -errno of
 * regions_remove(). Under heap_lock(). */
int metadata_leave_out(struct region_set *set);
/* How often more has become known, or been forgotten. Any thread. */
uint32_t metadata_changes(void);
/* Something was mapped at [start, end): what was known of that is not so any more. Any
 * thread. */
void metadata_note_mapped(uint64_t start, uint64_t end);
/* At the beginning, and when a save met what it could not read. Any thread. */
void metadata_forget(void);

#endif
