/* The control groups that this process is in, by which containers and units are kept to a
 * part of the machine. Of both hierarchies: the unified one and the first version's, which
 * has one for each controller. Neither function allocates or locks. */
#ifndef RDB_UFFD_KERNEL_CONTROL_GROUP_H
#define RDB_UFFD_KERNEL_CONTROL_GROUP_H

#include <stdbool.h>
#include <stddef.h>

/* Calls `look` with the directory of the process's own group, and of each above it that
 * can be seen: in a container the upper ones, or all but the topmost, may not be there.
 * `root` stands before /proc and /sys: "" but for tests. */
void control_groups_visit(const char *root, const char *controller,
                          void (*look)(const char *directory, bool unified,
                                       void *context),
                          void *context);
/* A file of one group, cut off at `size`, as a string; "" when there is none. False
 * then. */
bool control_group_read(const char *directory, const char *file, char *text, size_t size);

#endif
