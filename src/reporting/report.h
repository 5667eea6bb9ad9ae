/* What is told of a save: a line in the log when it starts, one when it ends, and
 * its record for the history. */
#ifndef RDB_UFFD_REPORT_H
#define RDB_UFFD_REPORT_H

#include "snapshot/snapshot.h"

/* Queues the line; it is written at the next tick, outside the pause. Main thread, at
 * the end of the freeze. */
void report_start(struct snapshot *snapshot);
/* Fills snapshot->record, which its beginner has given an id, a time and a cause.
 * `error`: 0 or why the save ended. Saver's thread, before the memory is released. */
void report_fill_record(struct snapshot *snapshot, int error, uint64_t msec);
/* How long writers waited for their faults, at most, `permille` thousandths of them;
 * rounded. Any thread. */
uint64_t report_wait_usec(const struct wait_histogram *waits, unsigned permille);
/* Queues the line of a record that was filled in. Saver's thread. */
void report_end(struct snapshot *snapshot);

#endif
