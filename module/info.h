/* The module's section of INFO. */
#ifndef RDB_UFFD_MODULE_INFO_H
#define RDB_UFFD_MODULE_INFO_H

#include "server_api.h"

void info_fill(api_info *info, int for_crash_report);

#endif
