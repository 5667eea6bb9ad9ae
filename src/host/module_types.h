/* The types of values that the server's modules have defined, as its list of modules has
 * them. Nothing of it is followed before it has been read as memory that is there. Main
 * thread. */
#ifndef RDB_UFFD_HOST_MODULE_TYPES_H
#define RDB_UFFD_HOST_MODULE_TYPES_H

#include <stdbool.h>

#include "host/layout.h"
#include "kernel/checked_read.h"

typedef void *(*module_type_load)(void *io, int version);

struct module_type {
    struct checked_reader *reader;
    const char *module; /* the server's RedisModule or ValkeyModule */
    char *type;         /* its moduleType */
    module_type_load load;
    bool writes_aux; /* it has aux_save, with which it writes into every dump */
};

/* Returns other than 0 to end the visit, which then returns it. */
typedef int (*module_type_visit)(const struct module_type *type, void *context);

/* 0, or -ENOENT when the server does not export what is needed. */
int module_types_find_server(void);
/* 0, what `visit` has returned, or -errno: the list is not where it should be. */
int module_types_visit(const struct server_layout *layout, module_type_visit visit,
                       void *context);

#define MODULE_NAME_BYTES 65
/* The module's name, cut off where it ends or would be none. */
void module_type_tell_module(const struct server_layout *layout,
                             const struct module_type *type,
                             char name[MODULE_NAME_BYTES]);
/* Puts another function in the place of `rdb_load`. */
void module_type_set_load(const struct server_layout *layout, char *type,
                          module_type_load load);
/* Which stands there. */
module_type_load module_type_get_load(const struct server_layout *layout,
                                      const char *type);

#endif
