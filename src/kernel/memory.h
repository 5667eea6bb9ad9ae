/* Memory that is never write-protected. Everything the fault server and the saver
 * write to comes from here.
 *
 * Most of it is shared anonymous mappings, which the scan for regions leaves out
 * by their kind. Big memory that is touched in a hurry is private, whose first
 * touch takes a third of the time (1 us a page), and left out by its place:
 * memory_visit_private(). */
#ifndef RDB_UFFD_KERNEL_MEMORY_H
#define RDB_UFFD_KERNEL_MEMORY_H

#include <stddef.h>

/* Zeroed, page aligned, taken from the system as it is touched. NULL when the
 * address space is short. */
void *memory_map(size_t length);
/* `start` as memory_map() returned it; NULL is ignored. */
void memory_unmap(void *start, size_t length);
/* The same, private, and not copied to a forked child. Main thread or keeper, not both at a time. */
void *memory_map_private(size_t length);
/* NULL is ignored. */
void memory_unmap_private(void *start);
/* Calls `visit` for each private mapping until it returns other than 0, and
 * returns that. Same thread as above. */
int memory_visit_private(int (*visit)(void *context, void *start, size_t length),
                         void *context);
/* Touches every page without changing a byte, so that no later touch has to wait.
 * Any thread, also while another writes there. */
void memory_touch(void *start, size_t length);

#endif
