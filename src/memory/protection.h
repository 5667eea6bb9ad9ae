/* Write-protects the heap: the pause of a freeze.
 *
 * Huge pages take 0.05 ms for a gigabyte, and one thread. Small ones take 20 ms and more,
 * which is the kernel walking page tables with its lock held for reading: there other
 * threads take shares of the rest, as far as there are CPUs for them.
 *
 *   caller   [64 MB][128 MB][256 MB] …            as long as it goes fast
 *   caller   [64 MB] slow! [16 MB]      [16 MB] …
 *   helper                      [16 MB][16 MB] …
 *
 * The caller never waits for a helper: what one has taken and not done when nothing else
 * is left, the caller does too. A helper that is late then leaves it, unless it is amid
 * its call already: so it may protect a page of its share again later, which costs a
 * fault; nobody may lift the protection for good before it has ended.
 *
 * One caller at a time.
 */
#ifndef RDB_UFFD_MEMORY_PROTECTION_H
#define RDB_UFFD_MEMORY_PROTECTION_H

#include <stdbool.h>

#include "memory/regions.h"

struct protection;

/* Starts up to three helpers, one less than there are CPUs. NULL: no memory or no
 * threads. */
struct protection *protection_create(void);
void protection_destroy(struct protection *protection);

/* Protects every region of `set`, which is registered with `userfaultfd`. 0, or
 * -errno with some of them protected and some not. */
int protection_set(struct protection *protection, int userfaultfd,
                   const struct region_set *set);
/* A helper may still protect something of the last call's. */
bool protection_is_at_work(struct protection *protection);
/* Until none does. Not for a thread of the server: a helper may have lost its CPU. */
void protection_wait(struct protection *protection);
/* Bytes that the last call asked the kernel to protect, without what a helper that is late
 * has not done yet. */
uint64_t protection_bytes(const struct protection *protection);

#endif
