/* The operator's settings: as module configs (CONFIG GET/SET/REWRITE, lines in
 * redis.conf) and as arguments of loadmodule. */
#ifndef RDB_UFFD_MODULE_SETTINGS_H
#define RDB_UFFD_MODULE_SETTINGS_H

#include "rdb_uffd.h"
#include "server_api.h"

/* What is in force. */
extern struct rdb_uffd_settings settings;

/* Registers the configs with the server and takes what its file says, then the
 * arguments: name value name value …  API_ERR (and a line in the log) when
 * something is wrong. */
int settings_load(api_context *context, api_string **arguments, int count);

/* Bytes of "64mb", "1g", "1048576"; -EINVAL when it is no such thing, -ERANGE
 * when it does not fit. */
int settings_parse_memory(const char *text, uint64_t *bytes);

#endif
