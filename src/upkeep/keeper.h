/* The keeper: the thread for chores. Between snapshots it keeps the heap
 * registered and its huge pages whole; during one it touches memory ahead of
 * need. It may wait for the fault server, as any thread of the server may. */
#ifndef RDB_UFFD_KEEPER_H
#define RDB_UFFD_KEEPER_H

#include "snapshot/snapshot.h"

int keeper_start(struct snapshot *snapshot);
void keeper_stop(struct snapshot *snapshot);
/* There may be something to do. Any thread, async-signal-safe. */
void keeper_nudge(struct snapshot *snapshot);
/* Asks the kernel for huge pages in new memory. Any thread. */
void keeper_advise_huge(void *start, size_t length);

#endif
