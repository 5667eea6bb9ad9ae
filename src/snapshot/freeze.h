/* The pause: everything a snapshot needs made ready, then the heap protected. Up to the
 * protection anything may fail and leaves nothing behind; after it the keyspace is the
 * snapshot's. Main thread, inside the server's fork(). */
#ifndef RDB_UFFD_FREEZE_H
#define RDB_UFFD_FREEZE_H

#include <stdint.h>

#include "snapshot.h"

/* Writes "what: the error's text" to `reason`, and returns the error. */
int freeze_explain(char *reason, int error, const char *what);

/* Opens the output of what was asked for, without touching a disk. 0 or -errno. */
int freeze_open_output(struct snapshot *snapshot);
/* Registers, makes the buffer ready, protects. 0; on failure -errno and `reason`, and
 * nothing is frozen. */
int freeze_begin(struct snapshot *snapshot, char reason[REASON_BYTES]);
/* Adds the time since the last step to `*usec`, for the statistics: a freeze may begin anew. */
void freeze_end_step(struct snapshot *snapshot, uint64_t *usec);

#endif
