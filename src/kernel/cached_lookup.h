/* What the kernel knows of a name without asking a disk, which may not answer. */
#ifndef RDB_UFFD_KERNEL_CACHED_LOOKUP_H
#define RDB_UFFD_KERNEL_CACHED_LOOKUP_H

#include <sys/stat.h>

/* A descriptor that is good for looking only (O_PATH); the last part of `path` is not
 * followed. -ENOENT and the like: that is known. -EAGAIN: it is not; and there are kernels
 * and filters of system calls that do not have this. Any thread. */
int cached_lookup(int directory, const char *path, int flags);
/* Of what cached_lookup() has found: its kind, device and number, as they were when last
 * asked for. 0 or -errno. */
int cached_look_at(int found, struct statx *what);

#endif
