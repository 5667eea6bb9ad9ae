/* Mounts that only this case and its servers see, and that end with them. */
#ifndef RDB_UFFD_TESTS_PRIVACY_H
#define RDB_UFFD_TESTS_PRIVACY_H

#include "testcase.h"

/* From here on, mounts are private to the case. Ends it as skipped where that
 * is not permitted. */
void mounts_become_private(void);
/* A file system in memory of this size ("4m"); returns its directory, which
 * every user may write. */
const char *mount_small(const char *size);
void mount_read_only(const char *directory, bool read_only);
/* Puts a copy of /dev/userfaultfd with this mode in its place, for the case
 * alone: the machine's own is not touched. */
void userfaultfd_node(unsigned mode);
/* A /dev with hardly anything in it, as a service has with PrivateDevices=yes. */
void devices_become_few(void);
/* Puts a file with this content in the place of another one. */
void file_pretends(const char *path, const char *content);

#endif
