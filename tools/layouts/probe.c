/* Compiled, never run, against a server's own headers by `generate`: the assembly
 * it is turned into has a line for every offset. */
#include <stddef.h>

#include "server.h"
#ifdef PROBE_MODULE_HEADER
#include "module.h"
#endif

#define VALUE(name, value)       __asm__ volatile("#probe " #name " %0" : : "i"((long)(value)))
#define FIELD(name, type, field) VALUE(name, offsetof(type, field))
#define SERVER(name, field)      FIELD(name, struct PROBE_SERVER, field)

/* What transfer.c takes for granted. */
_Static_assert(offsetof(struct list, head) == 0, "list");
_Static_assert(offsetof(struct listNode, next) == 8, "listNode");
_Static_assert(offsetof(struct listNode, value) == 16, "listNode");
#ifdef REPLICA_STATE_WAIT_BGSAVE_END
_Static_assert(REPLICA_STATE_WAIT_BGSAVE_END == 7, "state");
#else
_Static_assert(SLAVE_STATE_WAIT_BGSAVE_END == 7, "state");
#endif

void probe(void);
void probe(void)
{
    VALUE(rdb_version, RDB_VERSION);
    SERVER(pid, pid);
    SERVER(main_thread_id, main_thread_id);
    SERVER(db, db);
    SERVER(dbnum, dbnum);
    SERVER(unix_time, unixtime);
#ifdef PROBE_LRUCLOCK
    SERVER(lru_clock, lruclock);
#endif
    SERVER(child_info_pipe, child_info_pipe);
    SERVER(rdb_pipe_read, rdb_pipe_read);
    SERVER(rdb_child_exit_pipe, rdb_child_exit_pipe);
    SERVER(rdb_pipe_conns, rdb_pipe_conns);
    SERVER(rdb_pipe_numconns, rdb_pipe_numconns);
    SERVER(replicas, PROBE_REPLICAS);

    FIELD(rio_buffer, struct _rio, io.buffer.ptr);
    FIELD(connection_client, struct connection, private_data);
#ifdef PROBE_REPLICATION_DATA
    FIELD(client_replication, struct client, repl_data);
    FIELD(client_request, struct PROBE_REPLICATION_DATA, PROBE_REQUEST);
#else
    FIELD(client_request, struct client, PROBE_REQUEST);
#endif
    FIELD(client_connection, struct client, conn);
    FIELD(client_replica_state, struct PROBE_REQUEST_OWNER, PROBE_REPLICA_STATE);
    FIELD(connection_descriptor, struct connection, fd);
    VALUE(client_request_bytes, sizeof(((struct PROBE_REQUEST_OWNER *)0)->PROBE_REQUEST));
#ifdef REPLICA_REQ_RDB_CHANNEL
    VALUE(own_connection, REPLICA_REQ_RDB_CHANNEL);
#elif defined(SLAVE_REQ_RDB_CHANNEL)
    VALUE(own_connection, SLAVE_REQ_RDB_CHANNEL);
#endif
#ifdef SLAVE_REQ_RDB_NO_COMPRESS
    VALUE(no_compression, SLAVE_REQ_RDB_NO_COMPRESS);
#endif
#ifdef SLAVE_REQ_RDB_NO_CHECKSUM
    VALUE(no_checksum, SLAVE_REQ_RDB_NO_CHECKSUM);
#endif
    FIELD(module_name, struct PROBE_MODULE, name);
    FIELD(module_types, struct PROBE_MODULE, types);
#ifdef PROBE_TYPE_ENTITY
    FIELD(type_module, moduleType, entity.module);
#else
    FIELD(type_module, moduleType, module);
#endif
    FIELD(type_load, moduleType, rdb_load);
}
