#include "memory/touched.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "kernel/checked_read.h"
#include "kernel/memory.h"
#include "memory/pages.h"

#define PAGES_MOST 8192
/* All of a word but the time of an access. */
#define WORD_MASK UINT64_C(0xffffffff000000ff)

struct note {
    uint64_t page;
    uint64_t sum;
    bool changed; /* found before: need not be looked at again */
};

struct touched {
    struct checked_reader reader;
    uint64_t stride; /* one page in so many */
    size_t count;
    struct note notes[PAGES_MOST];
    uint64_t words[PAGE_BYTES / sizeof(uint64_t)];
};

struct touched *touched_create(uint64_t pages)
{
    struct touched *made = memory_map(sizeof(*made));
    if (!made)
        return NULL;
    if (checked_reader_open(&made->reader) != 0) {
        memory_unmap(made, sizeof(*made));
        return NULL;
    }
    made->stride = pages / PAGES_MOST + 1;
    return made;
}

void touched_destroy(struct touched *touched)
{
    if (!touched)
        return;
    checked_reader_close(&touched->reader);
    memory_unmap(touched, sizeof(*touched));
}

/* False when it cannot be read. */
static bool sum_of(struct touched *touched, uint64_t page, uint64_t *sum)
{
    touched->reader.allowed = PAGE_BYTES;
    if (checked_read(&touched->reader, touched->words, page, PAGE_BYTES) != 0)
        return false;
    *sum = 0;
    for (size_t i = 0; i < sizeof(touched->words) / sizeof(touched->words[0]); i++)
        *sum = (*sum ^ (touched->words[i] & WORD_MASK)) * UINT64_C(0x9e3779b97f4a7c15) +
               (*sum >> 32);
    return true;
}

void touched_note(struct touched *touched, uint64_t start, uint64_t end)
{
    for (uint64_t page = start; page < end; page += PAGE_BYTES) {
        struct note *note = &touched->notes[touched->count];
        if ((page >> PAGE_SHIFT) % touched->stride != 0)
            continue;
        if (touched->count == PAGES_MOST)
            return;
        note->page = page;
        note->changed = false;
        touched->count += sum_of(touched, page, &note->sum);
    }
}

static struct note *find(struct touched *touched, uint64_t page)
{
    size_t low = 0, high = touched->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (touched->notes[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < touched->count && touched->notes[low].page == page ? &touched->notes[low]
                                                                    : NULL;
}

void touched_count_page(struct touched *touched, uint64_t page,
                        struct touched_count *count)
{
    uint64_t sum;
    struct note *note = find(touched, page);
    if (!note)
        return;
    count->noted++;
    if (!note->changed)
        note->changed = !sum_of(touched, page, &sum) || sum != note->sum;
    count->changed += note->changed;
}
