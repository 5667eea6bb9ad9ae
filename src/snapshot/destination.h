/* Where a backup goes: found, looked at and opened by the saver, not in the pause, since
 * its disk may not answer.
 *
 *   nothing of this name   a file: made under another name, which it gets when it is good
 *   a dump of this name    the same if it is to be replaced, else refused
 *   a fifo                 written to as it is: whoever reads it has a whole dump only
 *                          if its checksum has come, which is written after the audit
 *   anything else          refused: the last part of the name is never followed
 */
#ifndef RDB_UFFD_DESTINATION_H
#define RDB_UFFD_DESTINATION_H

#include "snapshot.h"

/* How long a fifo's reader may let a backup wait before it comes, and before it takes the
 * next bytes. */
#define BACKUP_READER_COMES_MSEC 10000
#define BACKUP_READER_RESTS_MSEC 60000

static inline bool is_backup(const struct snapshot *snapshot)
{
    return snapshot->request.cause == CHILD_BACKUP;
}

/* Leads the output there. 0; -ECANCELED; or -errno, and why in `backup_refusal`. Saver. */
int destination_open(struct snapshot *snapshot, bool *is_file);

#endif
