/* The module's lines in the server's log. Threads of the module queue theirs with
 * snapshot_log(); only the main thread may speak to the server. Main thread. */
#ifndef RDB_UFFD_LOG_H
#define RDB_UFFD_LOG_H

#include "snapshot/snapshot.h"

/* Warnings of which there were too many lately are left out, and counted. */
void log_now(struct snapshot *snapshot, enum rdb_uffd_level level, const char *text);
/* What has been queued. */
void log_hand_over(struct snapshot *snapshot);

#endif
