/* How well the pages that are written to pack: a few of them, tried. */
#ifndef RDB_UFFD_MEMORY_PACKING_SAMPLE_H
#define RDB_UFFD_MEMORY_PACKING_SAMPLE_H

#include <stdint.h>

#include "memory/pages.h"

/* At some 10 us each. */
#define PACKING_SAMPLE_PAGES 256u

/* Any so many of those that were added, each with the same chance. */
struct packing_sample {
    uint64_t addresses[PACKING_SAMPLE_PAGES];
    uint64_t added;
    uint64_t random; /* other than 0 */
};

void packing_sample_clear(struct packing_sample *sample);
/* One more page, by its address. */
void packing_sample_add(struct packing_sample *sample, uint64_t address);
/* What the pages take in the packed log as things are now, in thousandths of what they
 * take raw; those that do not pack count as raw. They may change or go away meanwhile. 0:
 * there is nothing to say. Any thread, milliseconds. */
uint32_t packing_sample_try(const struct packing_sample *sample);

#endif
