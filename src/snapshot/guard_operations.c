#include "guard_operations.h"

#include <errno.h>
#include <unistd.h>

#include "memory/deferred_unmap.h"
#include "memory/metadata.h"
#include "service.h"
#include "snapshot.h"
#include "value_child/inside.h"

/* `freezing` first: who freezes sets `frozen` before it takes that back, so whoever finds
 * neither was here before, and is waited for. */
static bool is_frozen(void)
{
    return (atomic_load_explicit(&the_snapshot.freezing, memory_order_acquire) ||
            atomic_load_explicit(&the_snapshot.frozen, memory_order_acquire)) &&
           (!the_service.in_forked_child || inside_is_here());
}

/* What is frozen then is being decided, and nobody preserves yet. The main thread, which
 * decides, protects nothing amid a call of its own. */
static bool is_being_made(void)
{
    return !atomic_load_explicit(&the_snapshot.frozen, memory_order_acquire);
}

static int preserve(uint64_t start, uint64_t end, bool may_refuse)
{
    struct snapshot *snapshot = &the_snapshot;
    /* Dropped there, a page would come again with its content; refused, jemalloc clears it. */
    if (the_service.in_forked_child)
        return may_refuse ? -EAGAIN : 0;
    if (is_being_made())
        return thread_own_id() == getpid() ? 0 : -EAGAIN;
    uint64_t limit =
        atomic_load_explicit(&snapshot->preserved.limit, memory_order_relaxed);
    uint64_t used = preserved_bytes(&snapshot->preserved);
    uint64_t room = used < limit ? limit - used : 0;
    /* A purge of much memory would fill the buffer with what nobody will read;
     * refused, jemalloc keeps the pages for its next need. */
    if (may_refuse && end - start > room / 4) {
        atomic_fetch_add_explicit(&snapshot->advices_refused, 1, memory_order_relaxed);
        return -EAGAIN;
    }
    return fault_server_preserve(&snapshot->fault_server, start, end);
}

static bool is_past(uint64_t start, uint64_t end)
{
    if (the_service.in_forked_child)
        return false;
    /* The view is being made: it may be any. */
    return atomic_load_explicit(&the_snapshot.freezing, memory_order_acquire) ||
           view_overlaps(&the_snapshot.view, start, end);
}

static bool put_off_unmap(uint64_t start, uint64_t end)
{
    return start % PAGE_BYTES == 0 &&
           deferred_unmap_put_off(start, round_up(end, PAGE_BYTES));
}

static void *take_prefaulted(size_t length)
{
    return the_service.in_forked_child
               ? NULL
               : prefaulted_take(&the_snapshot.prefaulted, length);
}

static void mapped(void *start, size_t length)
{
    if (the_service.in_forked_child)
        return;
    if (length && the_snapshot.settings.enabled &&
        atomic_load_explicit(&the_snapshot.huge_pages_ahead, memory_order_relaxed))
        heap_ask_for_huge_pages(start, length, true);
    metadata_note_mapped((uint64_t)(uintptr_t)start, (uint64_t)(uintptr_t)start + length);
    heap_note_change(&the_snapshot.heap);
}

const struct guard_operations snapshot_guard = {
    .frozen = is_frozen,
    .preserve = preserve,
    .is_past = is_past,
    .put_off = put_off_unmap,
    .prefaulted = take_prefaulted,
    .mapped = mapped,
};
