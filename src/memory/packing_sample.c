#include "memory/packing_sample.h"

#include <stdbool.h>

#include "kernel/checked_read.h"
#include "kernel/memory.h"
#include "memory/packing.h"

/* Too big for a stack, and nothing of the heap. */
struct work {
    struct checked_reader reader;
    struct dictionary dictionary;
    LZ4_stream_t stream;
    struct piece piece;
    unsigned char page[PAGE_BYTES];
};

void packing_sample_clear(struct packing_sample *sample)
{
    sample->added = 0;
    sample->random = UINT64_C(0x9e3779b97f4a7c15);
}

static uint64_t next_random(struct packing_sample *sample)
{
    sample->random ^= sample->random << 13;
    sample->random ^= sample->random >> 7;
    sample->random ^= sample->random << 17;
    return sample->random;
}

void packing_sample_add(struct packing_sample *sample, uint64_t address)
{
    uint64_t place = sample->added++;
    if (place >= PACKING_SAMPLE_PAGES)
        place = next_random(sample) % sample->added;
    if (place < PACKING_SAMPLE_PAGES)
        sample->addresses[place] = address;
}

static bool read_page(struct work *work, uint64_t address)
{
    return checked_read(&work->reader, work->page, address, PAGE_BYTES) == 0;
}

/* As a save does: the first pages make the dictionary for all. */
static uint32_t pack_all(struct work *work, const uint64_t *addresses, unsigned count)
{
    uint64_t pages = 0, bytes = 0;
    for (unsigned i = 0; i < count && i < DICTIONARY_SAMPLES; i++)
        if (read_page(work, addresses[i]))
            dictionary_sample(&work->dictionary, work->page);
    dictionary_prepare(&work->dictionary);
    for (unsigned i = 0; i < count; i++) {
        if (!read_page(work, addresses[i]))
            continue;
        bool packs = piece_pack(&work->piece, &work->stream, &work->dictionary, i,
                                work->page) != 0;
        bytes += packs ? piece_room(&work->piece.header) : PAGE_BYTES;
        pages++;
    }
    return pages ? (uint32_t)(bytes * 1000 / (pages * PAGE_BYTES)) : 0;
}

uint32_t packing_sample_try(const struct packing_sample *sample)
{
    uint64_t count = sample->added;
    if (count > PACKING_SAMPLE_PAGES)
        count = PACKING_SAMPLE_PAGES;
    struct work *work = count ? memory_map(sizeof(*work)) : NULL;
    if (!work)
        return 0;
    uint32_t permille = 0;
    if (checked_reader_open(&work->reader) == 0) {
        permille = pack_all(work, sample->addresses, (unsigned)count);
        checked_reader_close(&work->reader);
    }
    memory_unmap(work, sizeof(*work));
    return permille;
}
