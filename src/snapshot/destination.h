/* Where a backup goes: found, looked at and opened by the saver, not in the pause, since
 * its disk may not answer. What the kernel knows without asking it is looked at before the
 * freeze, so that a name that is refused costs none.
 *
 *   nothing of this name   a file, which gets the name when it is good
 *   a dump of this name    the same if it is to be replaced, else refused
 *   a fifo                 written to as it is: whoever reads it has a whole dump only
 *                          if its checksum has come, which is written after the audit
 *   anything else          refused: the last part of the name is never followed
 */
#ifndef RDB_UFFD_DESTINATION_H
#define RDB_UFFD_DESTINATION_H

#include "host/child_files.h"
#include "snapshot.h"

/* How long a fifo's reader may let a backup wait before it comes, and before it takes the
 * next bytes. */
#define BACKUP_READER_COMES_MSEC 10000
#define BACKUP_READER_RESTS_MSEC 60000

/* Makes the output's temporary file: with `number` in its name, or, where that name is
 * taken (by what a crash has left, by another server, by whoever guesses names), with
 * another one. `name_of` writes the name; `name` is the last that was tried. The number it
 * has got, or -errno. Saver. */
int destination_create_file(struct snapshot *snapshot, int number,
                            void (*name_of)(int number, char name[CHILD_FILE_BYTES]),
                            char name[CHILD_FILE_BYTES]);

/* 0, or -errno if it is certain that there will be none, and why in `backup_refusal`. Main
 * thread, captured. */
int destination_foresee(struct snapshot *snapshot);
/* Leads the output there. 0; -ECANCELED; or -errno, and why in `backup_refusal`. Saver. */
int destination_open(struct snapshot *snapshot, bool *is_file);

#endif
