/* UFFD.BACKUP: a dump that no child of the server's writes. The server knows nothing of it,
 * so what it remembers of its own saves stays as it is, and its forks while one runs are
 * real ones. Main thread. */
#ifndef RDB_UFFD_BACKUP_H
#define RDB_UFFD_BACKUP_H

#include <stdbool.h>
#include <stdint.h>

#include "snapshot/backup_order.h"

/* The one under way, or the last one. Texts are valid until the server runs on. */
struct rdb_uffd_backup {
    bool running;
    bool open;         /* it has a file or a reader */
    const char *state; /* "none" there was yet, "running", or how it ended: "ok" … */
    const char *name;
    const char *reason; /* of a failure, "" else */
    uint64_t id;
    int64_t started_msec; /* since 1970 */
    uint64_t elapsed_msec;
    uint64_t keys;
    uint64_t keys_total;
    uint64_t bytes; /* written, packed if they are */
    uint64_t ok, failed, cancelled;
};

/* Freezes; the saver goes on. NULL, or why not: one line, valid until the next call. */
const char *rdb_uffd_begin_backup(const struct rdb_uffd_backup_order *order);
/* False: there is none. It ends a moment later. */
bool rdb_uffd_cancel_backup(void);
/* The server ends. What must not be left behind is removed, if its disk answers within
 * half a second. */
void rdb_uffd_leave_backup(void);
void rdb_uffd_get_backup(struct rdb_uffd_backup *backup);

/* For rdb_uffd.c: */
struct snapshot;
void backup_init(void);
/* Notes the end of one that has ended. */
void backup_settle(struct snapshot *snapshot);
bool backup_is_running(void);

#endif
