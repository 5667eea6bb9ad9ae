/* Servers with the module whose answers are looked at. */
#ifndef RDB_UFFD_TESTS_ANSWERS_H
#define RDB_UFFD_TESTS_ANSWERS_H

#include "server.h"

#define ANSWER_KEYS 20000
#define SLOW_SAVE   "100" /* microseconds a key */

/* A server with the module and ANSWER_KEYS keys; the case is not for one without. */
struct server *answering_start(const char *config);

/* The value of a name in a map that was sent as a flat array; as text, as a number. */
redisReply *answer_field(redisReply *map, const char *name);
const char *answer_text(redisReply *map, const char *name);
long long answer_number(redisReply *map, const char *name);

/* The newest save of the history. */
redisReply *last_save(struct server *server);
void check_last_save(struct server *server, const char *cause, const char *result);
/* UFFD.DOCTOR: the line of the finding of this name; that it begins with "OK ", "WARN " or
 * "FAIL ", and has a remedy unless it is OK; that it also has `text` somewhere. */
const char *finding(struct server *server, const char *name);
void check_finding(struct server *server, const char *name, const char *status);
void check_finding_says(struct server *server, const char *name, const char *status,
                        const char *text);
/* What the server sends back for lines of inline commands, as bytes. */
const char *answer_bytes(struct server *server, const char *lines);

#endif
