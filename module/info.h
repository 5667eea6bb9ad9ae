/* The module's section of INFO. */
#ifndef RDB_UFFD_MODULE_INFO_H
#define RDB_UFFD_MODULE_INFO_H

#include "server_api.h"

/* For the server to call when INFO is asked for, and when it reports its crash: what it
 * reads then may be half written, but nothing is locked, allocated or waited for. */
void info_fill(api_info *info, int for_crash_report);

/* Calls `text` or `number` for every field of INFO, in its order, names without
 * the "uffd_" before them. */
struct info_visitor {
    void (*text)(const struct info_visitor *visitor, const char *name, const char *value);
    void (*number)(const struct info_visitor *visitor, const char *name, uint64_t value);
    void *context;
};
void info_visit(const struct info_visitor *visitor);

#endif
