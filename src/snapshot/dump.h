/* The dump: where it goes, what is in it, and the order in which it is believed. Saver. */
#ifndef RDB_UFFD_DUMP_H
#define RDB_UFFD_DUMP_H

#include "snapshot.h"

/* To the file or the pipe that the request names. 0, AUDIT_LOST, or -errno: -ECANCELED
 * also when it was given up for what `view.error` says. Takes as long as the save. */
int dump_write(struct snapshot *snapshot);
/* It goes to replicas. */
bool dump_is_transfer(const struct snapshot *snapshot);

#endif
