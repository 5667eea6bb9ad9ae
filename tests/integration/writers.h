/* Connections that change the data of fill() without pause: edits in place,
 * overwrites, deletions, renames, whole databases swapped and flushed, values
 * of many megabytes grown and cut. TTLs are long, so that nothing expires. */
#ifndef RDB_UFFD_TESTS_WRITERS_H
#define RDB_UFFD_TESTS_WRITERS_H

#include "server.h"

struct writers;

/* `count` as given to fill(); databases 0 to 3 are written. */
struct writers *writers_start(struct server *server, int connections, int count,
                              uint64_t seed);
/* At most so many commands a second from now on, all connections together; 0: as many
 * as the server can do. */
void writers_pace(struct writers *writers, long per_second);
/* How many commands were answered so far, errors such as WRONGTYPE among them. */
long writers_commands(struct writers *writers);
/* Stops them and closes their connections; the same number. */
long writers_stop(struct writers *writers);

/* A process that has values of so many bytes come and go, until it is killed: freed by a
 * thread of the server's, and memory for jemalloc's threads to give back. */
pid_t garbage_start(struct server *server, size_t bytes);

#endif
