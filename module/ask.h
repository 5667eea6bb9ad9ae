/* What the server says of its keys, for the proof of its layout. */
#ifndef RDB_UFFD_MODULE_ASK_H
#define RDB_UFFD_MODULE_ASK_H

#include "rdb_uffd.h"
#include "server_api.h"

/* To be called first. `lasting`: a context that outlives the calls that others belong
 * to, since fork() has none. */
void ask_by(api_context *lasting);

bool ask_database(int database);
uint64_t ask_count(int database);
/* What it leaves behind in the server: the key counts as read just now, and in INFO a hit
 * or two and a DUMP are counted. Nothing is changed, replicated or notified. */
void ask_key(int database, const void *name, size_t length,
             struct rdb_uffd_key_answer *said);
void ask_clocks(int64_t *unix_time, int64_t *lru_clock);
bool ask_replica(int descriptor);

#endif
