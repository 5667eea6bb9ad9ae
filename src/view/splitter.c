#include "view/splitter.h"

#include <sys/mman.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "memory/pages.h"
#include "memory/preserved.h"

/* With 1, 4 and 16 saves took equally long. */
#define PAGES_WHEN_DUE 8
/* Between two faults: 64 cache lines. */
#define HUGE_PAGES_PER_LOOK 64

static unsigned count_preserved(const struct view *view, uint64_t address)
{
    uint32_t page;
    return view_page_of(view, address, &page)
               ? preserved_in_huge_page(view->preserved, page)
               : 0;
}

/* Advice about a part makes the kernel split the whole. Does nothing where it is split
 * already, or where a forked child maps it too. */
static void split(struct splitter *splitter, uint64_t address)
{
    if (advice_give((void *)(uintptr_t)address, PAGE_BYTES, MADV_COLD) == 0)
        atomic_fetch_add_explicit(&splitter->splits, 1, memory_order_relaxed);
}

static bool is_wanted(const struct splitter *splitter, const struct view *view)
{
    return view_is_slow(view) &&
           atomic_load_explicit(&splitter->keeps_marks, memory_order_relaxed) == 1;
}

/* The first of the next ones that is due, if one is. */
static void split_next(struct splitter *splitter, const struct view *view)
{
    for (unsigned looks = 0; looks < HUGE_PAGES_PER_LOOK; looks++) {
        uint64_t at = view_first_from(view, splitter->caught_up);
        if (!at) {
            splitter->caught_up = UINT64_MAX;
            return;
        }
        splitter->caught_up = round_down(at, HUGE_PAGE_BYTES) + HUGE_PAGE_BYTES;
        if (count_preserved(view, at) >= PAGES_WHEN_DUE) {
            split(splitter, at);
            return;
        }
    }
}

void splitter_begin(struct splitter *splitter, const struct view *view)
{
    DEMAND_MAIN_THREAD();
    splitter->caught_up = view_is_slow(view) ? UINT64_MAX : 0;
    atomic_store_explicit(&splitter->splits, 0, memory_order_relaxed);
}

bool splitter_catch_up(struct splitter *splitter, const struct view *view)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    if (!is_wanted(splitter, view) || splitter->caught_up == UINT64_MAX)
        return false;
    split_next(splitter, view);
    return splitter->caught_up != UINT64_MAX;
}

void splitter_after_fault(struct splitter *splitter, const struct view *view,
                          uint64_t address)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    if (is_wanted(splitter, view) && count_preserved(view, address) == PAGES_WHEN_DUE)
        split(splitter, address);
    else
        splitter_catch_up(splitter, view);
}
