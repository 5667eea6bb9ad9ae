/* UFFD.BACKUP: starts, shows and cancels backups. */
#ifndef RDB_UFFD_MODULE_BACKUP_COMMAND_H
#define RDB_UFFD_MODULE_BACKUP_COMMAND_H

#include "server_api.h"

#define BACKUP_ARGUMENTS                                                                 \
    " file|fifo [COMPRESS lz4] [RATE bytes-per-second] [REPLACE] [WAIT]"

/* Blocks the client until the backup has a file or a reader, with WAIT until it has ended;
 * where clients cannot be blocked it answers at once. */
int backup_command(api_context *context, api_string **arguments, int count);
/* Answers the client that waits. A few times a second. */
void backup_tick(void);

#endif
