/* UFFD.DIRTYRATE: the client waits while the upkeep thread measures. */
#ifndef RDB_UFFD_MODULE_DIRTYRATE_H
#define RDB_UFFD_MODULE_DIRTYRATE_H

#include "server_api.h"

/* UFFD.DIRTYRATE [seconds]: answers an error at once, or blocks the client until
 * dirtyrate_tick() finds the measurement ended; the answer is a map. One client at a
 * time; one that goes away meanwhile is not waited for. */
int dirtyrate_command(api_context *context, api_string **arguments, int count);
/* Answers the client when the measurement has ended. A few times a second. */
void dirtyrate_tick(void);

#endif
