/* The commands: UFFD.STATUS, UFFD.HISTORY, UFFD.RESETSTAT, UFFD.HELP … */
#ifndef RDB_UFFD_MODULE_COMMANDS_H
#define RDB_UFFD_MODULE_COMMANDS_H

#include "server_api.h"

/* Makes them known to the server, with what COMMAND DOCS and ACL need. At load. */
int commands_register(api_context *context);

#endif
