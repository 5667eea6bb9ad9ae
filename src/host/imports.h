/* What a server says in a dump of the slots that it is importing (Valkey 9):
 *
 *   243  name of the import  number of ranges  { first slot  last slot } …   for each
 */
#ifndef RDB_UFFD_HOST_IMPORTS_H
#define RDB_UFFD_HOST_IMPORTS_H

#include <stdbool.h>
#include <stddef.h>

#include "keyspace/keyspace.h"

/* Marks those slots in `imported`. 0, or -EBADMSG when it is something else. */
int imports_parse(const unsigned char *bytes, size_t length,
                  bool imported[KEYSPACE_SLOTS]);

#endif
