/* Two nodes of a cluster, and the migration of slots that the server does by itself. */
#ifndef RDB_UFFD_TESTS_NODES_H
#define RDB_UFFD_TESTS_NODES_H

#include "server.h"

#define CLUSTER_CONFIG                                                                   \
    "cluster-enabled yes\ncluster-node-timeout 15000\nrepl-diskless-sync-delay 0\n"      \
    "cluster-allow-replica-migration no\n"
#define SLOTS 16384

void nodes_meet(struct server *server, struct server *other);
/* Started with CLUSTER_CONFIG and `config`: the first has all slots, the other none, and
 * `fault` if it is not NULL. */
void nodes_start_two(struct server *both[2], const char *config, const char *fault);

/* Ends the case if servers cannot migrate slots by themselves. */
void needs_migrations(void);
/* From the first to the second: slots as CLUSTER MIGRATESLOTS has them, "0 100". */
void migrate(struct server *both[2], const char *slots);
/* Until the states of all migrations of a server are these, the last one's first, each
 * followed by a space. */
void wait_for_migrations(struct server *server, const char *states);
/* The name of its last migration. */
const char *migration_name(struct server *server);

#endif
