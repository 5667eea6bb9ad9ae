/* Memory that is never write-protected. Everything the fault server and the saver
 * write to comes from here.
 *
 * None of it is a plain anonymous mapping, which is what the scan for regions takes for
 * heap. Most is shared and not there in a forked child. Big memory that is touched in a
 * hurry is private, whose first touch takes a third of the time (1 us a page). What is
 * used in a forked child is private and copied to it: the stacks, which the C library
 * writes to there, and what every free() of the child looks at. */
#ifndef RDB_UFFD_KERNEL_MEMORY_H
#define RDB_UFFD_KERNEL_MEMORY_H

#include <stddef.h>

/* How private memory is to be had here. Before all the others; main thread. */
void memory_probe(void);
/* Zeroed, page aligned, taken from the system as it is touched; not there in a forked
 * child. NULL when the address space is short. Any thread, as all of these. */
void *memory_map(size_t length);
/* The same, private. */
void *memory_map_private(size_t length);
/* The same, private, and a forked child has a copy. */
void *memory_map_inherited(size_t length);
/* Puts zeroes of the zero device in the place of anonymous memory that has no content: what
 * looks for anonymous memory does not find it. Where that device is not to be had nothing
 * changes. Async-signal-safe. */
void memory_replace(void *start, size_t length);
/* `start` and `length` of any of these; NULL is ignored. */
void memory_unmap(void *start, size_t length);
/* Touches every page without changing a byte, so that no later touch has to wait.
 * Any thread, also while another writes there. */
void memory_touch(void *start, size_t length);

#endif
