/* The server we live in: which one it is, the functions it exports, where its
 * variables are, and what a child made right now would inherit from it.
 *
 * Everything here is read on the main thread, from live memory.
 */
#ifndef RDB_UFFD_HOST_SERVER_H
#define RDB_UFFD_HOST_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/child.h"
#include "keyspace/keyspace.h"
#include "rdb/comparison.h"
#include "rdb/encoder.h"
#include "rdb/output.h"

/* Finds the server's exported symbols and proves the layout table of its
 * version: the one in `layout_file` (host/layout_file.h), or if that is "" a built-in one.
 * 0; -ENOTSUP with a sentence in `reason` (at least 160 bytes) that
 * says what is not known. Once, at load. `version` as INFO says it ("7.0.15"). */
int server_identify(const char *server_name, const char *version, const char *layout_file,
                    char *reason, size_t reason_size);

/* What a walk needs to know of this instant. After server_identify(), main thread. */
void server_roots(struct keyspace_roots *roots);
/* The server's own lzf_decompress(). */
rdb_decompress_function server_decompress(void);

/* The version of its dumps, as the table says. */
int server_dump_version(void);
/* The table is not built in: it is proved more strictly (upkeep/proof.h). */
bool server_layout_is_of_file(void);
/* Whether that table has its clock of accesses. */
bool server_has_lru_clock(void);

/* Puts the calling thread on these CPUs, as a child would be (bgsave_cpulist or
 * aof_rewrite_cpulist, as the server reads it). Nothing happens when the server lacks
 * the function. */
void server_set_cpus(const char *list);

/* How many keys all databases have in a slot, the server's word. Only after
 * server_capture() has found imports. */
uint64_t server_slot_keys(int slot);

/* Replicas that one transfer can go to straight through their sockets. */
#define SERVER_SOCKETS_MAX RDB_OUTPUT_SOCKETS_MAX

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
    bool no_data; /* for a tool that wants the functions only */
    bool imports; /* there are such slots: */
    bool imported_slots[KEYSPACE_SLOTS];
    /* module data AFTER the keys */
    unsigned char *trailer;
    size_t trailer_length;
};

/* Fills `capture` for a save of this cause. 0; -ENOTSUP with `reason` when it
 * cannot be served without a fork (values of module types, …); -errno.
 * On failure nothing is left to release. Main thread. */
int server_capture(const struct child_request *request, struct server_capture *capture,
                   char *reason, size_t reason_size);
/* Closes and frees what server_capture() made. Main thread or saver's. */
void server_capture_release(struct server_capture *capture);

#endif
