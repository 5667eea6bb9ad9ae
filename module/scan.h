/* Looks through the keys that were there before the module was. */
#ifndef RDB_UFFD_MODULE_SCAN_H
#define RDB_UFFD_MODULE_SCAN_H

#include "server_api.h"

/* Looks for values of module types, where it matters (rdb_uffd_watches_values()).
 * Takes a tenth of a second at most: with more keys than it gets through in that
 * time such values are taken to exist. To be called while loading. */
void scan_for_module_values(api_context *context);

#endif
