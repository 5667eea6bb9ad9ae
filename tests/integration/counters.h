/* Connections that count: each increments a number, appends it to a list and puts it
 * before another, and knows what was acknowledged. A command lost or executed twice shows. */
#ifndef RDB_UFFD_TESTS_COUNTERS_H
#define RDB_UFFD_TESTS_COUNTERS_H

#include "server.h"

struct counters;

struct counters *counters_start(struct server *server, int connections);
/* Stops them after the answers that are due. */
void counters_stop(struct counters *counters);
/* Waits until they have noticed that the server is gone. */
void counters_join(struct counters *counters);
/* Begins again, from what the server has now. */
void counters_go_on(struct counters *counters, struct server *server);
/* That the server has what was acknowledged, and no more than `unanswered`
 * commands of each connection beyond that. */
void counters_check(struct counters *counters, struct server *server, int unanswered);

#endif
