/* How preserved pages, new values and the pages of the child for modules' values share
 * buffer-limit.
 *
 * New values beside the old ones are memory that the dataset does not need, as the
 * preserved pages are: the limit is for both, but for a little. Memory for values is
 * the better use of it, a page of 4 KB being preserved for each value that takes an
 * old place; and old values of whole pages are evicted for new ones. */
#ifndef RDB_UFFD_LIMIT_SHARE_H
#define RDB_UFFD_LIMIT_SHARE_H

#include "snapshot.h"

/* At each tick of a save: leaves the preserved pages what new values have not taken, and has
 * dead values evicted when there are many new ones. False once new values are to have no more
 * memory of their own. Main thread. */
bool limit_share(struct snapshot *snapshot);
/* The same bound for new values when only a measurement runs. Main thread. */
bool limit_share_measuring(struct snapshot *snapshot);

#endif
