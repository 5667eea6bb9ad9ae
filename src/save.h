/* One save, for the server's fork() or for a backup, as the main thread sees it. */
#ifndef RDB_UFFD_SAVE_H
#define RDB_UFFD_SAVE_H

#include "snapshot/snapshot.h"

/* Why none can begin. */
#define BACKUP_IS_RUNNING "a backup is being written"

/* It is asked for: it gets its number. Main thread, as all of these. */
void save_ask(const struct child_request *request);
/* It will not be ours. */
void save_note_refused(enum history_result result, const char *reason);
/* Freezes, and sets the saver to work. 0, or -errno and one line in `reason`: then nothing
 * has begun. */
int save_begin(struct snapshot *snapshot, const struct child_request *request,
               char reason[REASON_BYTES]);
/* Its end is known: history and log. */
void save_end(struct snapshot *snapshot);

#endif
