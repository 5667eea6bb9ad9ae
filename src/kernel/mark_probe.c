#include "kernel/mark_probe.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/pagemap.h"
#include "kernel/userfaultfd.h"

#define HUGE_BYTES   (UINT64_C(2) << 20)
#define PART_BYTES   4096
#define MAPPED_BYTES (3 * HUGE_BYTES)

/* A huge page of zeros but for its first byte, protected and then split. */
static int probe_page(char *page, int userfaultfd, int pagemap)
{
    uint64_t start = (uint64_t)(uintptr_t)page, end = start + HUGE_BYTES, scanned;
    struct pagemap_range lost[2];
    if (mprotect(page, HUGE_BYTES, PROT_READ | PROT_WRITE) != 0)
        return -errno;
    /* At once: the heap's userfaultfd takes what it finds mapped. */
    int error = userfaultfd_register(userfaultfd, start, HUGE_BYTES);
    if (error)
        return error;
    madvise(page, HUGE_BYTES, MADV_HUGEPAGE);
    *(volatile char *)page = 1;
    if (pagemap_is_huge(pagemap, start, end) != 1)
        return -ENOMEM;
    error = userfaultfd_protect(userfaultfd, start, HUGE_BYTES);
    if (!error && madvise(page + HUGE_BYTES / 2, PART_BYTES, MADV_COLD) != 0)
        error = -errno;
    if (error)
        return error;
    if (pagemap_is_huge(pagemap, start, end) != 0)
        return -EBUSY;
    int found = pagemap_find_unprotected(pagemap, start, end, lost, 2, &scanned);
    return found < 0 ? found : found == 0;
}

int mark_probe_split(const struct ability *ability)
{
    int pagemap = pagemap_open(), userfaultfd = userfaultfd_open();
    /* What nobody may touch lies on both sides, or the kernel would make one mapping of
     * this and the heap beside it, which could then not be registered. */
    char *mapped =
        mmap(NULL, MAPPED_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int result = -ENOMEM;
    if (pagemap >= 0 && userfaultfd >= 0 && mapped != MAP_FAILED &&
        userfaultfd_handshake(userfaultfd, ability_features(ability), NULL) == 0)
        result = probe_page(mapped + HUGE_BYTES - (uintptr_t)mapped % HUGE_BYTES,
                            userfaultfd, pagemap);
    if (userfaultfd >= 0)
        close(userfaultfd);
    if (pagemap >= 0)
        close(pagemap);
    if (mapped != MAP_FAILED)
        munmap(mapped, MAPPED_BYTES);
    if (fault_point(FAULT_NO_HUGE_PAGE))
        return -ENOMEM;
    return fault_point(FAULT_MARKS_LOST) ? 0 : result;
}
