#include "host/layout.h"

#include <string.h>

/* From the headers of Debian's redis 7.0.15 (amd64). */
static const struct server_layout layouts[] = {
    {
        .server = "redis",
        .version = "7.0.",
        .magic = "REDIS0010",
        .keyspace = KEYSPACE_REDIS_7_0,
        .server_bytes = 4368,
        .pid = 0,
        .main_thread_id = 8,
        .hz = 52,
        .db = 64,
        .lru_clock = 104,
        .dbnum = 2584,
        .aof_rewrite_incremental_fsync = 2864,
        .rdb_save_incremental_fsync = 2868,
        .aof_use_rdb_preamble = 2884,
        .rdb_filename = 2960,
        .rdb_compression = 2968,
        .rdb_checksum = 2972,
        .rdb_pipe_read = 3032,
        .rdb_child_exit_pipe = 3036,
        .rdb_pipe_conns = 3040,
        .rdb_pipe_numconns = 3048,
        .key_save_delay = 3068,
        .child_info_pipe = 3076,
        .maxmemory_policy = 3616,
        .lfu_decay_time = 3632,
        .unix_time = 3832,
        .rio_bytes = 112,
        .rio_buffer = 72,
        .connection_client = 24,
        .client_request = 396,
        .module_name = 8,
        .module_types = 24,
        .list_length = 40,
    },
};

const struct server_layout *layout_find(const char *server, const char *version)
{
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
        if (strcmp(server, layouts[i].server) == 0 &&
            strncmp(version, layouts[i].version, strlen(layouts[i].version)) == 0)
            return &layouts[i];
    return NULL;
}
