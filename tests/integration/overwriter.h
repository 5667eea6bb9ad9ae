/* A connection that overwrites random keys of one kind of value without pause,
 * so that nearly every page of the server is changed while it saves. */
#ifndef RDB_UFFD_TESTS_OVERWRITER_H
#define RDB_UFFD_TESTS_OVERWRITER_H

#include "server.h"

/* Takes so many answers, none of which may be an error. */
void take_replies(redisContext *connection, int count);
/* Sets "json:0" … to records of about `bytes` each. */
void json_fill(redisContext *connection, int keys, size_t bytes, uint64_t seed);
/* One such record; returns its length, at most `bytes`. */
size_t json_record(uint64_t *random, char *to, size_t bytes);

enum overwrite_how {
    OVERWRITE_SET,     /* new values: the old ones are freed */
    OVERWRITE_IN_PLACE /* SETRANGE: a few bytes change where they are */
};

struct overwriter;

struct overwriter *overwriter_start(struct server *server, int keys, size_t bytes,
                                    enum overwrite_how how, uint64_t seed);
/* Commands answered so far. */
long overwriter_commands(struct overwriter *overwriter);
/* Stops it; the same number. `worst_msec`, if not NULL: the longest that a batch
 * of commands took. */
long overwriter_stop(struct overwriter *overwriter, double *worst_msec);

/* What the kernel says of the server: resident bytes, shared memory included,
 * and lines of its memory map. */
size_t process_resident(struct server *server);
/* … of which in huge pages. */
size_t process_huge(struct server *server);
int process_mappings(struct server *server);

#endif
