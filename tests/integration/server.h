/* A redis-server in a directory of its own on a free port, for one test case.
 *
 * Functions end the case as failed when the server does not do what is asked;
 * strings and replies they return live as long as the case does.
 *
 * Environment:
 *   SERVER_COMMAND   how the server is started ("redis-server"); words are
 *                    split at spaces, so that a loader can stand in front
 *   OTHER_SERVERS    commands of other servers, one word each, that may be mixed
 *                    with it (none)
 *   CHECK_COMMAND    its redis-check-rdb, likewise
 *   RDB_UFFD_MODULE  the module ("./rdb_uffd.so")
 *   MODULE_HAS_CHECKS  not empty: it is that of `make checked`
 *   WITHOUT_MODULE   set: servers run without it, with their own fork, and what
 *                    only the module can show is left out
 */
#ifndef RDB_UFFD_TESTS_SERVER_H
#define RDB_UFFD_TESTS_SERVER_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <sys/types.h>

#include "testcase.h"

struct server_options {
    const char *config;           /* lines for redis.conf */
    const char *module_arguments; /* "name value ..." after the module's path */
    const char *fault;            /* RDB_UFFD_FAULT; NULL: not set */
    const char *user;             /* run as this user; NULL: as we do */
    const char *command;          /* another server's; NULL: SERVER_COMMAND */
    const char *directory;        /* start in this one again; NULL: a fresh one */
    bool without_module;
    bool sentinel;    /* start it as a sentinel: no data, no module */
    bool own_numbers; /* in a pid namespace of its own, where it is process 1 */
};

struct server {
    pid_t pid;
    pid_t own_pid; /* as the server sees it */
    int port;
    bool has_module;
    bool stopped;   /* by us: not being there at the end is no failure */
    bool may_crash; /* it is meant to: a report in its log is none either */
    char *directory;
    char *log;
    redisContext *connection;
};

/* Lines that every server of the case gets, before its own; NULL: none. */
extern const char *server_common_config;

/* ---- life ---- */
/* `options` may be NULL. Returns when the data is loaded. */
struct server *server_start(const struct server_options *options);
/* The same, but the server may refuse: then NULL, and its log in `*log`. */
struct server *server_try_start(const struct server_options *options, char **log);
/* SHUTDOWN NOSAVE; the exit code must be 0. */
void server_stop(struct server *server);
void server_kill(struct server *server);
/* Waits for the end of a server that was told to end; returns the exit code. */
int server_wait_exit(struct server *server);
bool server_is_alive(struct server *server);
/* Otherwise it is built in and called directly, as in what most makers build. */
bool server_allocator_is_library(struct server *server);
redisContext *server_connect(struct server *server);

/* ---- commands ---- */
/* Whatever is answered, errors too. */
redisReply *server_command(struct server *server, const char *format, ...);
/* Must not be answered with an error. */
redisReply *server_ok(struct server *server, const char *format, ...);
/* The text of an answer, of an error that must come, of an integer. */
const char *server_text(struct server *server, const char *format, ...);
const char *server_error(struct server *server, const char *format, ...);
long long server_integer(struct server *server, const char *format, ...);
/* Sends all of them in one go, so that the server does nothing between them. NULL, or the
 * last command that was answered with an error, and that. */
const char *server_error_at_once(struct server *server, const char *const *commands,
                                 int count);
void server_config_set(struct server *server, const char *name, const char *value);
const char *server_config_get(struct server *server, const char *name);
/* A field of INFO everything; NULL if there is none. The number must be there. */
const char *server_info(struct server *server, const char *field);
/* "redis", "valkey", "redict"; and its version. */
const char *server_name(struct server *server);
const char *server_version(struct server *server);
double server_info_number(struct server *server, const char *field);
/* Whether there is such a command. */
bool server_knows(struct server *server, const char *command);
const char *server_digest(struct server *server);
/* How often the log has the text, and in how many lines. */
int server_log_count(struct server *server, const char *text);
int server_log_lines(struct server *server, const char *text);

/* ---- saving ---- */
void server_save_start(struct server *server);
/* Waits for the end of a background save; true if it succeeded. */
bool server_save_wait(struct server *server);
/* Both, and it must succeed. */
void server_save(struct server *server);
/* Child processes that the server has right now. */
int server_children(struct server *server);
/* temp-*.rdb in the directory, NULL if there is none. */
const char *server_temporary_file(struct server *server);
/* What the directory entry "name" is called in full. */
char *server_path(struct server *server, const char *name);

/* ---- the module ---- */
bool module_in_use(void);
/* Ends the case as skipped if WITHOUT_MODULE is set. */
void needs_module(void);
const char *module_path(void);
/* Saves until one was not made with fork: a thread that was away has come back. */
void wait_until_saves_are_ours(struct server *server);
/* That `saves` forks were replaced up to now and none was made for want of
 * anything. Nothing is checked without the module. */
void check_fork_free(struct server *server, int saves);

#endif
