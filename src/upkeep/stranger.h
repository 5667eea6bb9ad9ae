/* A value that no walker knows (KEYSPACE_STRANGER): what the server says of it. It may be of
 * a type or an encoding that came after this version of the module; or the walk has read
 * what is no value. */
#ifndef RDB_UFFD_STRANGER_H
#define RDB_UFFD_STRANGER_H

#include "keyspace/keyspace.h"
#include "snapshot/callbacks.h"

#define STRANGER_WORDS 128 /* for the texts below */

enum stranger_answer {
    STRANGER_IS_THERE, /* the server has a word for it that we do not know, or none */
    STRANGER_IS_GONE,
    STRANGER_IS_KNOWN, /* the server says that it is what walkers know: they are wrong */
};

/* `text`, if it is there: as in "a value of type 'array'". Main thread, nothing frozen. */
enum stranger_answer stranger_ask(const struct rdb_uffd_host *host,
                                  const struct keyspace_stranger *stranger,
                                  char text[STRANGER_WORDS]);
/* The same by its numbers, which nobody else knows it by. */
void stranger_tell(const struct keyspace_stranger *stranger, char text[STRANGER_WORDS]);

#endif
