#include "memory/access_times.h"

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

struct access_times {
    struct checked_reader reader;
    uint64_t stride; /* one page in so many */
    size_t count;
    struct note notes[PAGES_MOST];
    uint64_t words[PAGE_BYTES / sizeof(uint64_t)];
};

struct access_times *access_times_create(uint64_t pages)
{
    struct access_times *made = memory_map(sizeof(*made));
    if (!made)
        return NULL;
    if (checked_reader_open(&made->reader) != 0) {
        memory_unmap(made, sizeof(*made));
        return NULL;
    }
    made->stride = pages / PAGES_MOST + 1;
    return made;
}

void access_times_destroy(struct access_times *times)
{
    if (!times)
        return;
    checked_reader_close(&times->reader);
    memory_unmap(times, sizeof(*times));
}

/* False when it cannot be read. */
static bool sum_of(struct access_times *times, uint64_t page, uint64_t *sum)
{
    times->reader.allowed = PAGE_BYTES;
    if (checked_read(&times->reader, times->words, page, PAGE_BYTES) != 0)
        return false;
    *sum = 0;
    for (size_t i = 0; i < sizeof(times->words) / sizeof(times->words[0]); i++)
        *sum = (*sum ^ (times->words[i] & WORD_MASK)) * UINT64_C(0x9e3779b97f4a7c15) +
               (*sum >> 32);
    return true;
}

void access_times_note(struct access_times *times, uint64_t start, uint64_t end)
{
    for (uint64_t page = start; page < end; page += PAGE_BYTES) {
        struct note *note = &times->notes[times->count];
        if ((page >> PAGE_SHIFT) % times->stride != 0)
            continue;
        if (times->count == PAGES_MOST)
            return;
        note->page = page;
        note->changed = false;
        times->count += sum_of(times, page, &note->sum);
    }
}

static struct note *find_note(struct access_times *times, uint64_t page)
{
    size_t low = 0, high = times->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (times->notes[middle].page < page)
            low = middle + 1;
        else
            high = middle;
    }
    return low < times->count && times->notes[low].page == page ? &times->notes[low]
                                                                : NULL;
}

void access_times_count_page(struct access_times *times, uint64_t page,
                             struct access_times_count *count)
{
    uint64_t sum;
    struct note *note = find_note(times, page);
    if (!note)
        return;
    count->noted++;
    if (!note->changed)
        note->changed = !sum_of(times, page, &sum) || sum != note->sum;
    count->changed += note->changed;
}
