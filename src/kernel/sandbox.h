/* What a seccomp filter would do to us.
 *
 * A filter may end the whole process for a system call that it does not list: that of
 * Debian's redis-server.service does for all that places or prioritises threads. So
 * whether these are allowed is tried by a process that may die of it.
 */
#ifndef RDB_UFFD_KERNEL_SANDBOX_H
#define RDB_UFFD_KERNEL_SANDBOX_H

#include <stdbool.h>

/* True if threads may be given CPUs and priorities: if nothing worse than an error can
 * come of it. Costs nothing without a filter; else a short-lived process that shares
 * our memory, without a copy of any page table. Main thread, outside of any pause. */
bool sandbox_allows_placing(void);

#endif
