/* The keeper: the thread for chores. Between snapshots it keeps the heap
 * registered and its huge pages whole; during one it touches memory ahead of
 * need. It may wait for the fault server, as any thread of the server may. */
#ifndef RDB_UFFD_KEEPER_H
#define RDB_UFFD_KEEPER_H

#include "snapshot/snapshot.h"

int keeper_start(struct snapshot *snapshot);
void keeper_stop(struct snapshot *snapshot);

#endif
