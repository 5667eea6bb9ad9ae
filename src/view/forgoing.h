/* Memory of which nothing is kept, from amid a snapshot on: what is there is not the server's.
 * Its pages are marked in the index as those are that are preserved, before their protection
 * is lifted; but whoever reads them gets an error.
 */
#ifndef RDB_UFFD_VIEW_FORGOING_H
#define RDB_UFFD_VIEW_FORGOING_H

#include <stdint.h>

#include "view/audit.h"
#include "view/view.h"

/* Of the 2 MB at `start`, a multiple of that, but for what is preserved already. 0, and the
 * protection may be lifted; -ENOENT, and nothing has changed: not all of it is of one frozen
 * region, or there is no room for the index. Else the snapshot must be given up: AUDIT_LOST,
 * or the kernel cannot be asked. [server] */
int forgo_huge_page(struct view *view, struct audit *audit, uint64_t start);

#endif
