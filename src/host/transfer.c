#include "host/transfer.h"

#include <errno.h>
#include <sys/socket.h>

#include "host/server_internal.h"
#include "kernel/checked_read.h"
#include "kernel/fault_points.h"

/* adlist.h; `make layouts` checks it. */
#define LIST_HEAD  0
#define NODE_NEXT  8
#define NODE_VALUE 16
/* The state of a replica that gets a dump. */
#define GETS_DUMP 7
/* What every replica can that gets a dump without a file, in the number before its wish; and
 * what all but tools can. */
#define CAN_READ_TO_MARK 1
#define CAN_CONTINUE     2
/* Far more than a server has: a longer list is none. */
#define REPLICAS_MAX 10000

struct search {
    struct checked_reader reader;
    struct transfer *transfer;
};

static int read_word(struct search *search, uint64_t from, uint64_t *word)
{
    return checked_read(&search->reader, word, from, sizeof(*word));
}

/* ---- one client ------------------------------------------------------------------ */

/* Where the server keeps what it knows of a client as a replica. */
static int find_replication(struct search *search, uint64_t client, uint64_t *replication)
{
    *replication = client;
    return server_layout->client_replication
               ? read_word(search, client + server_layout->client_replication,
                           replication)
               : 0;
}

/* A wrong wish would be a dump without data, so that its place is proved by what stands
 * before it. */
static int read_wish(struct search *search, uint64_t at, struct transfer_target *target)
{
    uint16_t bytes = server_layout->client_request_bytes;
    uint32_t abilities = 0;
    target->wish = 0;
    int error = checked_read(&search->reader, &abilities, at - bytes, bytes);
    if (!error)
        error = checked_read(&search->reader, &target->wish, at, bytes);
    if (error || target->state != GETS_DUMP)
        return error;
    /* A tool's wish may look like abilities of so little. */
    uint32_t wanted = server_layout->keyspace == KEYSPACE_OF_FILE
                          ? CAN_READ_TO_MARK | CAN_CONTINUE
                          : CAN_READ_TO_MARK;
    return (abilities & wanted) == wanted && abilities < 256 ? 0 : -EBADMSG;
}

static int read_standing(struct search *search, uint64_t client,
                         struct transfer_target *target)
{
    uint64_t replication;
    int error = find_replication(search, client, &replication);
    if (!error)
        error = checked_read(&search->reader, &target->state,
                             replication + server_layout->client_replica_state,
                             sizeof(target->state));
    return error ? error
                 : read_wish(search, replication + server_layout->client_request, target);
}

/* Its other end may be gone by now. */
static bool is_socket(int descriptor)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof(name);
    return getsockname(descriptor, (struct sockaddr *)&name, &length) == 0;
}

static int read_connection(struct search *search, uint64_t client,
                           struct transfer_target *target)
{
    uint16_t at =
        server_layout->client_connection + (fault_point(FAULT_MOVED_CLIENTS) ? 8 : 0);
    uint64_t connection, owner;
    int error = read_word(search, client + at, &connection);
    if (!error)
        error = read_word(search, connection + server_layout->connection_client, &owner);
    if (!error)
        error = read_word(search, connection, &target->type);
    if (!error)
        error = checked_read(&search->reader, &target->descriptor,
                             connection + server_layout->connection_descriptor,
                             sizeof(target->descriptor));
    if (error)
        return error;
    return owner == client && is_socket(target->descriptor) ? 0 : -EBADMSG;
}

static int add_target(struct search *search, uint64_t client,
                      struct transfer_target *target)
{
    struct transfer *transfer = search->transfer;
    int error = read_connection(search, client, target);
    if (error)
        return error;
    target->client = (void *)(uintptr_t)client;
    if (transfer->count < RDB_OUTPUT_SOCKETS_MAX)
        transfer->targets[transfer->count] = *target;
    transfer->count++;
    return 0;
}

/* ---- all that get the dump ------------------------------------------------------- */

static int add_if_direct(struct search *search, uint64_t client)
{
    struct transfer_target target;
    int error = read_standing(search, client, &target);
    if (error || target.state != GETS_DUMP ||
        !(target.wish & server_layout->own_connection))
        return error;
    return add_target(search, client, &target);
}

static int find_direct(struct search *search, uint64_t list)
{
    uint64_t node, client;
    int error = read_word(search, list + LIST_HEAD, &node);
    for (unsigned left = REPLICAS_MAX; !error && node; left--) {
        if (!left)
            return -EBADMSG;
        error = read_word(search, node + NODE_VALUE, &client);
        if (!error)
            error = add_if_direct(search, client);
        if (!error)
            error = read_word(search, node + NODE_NEXT, &node);
    }
    return error;
}

static int add_by_connection(struct search *search, uint64_t connection)
{
    struct transfer_target target;
    uint64_t client;
    int error = read_word(search, connection + server_layout->connection_client, &client);
    if (!error)
        error = read_standing(search, client, &target);
    if (!error && target.state != GETS_DUMP)
        error = -EBADMSG;
    return error ? error : add_target(search, client, &target);
}

static int find_through_server(struct search *search, uint64_t connections, int32_t count)
{
    int error = 0;
    for (int32_t i = 0; i < count && i < RDB_OUTPUT_SOCKETS_MAX && !error; i++) {
        uint64_t connection;
        error = read_word(search, connections + 8 * (uint64_t)i, &connection);
        if (!error)
            error = add_by_connection(search, connection);
    }
    return error;
}

/* The list is the server's own mark of a transfer through its pipe: after a fork() that
 * failed, Redis 8.0 still has the number of a pipe that it has closed. */
bool transfer_is_direct(void)
{
    return !server_word(server_layout->rdb_pipe_conns);
}

int transfer_find(struct transfer *transfer)
{
    struct search search = {.transfer = transfer};
    int error = checked_reader_open(&search.reader);
    if (error)
        return error;
    transfer->count = 0;
    transfer->direct = transfer_is_direct();
    if (transfer->direct)
        error = find_direct(&search, server_word(server_layout->replicas));
    else
        error = find_through_server(&search, server_word(server_layout->rdb_pipe_conns),
                                    server_int(server_layout->rdb_pipe_numconns));
    checked_reader_close(&search.reader);
    return error;
}
