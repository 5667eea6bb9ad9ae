/* Write-protects the heap: the pause of a freeze.
 *
 * Huge pages take 0.05 ms for a gigabyte, and one thread. Small ones take 20 ms and more,
 * which is the kernel walking page tables with its lock held for reading: there other
 * threads take pieces of the rest, as far as there are CPUs for them.
 *
 *   caller   [64 MB][128 MB][256 MB] …            as long as it goes fast
 *   caller   [64 MB] slow! [16 MB]      [16 MB] …
 *   helper                      [16 MB][16 MB] …
 *
 * One caller at a time.
 */
#ifndef RDB_UFFD_MEMORY_PROTECTION_H
#define RDB_UFFD_MEMORY_PROTECTION_H

#include "memory/regions.h"

struct protection;

/* Starts up to three helpers, one less than there are CPUs. NULL: no memory or no
 * threads. */
struct protection *protection_create(void);
void protection_destroy(struct protection *protection);

/* Protects every region of `set`, which is registered with `userfaultfd`. 0, or -errno
 * with some of them protected and some not. Returns when no helper is at it any more. */
int protection_set(struct protection *protection, int userfaultfd,
                   const struct region_set *set);

#endif
