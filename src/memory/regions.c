#include "memory/regions.h"

#include <errno.h>
#include <string.h>

void regions_init(struct region_set *set, struct region *storage, size_t capacity)
{
    set->regions = storage;
    set->count = 0;
    set->capacity = capacity;
}

void regions_clear(struct region_set *set)
{
    set->count = 0;
}

/* Index of the first region whose end is greater than (or, with `touching`,
 * not less than) `address`. */
static size_t first_ending_after(const struct region_set *set, uint64_t address,
                                 bool touching)
{
    size_t low = 0, high = set->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        uint64_t end = set->regions[middle].end;
        if (touching ? end >= address : end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Puts `added` regions in the place of `removed` ones at `at`. */
static int splice(struct region_set *set, size_t at, size_t removed,
                  const struct region *added, size_t added_count)
{
    if (set->count - removed + added_count > set->capacity)
        return -ENOSPC;
    memmove(set->regions + at + added_count, set->regions + at + removed,
            (set->count - at - removed) * sizeof(*set->regions));
    memcpy(set->regions + at, added, added_count * sizeof(*added));
    set->count += added_count - removed;
    return 0;
}

int regions_add(struct region_set *set, uint64_t start, uint64_t end)
{
    if (start > end)
        return -EINVAL;
    if (start == end)
        return 0;
    struct region merged = {start, end};
    size_t first = first_ending_after(set, start, true);
    size_t last = first;
    while (last < set->count && set->regions[last].start <= end) {
        if (set->regions[last].start < merged.start)
            merged.start = set->regions[last].start;
        if (set->regions[last].end > merged.end)
            merged.end = set->regions[last].end;
        last++;
    }
    return splice(set, first, last - first, &merged, 1);
}

int regions_remove(struct region_set *set, uint64_t start, uint64_t end)
{
    if (start >= end)
        return 0;
    size_t first = first_ending_after(set, start, false);
    size_t last = first;
    struct region kept[2];
    size_t kept_count = 0;
    for (; last < set->count && set->regions[last].start < end; last++) {
        const struct region *region = &set->regions[last];
        if (region->start < start)
            kept[kept_count++] = (struct region){region->start, start};
        if (region->end > end)
            kept[kept_count++] = (struct region){end, region->end};
    }
    return splice(set, first, last - first, kept, kept_count);
}

const struct region *regions_at_or_after(const struct region_set *set, uint64_t address)
{
    size_t at = first_ending_after(set, address, false);
    return at < set->count ? &set->regions[at] : NULL;
}

const struct region *regions_find(const struct region_set *set, uint64_t address)
{
    const struct region *region = regions_at_or_after(set, address);
    return region && region->start <= address ? region : NULL;
}

int regions_copy(const struct region_set *set, struct region_set *result)
{
    if (set->count > result->capacity)
        return -ENOSPC;
    memmove(result->regions, set->regions, set->count * sizeof(*set->regions));
    result->count = set->count;
    return 0;
}

int regions_subtract(const struct region_set *set, const struct region_set *without,
                     struct region_set *result)
{
    int error = regions_copy(set, result);
    for (size_t i = 0; i < without->count && !error; i++)
        error =
            regions_remove(result, without->regions[i].start, without->regions[i].end);
    return error;
}

uint64_t regions_bytes(const struct region_set *set)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < set->count; i++)
        bytes += set->regions[i].end - set->regions[i].start;
    return bytes;
}
