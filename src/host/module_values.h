/* Values of types that modules define: only the module can write them, by a callback that
 * follows raw pointers. As long as there is none, such types do not matter. Every way in
 * which a first value comes to be leads past us:
 *
 *   a dump loaded, RESTORE   the callback rdb_load of the type
 *   a command                RedisModule_ModuleTypeSetValue: each module has the server's
 *                            function in a variable, which is found in its image
 *   before we were loaded    the keys are looked through (module/scan.c)
 *
 * All others (COPY, RENAME, another value for a key that has one) need a value that is
 * there already. What comes another way after all, by a pointer that a module keeps on the
 * heap, is met by the walk of a save, which then fails, and by none after it.
 *
 * Notifications of new keys would say the same with less, at the price of a call for each
 * key of any type that is made or loaded. */
#ifndef RDB_UFFD_HOST_MODULE_VALUES_H
#define RDB_UFFD_HOST_MODULE_VALUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "host/layout.h"

/* More than are known of any server. */
#define MODULE_TYPES_MAX 256

/* Main thread, all that say nothing else. */

/* Begins to watch the types that are there. 0, or -ENOENT when the server does not export
 * what is needed, or -errno: its types are not where they should be. */
int module_values_watch(const struct server_layout *layout);
/* A module was loaded: its types are watched too, and variables that it has set anew. */
void module_values_modules_changed(void);
/* Whether all can be left as it was: 0, or -EBUSY and a sentence in `reason`. */
int module_values_check(char *reason, size_t size);
void module_values_unwatch(void);

/* Are there types whose values are to be looked for in what the server holds already?
 * module_values_search() as long as that takes, in which there may be some, and
 * module_values_note() if one is found. */
bool module_values_are_possible(void);
void module_values_search(bool under_way);
/* There is a value of this type, NULL: of some type. Any thread. */
void module_values_note(const void *type);

/* The types there are, as module_values_find() has seen them last. Returns how many; 0: too
 * many to be copied. */
size_t module_values_types(uint64_t *types, size_t most);

/* -ENOTSUP, with a sentence in `reason`, when there may be such values, or there are data
 * of modules' own to be written before or after the keys; else 0. */
int module_values_find(char *reason, size_t reason_size);

#endif
