#include "view/forgoing.h"

#include <errno.h>

#include "kernel/contract.h"
#include "memory/pages.h"
#include "memory/preserved.h"

/* What has lost its mark before may have been read as it was then, and at the end the audit
 * asks of no page that is in the index. */
static int forgo_some(struct view *view, struct audit *audit, uint64_t start,
                      uint32_t first)
{
    uint32_t forgone = audit_find_new(audit, start, AUDIT_PAGES_MAX);
    /* Without room for the index the first fails, and none after it. */
    if (preserved_forgo(view->preserved, first, AUDIT_PAGES_MAX) != 0)
        return -ENOENT;
    return audit_check(audit, start, forgone);
}

int forgo_huge_page(struct view *view, struct audit *audit, uint64_t start)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    DEMAND(start % HUGE_PAGE_BYTES == 0);
    uint32_t first, last;
    int error = 0;
    /* Within one region they are numbered one after the other; of two, never. */
    if (!view_page_of(view, start, &first) ||
        !view_page_of(view, start + HUGE_PAGE_BYTES - PAGE_BYTES, &last) ||
        last - first != PAGES_PER_HUGE_PAGE - 1)
        return -ENOENT;
    for (uint32_t i = 0; i < PAGES_PER_HUGE_PAGE && !error; i += AUDIT_PAGES_MAX)
        error = forgo_some(view, audit, start + i * PAGE_BYTES, first + i);
    return error;
}
