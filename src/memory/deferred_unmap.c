#include "memory/deferred_unmap.h"

#include <errno.h>
#include <sys/mman.h>

#include "kernel/contract.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/regions.h"

#define RANGES_MAX 16384
/* The memory map is locked for one slice at a time. */
#define SLICE_BYTES (UINT64_C(8) << 20)

/* All of it, the lock too, in memory that is never protected (kernel/memory.h). */
struct deferred_unmap {
    struct short_lock lock;
    bool open;
    struct region_set set;
    struct region storage[RANGES_MAX];
};

static struct deferred_unmap *late;

int deferred_unmap_create(void)
{
    late = memory_map(sizeof(*late));
    if (!late)
        return -ENOMEM;
    regions_init(&late->set, late->storage, RANGES_MAX);
    return 0;
}

void deferred_unmap_destroy(void)
{
    if (late)
        memory_unmap(late, sizeof(*late));
    late = NULL;
}

void deferred_unmap_begin(void)
{
    DEMAND_MAIN_THREAD();
    short_lock_take(&late->lock);
    late->open = true;
    short_lock_release(&late->lock);
}

bool deferred_unmap_put_off(uint64_t start, uint64_t end)
{
    short_lock_take(&late->lock);
    bool noted = late->open && regions_add(&late->set, start, end) == 0;
    short_lock_release(&late->lock);
    return noted;
}

/* Takes a piece out of the set; an empty one when there is none. */
static struct region take_piece(void)
{
    struct region piece = {0, 0};
    short_lock_take(&late->lock);
    late->open = false;
    if (late->set.count) {
        piece = late->set.regions[late->set.count - 1];
        if (piece.end - piece.start > SLICE_BYTES)
            piece.start = piece.end - SLICE_BYTES;
        regions_remove(&late->set, piece.start, piece.end);
    }
    short_lock_release(&late->lock);
    return piece;
}

bool deferred_unmap_end(void)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    bool any = false;
    for (struct region piece; (piece = take_piece()).end; any = true)
        munmap((void *)(uintptr_t)piece.start, piece.end - piece.start);
    return any;
}
