/* Where the variables of each known server lie, as data: one table a version. What the
 * server tells by itself is not in it.
 *
 * The tables are printed by `make layouts SRC=…`, which compiles a probe against the
 * server's own headers and says what differs here and in src/keyspace. They are proved
 * again at load (server.c, upkeep/proof.h), and before use what belongs to replicas
 * (transfer.h). A server that matches no table is served by plain fork.
 */
#ifndef RDB_UFFD_HOST_LAYOUT_H
#define RDB_UFFD_HOST_LAYOUT_H

#include <stdint.h>

#include "keyspace/keyspace.h"

/* What some servers have: the functions and variables that go with it are wanted of
 * these alone (server.c). */
enum server_ability {
    HAS_EXPIRES_BY_NAME = 128, /* when a key expires is in a table of its own */
    HAS_DIRECT_TRANSFERS = 1,  /* straight to the replicas' sockets */
    HAS_EXPIRING_FIELDS = 2,   /* a type of table of its own for hashes with such */
    HAS_CLOCKS_OF_ITS_OWN = 4, /* LRU and LFU, apart from `server` */
    HAS_SLOT_IMPORTS = 8,
    HAS_OLDER_FORMATS = 16,    /* for replicas that want them */
    HAS_EXPIRING_ENTRIES = 32, /* the same as HAS_EXPIRING_FIELDS, by another name */
    HAS_TRIM_JOBS = 64,        /* keys of slots that have left, on their way out */
    HAS_EXPIRING_PRODUCERS =
        256, /* does not write what has expired of producers' entries */
};

struct server_layout {
    const char *server;  /* "redis", "valkey" */
    const char *version; /* "7.0.15", or "7.0.": all that begin so */
    const char *magic;   /* the first nine bytes of a dump */
    enum keyspace_layout keyspace;
    unsigned has;          /* enum server_ability, or'ed */
    uint16_t report_bytes; /* of what a child tells its parent: server.c */

    /* Offsets in `server`, of what its table of settings does not tell (config_table.h). */
    uint16_t pid, main_thread_id, db, dbnum, unix_time;
    uint16_t lru_clock; /* 0: not in `server` (Valkey 9.1) */
    uint16_t child_info_pipe;
    uint16_t rdb_pipe_read, rdb_child_exit_pipe, rdb_pipe_conns, rdb_pipe_numconns;
    uint16_t replicas;

    uint16_t rio_buffer;        /* in struct rio: io.buffer.ptr */
    uint16_t connection_client; /* private_data */
    uint16_t connection_descriptor;
    uint16_t client_connection;
    /* How far a replica is and what it asks for: in the client, or in what it points
     * to for its replication; and the width of the second number. */
    uint16_t client_replication, client_replica_state;
    uint16_t client_request, client_request_bytes;
    uint16_t own_connection;            /* in what it asks for: straight to its socket */
    uint16_t no_compression;            /* likewise: strings as they are */
    uint16_t no_checksum;               /* likewise: 0 in its place */
    uint16_t module_name, module_types; /* RedisModule */
    uint16_t type_module, type_load;    /* moduleType.module, .rdb_load */
};

/* What layout files call them; ends with a name that is NULL. */
extern const struct layout_ability {
    const char *name;
    unsigned ability;
} layout_abilities[];

/* The members that are numbers, the most that each may be and what it is a multiple of, in
 * the order in which layout files have them. */
#define LAYOUT_NUMBERS(NUMBER)                                                           \
    NUMBER(report_bytes, 64, 8)                                                          \
    NUMBER(pid, UINT16_MAX, 4)                                                           \
    NUMBER(main_thread_id, UINT16_MAX, 8)                                                \
    NUMBER(db, UINT16_MAX, 8)                                                            \
    NUMBER(dbnum, UINT16_MAX, 4)                                                         \
    NUMBER(unix_time, UINT16_MAX, 8)                                                     \
    NUMBER(lru_clock, UINT16_MAX, 4)                                                     \
    NUMBER(child_info_pipe, UINT16_MAX, 4)                                               \
    NUMBER(rdb_pipe_read, UINT16_MAX, 4)                                                 \
    NUMBER(rdb_child_exit_pipe, UINT16_MAX, 4)                                           \
    NUMBER(rdb_pipe_conns, UINT16_MAX, 8)                                                \
    NUMBER(rdb_pipe_numconns, UINT16_MAX, 4)                                             \
    NUMBER(replicas, UINT16_MAX, 8)                                                      \
    NUMBER(rio_buffer, 256, 8)                                                           \
    NUMBER(connection_client, 4088, 8)                                                   \
    NUMBER(client_replication, 4088, 8)                                                  \
    NUMBER(client_request, 4088, 2)                                                      \
    NUMBER(client_connection, 4088, 8)                                                   \
    NUMBER(client_replica_state, 4088, 4)                                                \
    NUMBER(connection_descriptor, 4088, 4)                                               \
    NUMBER(client_request_bytes, 4, 2)                                                   \
    NUMBER(own_connection, 4096, 1)                                                      \
    NUMBER(no_compression, 4096, 1)                                                      \
    NUMBER(no_checksum, 4096, 1)                                                         \
    NUMBER(module_name, 4088, 8)                                                         \
    NUMBER(module_types, 4088, 8)                                                        \
    NUMBER(type_module, 4088, 8)                                                         \
    NUMBER(type_load, 4088, 8)

bool layout_is_of(const struct server_layout *table, const char *server,
                  const char *version);
/* The table of a server, NULL when there is none. */
const struct server_layout *layout_find(const char *server, const char *version);

#endif
