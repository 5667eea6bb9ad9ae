/* Masters that have data of every type and are written to while replicas get it. */
#ifndef RDB_UFFD_TESTS_MASTERS_H
#define RDB_UFFD_TESTS_MASTERS_H

#include "fill.h"
#include "replicas.h"
#include "writers.h"

#define MASTER_KEYS  10000 /* of 500 bytes, besides those of fill() */
#define MASTER_COUNT 150   /* fill()'s */
/* What rdb-key-save-delay makes of them: a save of some two seconds. */
#define SLOW_SAVE "100"
/* The offset must stand still when nobody writes. */
#define QUIET_CONFIG FILL_CONFIG "repl-ping-replica-period 3600\n"

/* How a master sends its data. */
extern const char *const from_disk_config;
extern const char *const diskless_config;
/* Of a replica. */
extern const struct server_options follower;

struct server *master_start(const char *config, uint64_t seed);
/* Begins to change its data, at a pace that the replicas' output buffers take on any
 * machine. */
struct writers *master_write(struct server *master, uint64_t seed);
/* Until it sends its data to a replica. */
void master_wait_transfer(struct server *master);
void master_stop_with(struct server *master, struct server *replica);

#endif
