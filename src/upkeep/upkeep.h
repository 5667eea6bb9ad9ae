/* The upkeep thread does the chores. Between snapshots it keeps the heap
 * registered and its huge pages whole; during one it touches memory ahead of
 * need. It may wait for the fault server, as any thread of the server may. */
#ifndef RDB_UFFD_UPKEEP_H
#define RDB_UFFD_UPKEEP_H

#include "snapshot/snapshot.h"

int upkeep_start(struct snapshot *snapshot);
/* Waits 4 s for it to end. False: it goes on as soon as what keeps it lets go. Main
 * thread. */
bool upkeep_stop(struct snapshot *snapshot);

#endif
