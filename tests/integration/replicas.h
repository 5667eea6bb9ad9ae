/* Masters, replicas and what to wait for between them. */
#ifndef RDB_UFFD_TESTS_REPLICAS_H
#define RDB_UFFD_TESTS_REPLICAS_H

#include "server.h"

/* Waits until INFO says so; the case fails after `seconds`. */
void wait_for_info(struct server *server, const char *field, const char *value,
                   double seconds);
void wait_for_info_above(struct server *server, const char *field, double least,
                         double seconds);
/* No background save and no rewrite runs or is scheduled. */
void wait_until_no_child(struct server *server, double seconds);
/* temp-* in the directory must go away within half a second. */
void check_no_temporary_file(struct server *server);

/* A server started with these options and told to follow the master. */
struct server *replica_start(struct server *master, const struct server_options *options);
void replica_follow(struct server *replica, struct server *master);
/* Until the link is up; then it has loaded what the master sent. */
void replica_wait_link(struct server *replica);
/* When writes have stopped: the same offsets, then the same DEBUG DIGEST. */
void check_same_data(struct server *master, struct server *replica);

/* What the server sends through its pipe to a replica that asks for a whole dump, into
 * `path`. `wish`: what it tells by REPLCONF, or NULL. Ends when the server has ended too. */
void receive_dump(struct server *server, const char *wish, const char *path);
/* The same with strings as they are, which replicas of Redis 8.6 ask for; not applicable
 * where none can. */
void receive_uncompressed(struct server *server, const char *path);
/* Whether a forked child sends such a dump with the same keys. The module is off then. */
void check_uncompressed_by_fork(struct server *server, const char *path);

/* ---- without a file ---- */

#define DISKLESS_CONFIG "repl-diskless-sync yes\nrepl-diskless-sync-delay 0\n"

/* Runs `body` with the master's `config`, which has DISKLESS_CONFIG in it: with the
 * transfer through the server's own process, and straight to the sockets where it
 * can. */
void each_diskless_way(void (*body)(const char *config), const char *config);
/* Which of the two it is now. */
extern bool straight_to_sockets;

#endif
