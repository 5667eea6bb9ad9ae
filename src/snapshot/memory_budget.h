/* What the process's control groups leave room for: in a container a server that takes
 * too much is killed, where its fork's child would have been charged to the same group.
 *
 *   limit of the group
 *   │ used by the server, of which preserved pages │   left          │ reserve │
 *   └──────────────────────────────────────────────┴─ for the buffer ┴─────────┘
 *
 * Looked at by the upkeep thread, ever anew: what others in the group take is seen too.
 * Until the next look the server itself may take more; the reserve is for that.
 */
#ifndef RDB_UFFD_MEMORY_BUDGET_H
#define RDB_UFFD_MEMORY_BUDGET_H

#include <stdint.h>

#include "snapshot.h"

/* Looks, and has the buffer keep to it. Some 100 us. Upkeep thread. */
void memory_budget_update(struct snapshot *snapshot);
/* Bytes of that which may be taken now for convenience: whole huge pages, memory
 * prefaulted. UINT64_MAX without a limit. As of the last look; any thread. */
uint64_t memory_budget_spare(const struct snapshot *snapshot);

#endif
