/* The watchdog: the thread that sees to it that faults are served.
 *
 * From the freeze to the release it looks 25 times a second whether a fault waits and the
 * fault server's heart beats. If it does not for four seconds, the watchdog pulls the
 * emergency exit: protection is lifted at once, the snapshot is given up, and the server
 * lives. So it must not wait for the fault server itself: it does nothing
 * else, and touches nothing that may be protected; the upkeep thread, whose chores go through
 * the allocator, was found waiting there.
 */
#ifndef RDB_UFFD_WATCHDOG_H
#define RDB_UFFD_WATCHDOG_H

#include "snapshot.h"

/* Main thread. 0 or -errno. */
int watchdog_start(struct snapshot *snapshot);
void watchdog_stop(struct snapshot *snapshot);
/* A freeze is about to protect the first page. Main thread. */
void watchdog_begin(struct snapshot *snapshot);

#endif
