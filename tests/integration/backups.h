/* UFFD.BACKUP: asking for one, looking at it, and what must be there afterwards. Functions
 * end the case as failed when it is not so. */
#ifndef RDB_UFFD_TESTS_BACKUPS_H
#define RDB_UFFD_TESTS_BACKUPS_H

#include "server.h"

/* So that a save takes seconds: rdb-key-save-delay. */
#define BACKUP_SLOW "2000"

/* A server with some keys of all kinds. */
struct server *backup_start(void);
struct server *backup_start_with(const char *module_arguments);
/* A second connection, for while the first one waits. */
struct server server_beside(struct server *server);

/* A field of UFFD.BACKUP STATUS. */
const char *backup_status(struct server *server, const char *field);
void backup_check_state(struct server *server, const char *state);
/* Waits for its end, which must be so; or failed, for this reason. */
void backup_wait_for(struct server *server, const char *state);
void backup_check_failed(struct server *server, const char *reason);

/* Starts one that takes its time. */
void backup_start_slow(struct server *server, const char *arguments);
/* Ends it, and waits for that. */
void backup_cancel(struct server *server);
/* SAVE to reference.rdb and a backup at the same instant: sent in one go, so that the server
 * does nothing between them. NULL, or the backup's error. */
const char *backup_try_both(struct server *server, const char *arguments);
/* The same, and there must be no error. The file of the SAVE. */
const char *backup_with_save(struct server *server, const char *arguments);

bool backup_exists(struct server *server, const char *name);
void backup_check_nothing_left(const char *directory);
/* Byte for byte, and redis-check-rdb takes it. */
void backup_check_same(const char *reference, const char *backup);
/* By lz4 -d; where. */
char *backup_unpacked(const char *path);

#endif
