/* The saver: the thread that does what the forked child would have done. */
#ifndef RDB_UFFD_SAVER_H
#define RDB_UFFD_SAVER_H

#include "snapshot.h"

/* Starts the thread, idle. 0 or -errno. */
int saver_start(struct snapshot *snapshot);
/* Ends the thread. Not while a snapshot is under way. */
void saver_stop(struct snapshot *snapshot);
/* Tells it that the snapshot is frozen. Main thread. */
void saver_begin(struct snapshot *snapshot);
/* Returns when the save that was begun last has ended and is released; or four seconds
 * after it was killed, with its child ended and the rest left to rescue_tend(). */
void saver_wait(struct snapshot *snapshot);
/* Ends a save as a signal would end a child. Returns at once, but for the
 * moment in which the file is being made (a tenth of a second at most), or the
 * finished dump renamed. Async-signal-safe. */
void saver_kill(struct snapshot *snapshot, int signal);

#endif
