/* Dump files: whether two say the same, and whether one is right. */
#ifndef RDB_UFFD_TESTS_RDBFILE_H
#define RDB_UFFD_TESTS_RDBFILE_H

#include "server.h"

/* Copies a file; the case fails if it cannot. */
void copy_file(const char *from, const char *to);
bool files_are_equal(const char *first, const char *second);

/* NULL if the two dumps are the same byte for byte, apart from the values of
 * the aux fields ctime and used-mem, and the checksum that follows from them;
 * else what differs, and where. */
const char *rdb_difference(const char *first, const char *second);

/* The same, whatever the aux fields say. */
const char *rdb_keys_difference(const char *first, const char *second);

/* The server's own checker must find the file whole, its checksum included
 * (unless it has none). */
void check_dump(const char *path, bool has_checksum);

/* Loads the file into a second server without the module, with these lines of
 * configuration; its DEBUG DIGEST. NULL if the server refuses the file. */
const char *dump_digest(const char *path, const char *config);

#endif
