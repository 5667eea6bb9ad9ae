/* A background save whose exact content is known: begun while writes are
 * paused, after the data have been written down by other means. */
#ifndef RDB_UFFD_TESTS_SNAPSHOT_H
#define RDB_UFFD_TESTS_SNAPSHOT_H

#include "rdbfile.h"

struct snapshot {
    struct server *server;
    const char *digest;    /* DEBUG DIGEST at its instant */
    char *reference;       /* what SAVE wrote at its instant */
    const char *rehashing; /* activerehashing, off while writes are paused: its clock
                              would move keys about between SAVE and BGSAVE */
};

/* Until the module has compared keys with what the server says of them, which it does at
 * its first tick with keys, or else at the first save. For that it asks for keys, and a
 * server that is asked for one moves some others of a table in rehash: what a SAVE wrote
 * right before is then in another order. */
void wait_until_proved(struct server *server);

/* SAVE to one file, and BGSAVE to another. Sent in one go, so that the server does nothing
 * between them: on a busy machine its clock would tick, and tables be resized, which puts
 * their keys in another order. `delay`: rdb-key-save-delay of the second. */
void save_twice_at_once(struct server *server, const char *reference, const char *dump,
                        const char *delay);
/* The same, to the end of the second: NULL if both wrote the same, else what differs.
 * `*background` is where the file of the BGSAVE is. */
const char *save_both_ways(struct server *server, const char **background);
/* They must be the same, and the file whole. Returns its path. */
const char *check_saved_both_ways(struct server *server);
/* CLIENT PAUSE, DEBUG DIGEST, SAVE, BGSAVE, CLIENT UNPAUSE. */
struct snapshot snapshot_begin(struct server *server);
/* The same up to the BGSAVE, which the caller sends. */
struct snapshot snapshot_prepare(struct server *server);
/* Waits for the end of the save. NULL if the dump is what it must be: byte for
 * byte the reference, and data with the same digest when a second server loads
 * it with `config`; else what is wrong. */
const char *snapshot_fault(struct snapshot *snapshot, const char *config);
/* Waits for the end of the save; the dump must be the reference byte for byte, and whole.
 * For data that a digest says nothing of: what expires, what belongs to another node. */
void snapshot_check_file(struct snapshot *snapshot);

#endif
