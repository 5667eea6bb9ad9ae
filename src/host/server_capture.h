/* What a child forked right now would inherit of the server: what its dump begins and ends
 * with, its files, pipes and sockets. And what of it only a fork could save. */
#ifndef RDB_UFFD_HOST_SERVER_CAPTURE_H
#define RDB_UFFD_HOST_SERVER_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>

#include "host/child.h"
#include "host/server.h"
#include "rdb/output.h"

/* Replicas that one transfer can go to straight through their sockets. */
#define SERVER_SOCKETS_MAX RDB_OUTPUT_SOCKETS_MAX

/* Where in a dump modules write data of their own ("aux data"), as the server has it. */
enum aux_place { AUX_BEFORE_KEYS = 1, AUX_AFTER_KEYS = 2 };

/* What a child forked at this instant would have had. */
struct server_capture {
    struct keyspace_roots roots;
    rdb_compress_function compress;  /* NULL: rdbcompression no */
    rdb_checksum_function checksum;  /* NULL: rdbchecksum no */
    size_t sync_every;               /* bytes, 0: never */
    char file_name[256];             /* what the finished file is called, "": as while it
                                        is written (host/child_files.h) */
    int transfer_pipe;               /* dup: where a replica transfer goes, else -1 */
    int sockets[SERVER_SOCKETS_MAX]; /* dup: or the replicas' own, where it goes to */
    size_t socket_count;             /* without the server between, else 0 */
    int server_sockets[SERVER_SOCKETS_MAX]; /* the server's own numbers of these */
    int exit_pipe;   /* dup: the server closes its other end when it has
                                read all of the transfer, else -1 */
    int directory;   /* O_PATH-like descriptor of the cwd, -1 */
    int report_pipe; /* dup of child_info_pipe's write end, -1 */
    /* magic, aux fields, module data BEFORE, functions, slots that are being imported:
     * bytes ready to write */
    unsigned char *header;
    size_t header_length;
    size_t header_aux; /* where module data BEFORE begin in it, or belong */
    bool no_data;      /* for a tool that wants the functions only */
    bool needs_child;  /* for values of modules' types; module data are for it to write,
                         too, and in neither header nor trailer */
    bool imports;      /* there are such slots: */
    bool imported_slots[KEYSPACE_SLOTS];
    /* module data AFTER the keys */
    unsigned char *trailer;
    size_t trailer_length;
};

/* Fills `capture` for a save of this cause. `no_child`: why there can be none that saves
 * values of modules' types and what else modules write; NULL: there can. 0; -ENOTSUP with
 * `reason` when it cannot be served without a fork (values of module types, …); -errno.
 * On failure nothing is left to release. Main thread. */
int server_capture(const struct child_request *request, const char *no_child,
                   struct server_capture *capture, char *reason, size_t reason_size);
/* Closes and frees what server_capture() made. Main thread or saver's. */
void server_capture_release(struct server_capture *capture);

#endif
