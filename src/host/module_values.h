/* Values of types that modules define: only a fork can save them.
 *
 * A module writes its values itself, from live memory, by a callback that follows
 * raw pointers. One that was loaded may have made values at any time, so its
 * having types is enough for a fork. Modules that are built into the server (Redis
 * 8.0: vectorset) would make every save fork; but each way in which their values
 * come to be leads past us:
 *
 *   a command       RedisModule_ModuleTypeSetValue, a variable of the server
 *                   through which its own modules call
 *   a dump loaded   the callback rdb_load of the type
 *
 * so that they count only once there has been a value. That is remembered until
 * the server ends. Main thread.
 */
#ifndef RDB_UFFD_HOST_MODULE_VALUES_H
#define RDB_UFFD_HOST_MODULE_VALUES_H

#include <stdbool.h>
#include <stddef.h>

#include "host/layout.h"

/* Begins to watch what is built into this server. 0, or -ENOENT when the server
 * does not export what is needed: then module_values_find() finds whatever there is. */
int module_values_watch(const struct server_layout *layout);
/* Whether the type can be left as it was: 0, or -EBUSY and a sentence in `reason`. */
int module_values_check(char *reason, size_t size);
void module_values_unwatch(void);
/* Is a built-in type watched? Then what the server holds already is to be looked
 * through: module_values_search() as long as that takes, in which there may be some,
 * and module_values_note() if some are found. `why` is static text. */
bool module_values_is_watching(void);
void module_values_search(bool under_way);
void module_values_note(const char *why);
/* Another module was loaded: it may have set the watched variable anew. */
void module_values_modules_changed(void);

/* -ENOTSUP, with a sentence in `reason`, when there may be such values; else 0. */
int module_values_find(char *reason, size_t reason_size);

#endif
