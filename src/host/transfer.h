/* Who a dump is about to be sent to: the replicas that the server has chosen, looked up
 * in its structures.
 *
 *   through the server   rdb_pipe_conns ──▶ connection ──▶ client
 *   straight             replicas ──▶ list of clients; those that get a dump through a
 *                        connection of their own
 *
 *   client ──▶ connection ──▶ the same client; its descriptor is an open socket
 *
 * That circle, and the state that the server has just set, prove the offsets before
 * anything found by them is used. All reads are checked: a wrong offset is an error.
 * Main thread.
 */
#ifndef RDB_UFFD_HOST_TRANSFER_H
#define RDB_UFFD_HOST_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rdb/output.h"

/* A replica's wish: to have no data or no functions, for tools; or to get the dump
 * through a connection of its own, in a bit that the layout tells. */
#define WISH_NO_DATA      1
#define WISH_NO_FUNCTIONS 2
struct transfer_target {
    void *client;
    uint64_t type;      /* of its connection: the address of the server's table */
    int32_t descriptor; /* of its socket; the server's */
    int32_t state;
    int32_t wish;
};

struct transfer {
    bool direct;  /* straight to their sockets */
    size_t count; /* of replicas; the first of them: */
    struct transfer_target targets[RDB_OUTPUT_SOCKETS_MAX];
};

/* Whether the dump that is about to be sent goes straight to the replicas' sockets. */
bool transfer_is_direct(void);
/* 0 (also when there are none), or -errno: they do not lie as the layout says. */
int transfer_find(struct transfer *transfer);

#endif
