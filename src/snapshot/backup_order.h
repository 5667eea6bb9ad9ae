/* What UFFD.BACKUP was asked for. */
#ifndef RDB_UFFD_BACKUP_ORDER_H
#define RDB_UFFD_BACKUP_ORDER_H

#include <stdbool.h>
#include <stdint.h>

/* With the zero at its end. */
#define BACKUP_NAME_BYTES 256

struct rdb_uffd_backup_order {
    char name[BACKUP_NAME_BYTES]; /* in settings.backup_directory; no "/" in it */
    bool lz4;                     /* as an LZ4 frame */
    bool replace;                 /* a dump that has this name already */
    uint64_t bytes_per_second;    /* at most, 0: any number */
};

#endif
