#include "kernel/memory.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/mappings.h"

#define PAGE_BYTES 4096

void *memory_map(size_t length)
{
    void *start = mmap(NULL, length, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    /* A child of the server's own fork would write to its parent's. */
    advice_give(start, length, MADV_DONTFORK);
    return start;
}

void memory_unmap(void *start, size_t length)
{
    if (start)
        munmap(start, length);
}

/* ---- private --------------------------------------------------------------------- */

static _Atomic bool zero_device_is_plain;

/* Of the zero device: the same memory as anonymous one, but its mappings have a name and
 * an inode. The scan for regions leaves those out, no neighbour grows together with them,
 * and the server's test of its memory, when it crashes, passes by. */
static void *map_zero_device(void *at, size_t length)
{
    int flags = MAP_PRIVATE | MAP_NORESERVE | (at ? MAP_FIXED : 0) |
                (fault_point(FAULT_PLAIN_ZERO_DEVICE) ? MAP_ANONYMOUS : 0);
    int device = fault_point(FAULT_NO_ZERO_DEVICE) ||
                         atomic_load_explicit(&zero_device_is_plain, memory_order_relaxed)
                     ? -1
                     : open("/dev/zero", O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (device < 0)
        return NULL;
    void *start = mmap(at, length, PROT_READ | PROT_WRITE, flags, device, 0);
    close(device);
    if (start == MAP_FAILED)
        return NULL;
    /* Page by page: clearing a huge page would keep a fault waiting, and what is
     * counted would not be what is held. */
    advice_give(start, length, MADV_NOHUGEPAGE);
    return start;
}

static int look_whether_plain(const struct mapping *mapping, void *context)
{
    uint64_t at = (uint64_t)(uintptr_t)context;
    if (mapping->start > at || mapping->end <= at)
        return 0;
    return mapping->anonymous && !mapping->shared;
}

/* A kernel that lists it as anonymous would have stacks write-protected. */
void memory_probe(void)
{
    DEMAND_MAIN_THREAD();
    void *page = map_zero_device(NULL, PAGE_BYTES);
    if (page && mappings_visit(-1, look_whether_plain, page) != 0)
        atomic_store_explicit(&zero_device_is_plain, true, memory_order_relaxed);
    memory_unmap(page, PAGE_BYTES);
}

/* What is not there in some jail: of an empty file, where each page is held twice. */
static void *map_empty_file(size_t length)
{
    int file = memfd_create("uffd-stack", MFD_CLOEXEC);
    if (file < 0)
        return NULL;
    void *start = MAP_FAILED;
    if (ftruncate(file, (off_t)length) == 0)
        start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    close(file);
    return start == MAP_FAILED ? NULL : start;
}

void memory_replace(void *start, size_t length)
{
    map_zero_device(start, length);
}

void *memory_map_private(size_t length)
{
    void *start = map_zero_device(NULL, length);
    if (!start)
        return memory_map(length);
    advice_give(start, length, MADV_DONTFORK);
    return start;
}

void *memory_map_inherited(size_t length)
{
    void *start = map_zero_device(NULL, length);
    return start ? start : map_empty_file(length);
}

void memory_touch(void *start, size_t length)
{
    for (size_t at = 0; at < length; at += PAGE_BYTES)
        atomic_fetch_or_explicit((_Atomic unsigned char *)start + at, 0,
                                 memory_order_relaxed);
}
