#include "memory/density.h"

#include <string.h>
#include <unistd.h>

#include "kernel/checked_read.h"
#include "kernel/pagemap.h"
#include "memory/pages.h"

#define PAGES (HUGE_PAGE_BYTES / PAGE_BYTES)

struct measurement {
    struct checked_reader reader;
    int pagemap;
    unsigned char page[PAGE_BYTES];
};

static uint64_t windows_of(const struct region *region)
{
    uint64_t start = round_up(region->start, HUGE_PAGE_BYTES);
    uint64_t end = round_down(region->end, HUGE_PAGE_BYTES);
    return end > start ? (end - start) / HUGE_PAGE_BYTES : 0;
}

static uint64_t count_windows(const struct region_set *set)
{
    uint64_t count = 0;
    for (size_t i = 0; i < set->count; i++)
        count += windows_of(&set->regions[i]);
    return count;
}

static uint64_t window_at(const struct region_set *set, uint64_t index)
{
    size_t i = 0;
    for (; index >= windows_of(&set->regions[i]); i++)
        index -= windows_of(&set->regions[i]);
    return round_up(set->regions[i].start, HUGE_PAGE_BYTES) + index * HUGE_PAGE_BYTES;
}

static bool is_zero(const unsigned char *page)
{
    return page[0] == 0 && memcmp(page, page + 1, PAGE_BYTES - 1) == 0;
}

/* The pages of a huge page that hold something; -errno. */
static int count_filled(struct measurement *with, uint64_t window)
{
    int filled = 0;
    for (uint64_t at = window; at < window + HUGE_PAGE_BYTES; at += PAGE_BYTES) {
        int error = checked_read(&with->reader, with->page, at, PAGE_BYTES);
        if (error)
            return error;
        filled += !is_zero(with->page);
    }
    return filled;
}

static void look_at(struct measurement *with, uint64_t window, struct density *density)
{
    int used = pagemap_count_present(with->pagemap, window, window + HUGE_PAGE_BYTES);
    bool whole = used == (int)PAGES;
    if (whole)
        used = count_filled(with, window);
    if (used < (int)PAGES / 2)
        return;
    density->windows++;
    density->small +=
        whole && pagemap_is_huge(with->pagemap, window, window + HUGE_PAGE_BYTES) == 0;
    density->pages += PAGES;
    density->used += (uint64_t)used;
}

int density_measure(const struct region_set *set, unsigned count, struct density *density)
{
    static uint64_t turn;
    struct measurement with = {.pagemap = pagemap_open()};
    uint64_t all = count_windows(set);
    memset(density, 0, sizeof(*density));
    if (with.pagemap < 0)
        return with.pagemap;
    int error = checked_reader_open(&with.reader);
    if (!error) {
        if (count > all)
            count = (unsigned)all; /* none: nothing is looked at */
        for (uint64_t i = 0; i < count; i++)
            look_at(&with, window_at(set, (i * all / count + turn) % all), density);
        turn += 7;
        checked_reader_close(&with.reader);
    }
    close(with.pagemap);
    return error;
}
