/* Sets of address ranges: pure interval arithmetic, no system call.
 *
 * A set is a sorted array of disjoint, non-adjacent [start, end) ranges in
 * storage that its owner provides; nothing here allocates.
 */
#ifndef RDB_UFFD_MEMORY_REGIONS_H
#define RDB_UFFD_MEMORY_REGIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct region {
    uint64_t start;
    uint64_t end; /* exclusive */
};

struct region_set {
    struct region *regions; /* sorted by start */
    size_t count;
    size_t capacity;
};

void regions_init(struct region_set *set, struct region *storage, size_t capacity);
void regions_clear(struct region_set *set);
/* Adds [start, end), merging what overlaps or touches. 0, -ENOSPC when the
 * array is full (the set is unchanged), -EINVAL when start > end. */
int regions_add(struct region_set *set, uint64_t start, uint64_t end);
/* Takes [start, end) out. 0, -ENOSPC when a split does not fit (unchanged). */
int regions_remove(struct region_set *set, uint64_t start, uint64_t end);
/* The region that holds `address`, NULL if none does. */
const struct region *regions_find(const struct region_set *set, uint64_t address);
/* The first region that ends after `address`, NULL if none does. */
const struct region *regions_at_or_after(const struct region_set *set, uint64_t address);
/* `result` becomes what `set` is. 0 or -ENOSPC. */
int regions_copy(const struct region_set *set, struct region_set *result);
/* `result` becomes what is in `set` and not in `without`. 0 or -ENOSPC. */
int regions_subtract(const struct region_set *set, const struct region_set *without,
                     struct region_set *result);
uint64_t regions_bytes(const struct region_set *set);

#endif
