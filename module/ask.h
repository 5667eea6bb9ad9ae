/* What the server says of its keys, for the proof of its layout. */
#ifndef RDB_UFFD_MODULE_ASK_H
#define RDB_UFFD_MODULE_ASK_H

#include "rdb_uffd.h"
#include "server_api.h"

/* At load, and when the module goes. */
void ask_begin(api_context *context);
void ask_end(void);

uint64_t ask_count(int database);
/* What it leaves behind in the server: the key counts as read just now, and in INFO a hit
 * or two and a DUMP are counted. Nothing is changed, replicated or notified. */
void ask_key(int database, const void *name, size_t length,
             struct rdb_uffd_testimony *said);

#endif
