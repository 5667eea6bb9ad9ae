/* Memory that the allocator has mapped and not touched yet.
 *
 * To protect it, the kernel makes page tables and a mark in every place of them: 6 ms
 * for a gigabyte in the pause of a freeze, and what is touched later comes in small
 * pages. So the upkeep thread has the huge zero page mapped there between snapshots: it costs
 * no memory, is protected by one entry for 2 MB (0.05 ms for a gigabyte), and becomes a
 * huge page of its own at the first write.
 *
 * Linux before 6.13 splits it at that write, and then this does more harm than good; and
 * there are kernels that give a huge page of its own to whoever only reads, which would
 * take memory for what may never be used. Tried out, not read off a version.
 */
#ifndef RDB_UFFD_MEMORY_UNPOPULATED_H
#define RDB_UFFD_MEMORY_UNPOPULATED_H

#include <stdatomic.h>
#include <stdbool.h>

#include "memory/regions.h"

/* Whether this kernel does as said above, as things are set up now. Some 100 us. Any
 * thread but the fault server, likewise below. */
bool unpopulated_can_be_mapped(void);
/* Maps it where a region has nothing yet, by slices, as long as `*go_on` says so. */
void unpopulated_map(const struct region *region, bool (*go_on)(void *context),
                     void *context);

#endif
