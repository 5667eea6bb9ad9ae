/* How a save has ended: for its operators, in INFO, log and history. Saver. */
#ifndef RDB_UFFD_RESULT_H
#define RDB_UFFD_RESULT_H

#include "snapshot.h"

/* `error`: 0, AUDIT_LOST, -errno. `given_up`: for what the view was failed with, so that
 * the output knows nothing of it. */
void result_note(struct snapshot *snapshot, int error, bool given_up, uint64_t msec);

#endif
