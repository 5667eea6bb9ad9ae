/* Looks through the keys that were there before the module was. */
#ifndef RDB_UFFD_MODULE_SCAN_H
#define RDB_UFFD_MODULE_SCAN_H

#include "server_api.h"

/* Begins to look for values of module types, where it matters
 * (rdb_uffd_values_are_possible()). Takes a tenth of a second at most; what is left is looked
 * through by scan_tick(), and saves fork until that is done. At load. */
void scan_begin(api_context *context);
/* Goes on for two milliseconds. To be called ten times a second. */
void scan_tick(api_context *context);
void scan_end(void);

#endif
