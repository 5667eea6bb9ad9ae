/* What the guard (host/guard.h) asks before memory is given back or taken. */
#ifndef RDB_UFFD_GUARD_OPERATIONS_H
#define RDB_UFFD_GUARD_OPERATIONS_H

#include "host/guard.h"

extern const struct guard_operations snapshot_guard;

#endif
