/* The file that a save leaves in the server's directory, and the names by which the
 * server asks for it.
 *
 *   BGSAVE        temp-NUMBER.rdb              unlink() after a kill
 *   AOF rewrite   temp-rewriteaof-bg-NUMBER.aof    rename() after success, else unlink()
 *                 temp-rewriteaof-NUMBER.aof   unlink(): a real child's first name for it,
 *                                              which ours does without
 *
 * The server makes them from the pid that it was given, and does not look whose file it
 * finds. So a name that is taken is left to whoever took it: the file gets another number,
 * and what the server asks for by the pid's is led to that one, or to nothing as long as
 * there is no file of ours.
 */
#ifndef RDB_UFFD_HOST_CHILD_FILES_H
#define RDB_UFFD_HOST_CHILD_FILES_H

#include <stdbool.h>

#define CHILD_FILE_BYTES 64

/* A number for names, at random: above what the kernel gives processes
 * (PID_MAX_LIMIT), up to what a pid_t can hold. Any thread. */
int child_files_number(void);
/* A save with this pid begins, of which there is no file yet. Main thread. */
void child_files_begin(int pid, bool rewrite);
/* What the file of the save under way is called with this number. */
void child_files_name(int number, char name[CHILD_FILE_BYTES]);
/* It was made, with this number. The saver, before the save can be killed again. */
void child_files_made(int number);
/* What the server means by `path`: the path itself unless it is one of the names above;
 * `name`, filled in; or NULL: a file that we did not make. Main thread. */
const char *child_files_meant(const char *path, char name[CHILD_FILE_BYTES]);

#endif
