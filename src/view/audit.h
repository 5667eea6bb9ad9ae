/* The audit: has every page kept its protection, or been preserved, or forgone?
 *
 * A read of the past (view.h) trusts a live page as long as nobody has preserved it: a
 * writer would have faulted first. That holds only while the page is protected, and the
 * kernel takes the mark away without a word when somebody merges equal pages (KSM), drops
 * or replaces a mapping behind the guard's back (host/guard.h), or has a defect. So before
 * anything is published the kernel is asked about every page:
 *
 *   audit, once the walk is done          fault server (its steps as in view.h)
 *   1 ask whether the page is protected   b publish its copy        (release)
 *     yes: nobody has written to it       c lift the protection
 *   2 no: ask the index (acquire)
 *     preserved: c came after b
 *     not: lost
 *
 * Marks only go while frozen and never come back, so one look at the end tells of all the
 * time before it. And the index can be believed only if a copy that was not made for a
 * fault, when the mark is there by nature, was made while the mark was there: what is
 * preserved on request, taken from the spool, after a wait for room, or forgone is asked
 * about by audit_check() once that has been done.
 *
 * What is rightly unprotected and not preserved, and how it is told apart:
 *   left out of the freeze   memory/decommitted.h: not in `content`, which is what was protected
 *   never touched            is marked like all else (UFFD_FEATURE_WP_UNPOPULATED)
 *   swapped out, migrating   the mark is in the swap entry
 *   evicted, purged, moved   preserved first
 *   the allocator's own      forgone (view/forgoing.h): nobody can read it
 *   unmapped by the server   put off until the snapshot ends (memory/deferred_unmap.h)
 *   guard pages              MADV_GUARD_INSTALL: nobody can read or write them
 * Everything else counts as lost: what is not mapped, mapped anew, poisoned.
 *
 * What remains: a page whose mark goes, and is set again by a helper of the freeze that had
 * lost its CPU amid its call (memory/protection.h); a page whose mark goes between its
 * fault and its copy, some 10 us, and that another thread writes to in that time; and
 * memory protected elsewhere that somebody moves to a frozen place without the guard
 * (mremap before Linux 6.12.10, which keeps marks).
 */
#ifndef RDB_UFFD_VIEW_AUDIT_H
#define RDB_UFFD_VIEW_AUDIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "memory/regions.h"
#include "view/view.h"

/* What a snapshot fails with when a page was lost: no file and no socket says it. */
#define AUDIT_LOST (-ENOTRECOVERABLE)
/* Pages that audit_check() takes at once. */
#define AUDIT_PAGES_MAX 32

struct audit {
    /* Set by audit_begin(), constant until audit_end(). */
    struct view *view;
    int pagemap;
    const struct region_set *content; /* all that was protected */
    _Atomic bool begun; /* all of it is: a page without its mark has lost it */

    _Atomic uint64_t lost; /* pages, in this snapshot or the last one */
    _Atomic uint64_t usec; /* that the last audit_all() took */
};

/* All of `content` is protected by now. `pagemap`: of pagemap_open(). Both must stay
 * until audit_end(). Main thread. */
void audit_begin(struct audit *audit, struct view *view, int pagemap,
                 const struct region_set *content);
/* Before the first page loses its protection without having been preserved. The saver. */
void audit_end(struct audit *audit);

/* Looks at all of it, in slices, so that nobody who changes the memory map waits for long.
 * 0; AUDIT_LOST; the view's error as soon as there is one; -errno when the kernel does not
 * tell. 7 ms for a gigabyte in 4 KB pages, next to nothing in huge ones. The saver, after
 * its last view_read(). */
int audit_all(struct audit *audit);

/* Whether the page has been protected and may lose its mark: false before audit_begin(),
 * when nothing is known. The fault server, as below. */
bool audit_covers(const struct audit *audit, uint64_t address);
/* Which pages from `start` on are in the frozen content and not preserved: bit 0 is the
 * first. */
uint32_t audit_find_new(const struct audit *audit, uint64_t start, uint32_t count);
/* Copies of those pages have been made since: 0 when each of them is still protected, and
 * the copies hold the past; else as audit_all(). Nobody else lifts marks meanwhile. */
int audit_check(struct audit *audit, uint64_t start, uint32_t pages);

#endif
