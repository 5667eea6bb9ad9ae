#include "masters.h"

#define CONNECTIONS         3
#define COMMANDS_PER_SECOND 6000

const char *const from_disk_config = QUIET_CONFIG "repl-diskless-sync no\n";
const char *const diskless_config = QUIET_CONFIG DISKLESS_CONFIG;
const struct server_options follower = {.config = QUIET_CONFIG};

struct server *master_start(const char *config, uint64_t seed)
{
    struct server *master = server_start(&(struct server_options){.config = config});
    server_ok(master, "DEBUG POPULATE %d key 500", MASTER_KEYS);
    fill(master->connection, FILL_ALL, MASTER_COUNT, seed);
    return master;
}

struct writers *master_write(struct server *master, uint64_t seed)
{
    struct writers *writers = writers_start(master, CONNECTIONS, MASTER_COUNT, seed);
    writers_pace(writers, COMMANDS_PER_SECOND);
    return writers;
}

void master_wait_transfer(struct server *master)
{
    wait_for_info(master, "rdb_bgsave_in_progress", "1", 10);
}

void master_stop_with(struct server *master, struct server *replica)
{
    server_stop(replica);
    server_stop(master);
}
