/* A server's table read from a file, as `make layouts BIN=` writes it (setting
 * layout-file): lines of a name and its value, each name once, and all of them; # begins a
 * comment.
 *
 *   server redis · version 7.0.15, or 7.0. for all that begin so · magic REDIS0010
 *   family redis-7.0     whose forms it has; the numbers of that family are in the file
 *   has NAME …           abilities (layout_abilities)
 *   pid 0 …              LAYOUT_NUMBERS, FAMILY_NUMBERS
 *
 * Nothing in it is believed: what is read here only is of the form that a table has. It is
 * proved like any other (server.c, proof.h). */
#ifndef RDB_UFFD_HOST_LAYOUT_FILE_H
#define RDB_UFFD_HOST_LAYOUT_FILE_H

#include "host/layout.h"

/* The table in that file, which then is what layout->keyspace stands for too. NULL with a
 * sentence in `reason` (at least 160 bytes) that says where it is wrong and what to do.
 * Valid until the next call. Main thread, nothing frozen. */
const struct server_layout *layout_file_read(const char *path, char *reason,
                                             size_t reason_size);

#endif
