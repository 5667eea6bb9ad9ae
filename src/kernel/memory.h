/* Memory that is never write-protected: shared anonymous mappings, which the
 * scan for regions leaves out. Everything the fault server and the saver
 * write to comes from here. */
#ifndef RDB_UFFD_KERNEL_MEMORY_H
#define RDB_UFFD_KERNEL_MEMORY_H

#include <stddef.h>

/* Zeroed, page aligned, taken from the system as it is touched. NULL when the
 * address space is short. */
void *memory_map(size_t length);
/* `start` as memory_map() returned it; NULL is ignored. */
void memory_unmap(void *start, size_t length);
/* Makes the pages present now, so that no later touch has to. 0 or -errno. */
int memory_populate(void *start, size_t length);
/* Gives the pages back to the system; they read as zeros afterwards. */
int memory_give_back(void *start, size_t length);

#endif
