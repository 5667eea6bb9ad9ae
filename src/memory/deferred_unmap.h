/* Mappings that the server gives up while frozen, and that stay until the snapshot ends.
 *
 * A reader of the past copies from the live page before it looks whether that was
 * preserved (view/view.h): the page may have changed under it, but it must be there. So
 * an munmap() of frozen memory is noted and done later. Nothing has to be preserved for
 * it, since nobody writes to what he has given up; the memory was the dataset's before.
 * Blocks that are freed: host/deferred_free.h.
 *
 * Any thread but the fault server. */
#ifndef RDB_UFFD_MEMORY_DEFERRED_UNMAP_H
#define RDB_UFFD_MEMORY_DEFERRED_UNMAP_H

#include <stdbool.h>
#include <stdint.h>

/* 0 or -ENOMEM. */
int deferred_unmap_create(void);
void deferred_unmap_destroy(void);

/* From here on mappings are put off. Main thread, before the first page is protected. */
void deferred_unmap_begin(void);
/* Notes [start, end), whole pages. False when there is no room or nothing is to be put
 * off any more. */
bool deferred_unmap_put_off(uint64_t start, uint64_t end);
/* Unmaps what was noted, in slices, and notes nothing more. When nobody reads the past
 * any more. Returns whether there was something. */
bool deferred_unmap_end(void);

#endif
