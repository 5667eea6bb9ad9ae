#include "kernel/memory.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/mman.h>

#include "kernel/advice.h"

void *memory_map(size_t length)
{
    void *start = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return start == MAP_FAILED ? NULL : start;
}

void memory_unmap(void *start, size_t length)
{
    if (start)
        munmap(start, length);
}

/* ---- private --------------------------------------------------------------------- */

#define PRIVATE_MAX 8
#define PAGE_BYTES  4096

static struct {
    void *start;
    size_t length;
} private_maps[PRIVATE_MAX];

static size_t private_find(const void *start)
{
    size_t i = 0;
    while (i < PRIVATE_MAX && private_maps[i].start != start)
        i++;
    return i;
}

void *memory_map_private(size_t length)
{
    size_t place = private_find(NULL);
    if (place == PRIVATE_MAX)
        return NULL;
    void *start = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    private_maps[place].start = start;
    private_maps[place].length = length;
    /* Page by page: clearing a huge page would keep a fault waiting, and what is
     * counted would not be what is held. */
    advice_give(start, length, MADV_NOHUGEPAGE);
    advice_give(start, length, MADV_DONTFORK);
    return start;
}

void memory_unmap_private(void *start)
{
    size_t place = start ? private_find(start) : PRIVATE_MAX;
    if (place == PRIVATE_MAX)
        return;
    munmap(start, private_maps[place].length);
    private_maps[place].start = NULL;
}

int memory_visit_private(int (*visit)(void *context, void *start, size_t length),
                         void *context)
{
    int result = 0;
    for (size_t i = 0; i < PRIVATE_MAX && !result; i++)
        if (private_maps[i].start)
            result = visit(context, private_maps[i].start, private_maps[i].length);
    return result;
}

void memory_touch(void *start, size_t length)
{
    for (size_t at = 0; at < length; at += PAGE_BYTES)
        atomic_fetch_or_explicit((_Atomic unsigned char *)start + at, 0,
                                 memory_order_relaxed);
}
