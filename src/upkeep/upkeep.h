/* The upkeep thread does the chores. Between snapshots it keeps the heap
 * registered and its huge pages whole; during one it touches memory ahead of
 * need. It may wait for the fault server, as any thread of the server may. */
#ifndef RDB_UFFD_UPKEEP_H
#define RDB_UFFD_UPKEEP_H

#include "snapshot/snapshot.h"

int upkeep_start(struct snapshot *snapshot);
/* Whether it holds nothing that it may not let go of in time. Main thread. */
bool upkeep_is_at_hand(struct snapshot *snapshot);
void upkeep_stop(struct snapshot *snapshot);

#endif
