#include "kernel/memory.h"

#include <errno.h>
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

int memory_populate(void *start, size_t length)
{
    return advice_give(start, length, MADV_POPULATE_WRITE);
}

int memory_give_back(void *start, size_t length)
{
    /* MADV_DONTNEED would only unmap the pages of shared memory. */
    return advice_give(start, length, MADV_REMOVE);
}
