#include "memory/heap.h"

#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/mappings.h"
#include "kernel/memory.h"
#include "kernel/pagemap.h"
#include "kernel/stacks.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/decommitted.h"
#include "memory/metadata.h"
#include "memory/pages.h"
#include "memory/prefaulted.h"
#include "memory/protection.h"

/* The kernel's default ceiling for mappings is 65530. */
#define REGIONS_MAX  65536
#define STACKS_MAX   256
#define READINGS_MAX 20
/* Un-registering holds the memory map's lock, and walks the page table for what may
 * be protected. Boundaries of slices are those of huge pages. */
#define UNREGISTER_SLICE     (UINT64_C(16) << 20)
#define UNREGISTER_REST_USEC 200

static int create_set(struct region_set *set, size_t capacity)
{
    struct region *storage = memory_map(capacity * sizeof(*storage));
    regions_init(set, storage, capacity);
    return storage ? 0 : -ENOMEM;
}

static void destroy_set(struct region_set *set)
{
    memory_unmap(set->regions, set->capacity * sizeof(*set->regions));
    set->regions = NULL;
}

int heap_create(struct heap *heap)
{
    memset(heap, 0, sizeof(*heap));
    heap->userfaultfd = -1;
    heap->pagemap = -1;
    heap->statm = mappings_open_statm();
    atomic_store_explicit(&heap->changes, 1, memory_order_relaxed);
    metadata_forget(); /* of an earlier load */
    if (create_set(&heap->registered, REGIONS_MAX) == 0 &&
        create_set(&heap->seen, REGIONS_MAX) == 0 &&
        create_set(&heap->fresh, REGIONS_MAX) == 0 &&
        create_set(&heap->stacks, STACKS_MAX) == 0 &&
        (heap->protection = protection_create()) != NULL)
        return 0;
    heap_destroy(heap);
    return -ENOMEM;
}

/* And forgets what was registered. */
static void close_userfaultfd(struct heap *heap)
{
    int descriptor = heap->userfaultfd;
    heap->userfaultfd = -1;
    if (descriptor >= 0)
        close(descriptor);
    regions_clear(&heap->registered);
}

void heap_destroy(struct heap *heap)
{
    close_userfaultfd(heap);
    if (heap->pagemap >= 0)
        close(heap->pagemap);
    if (heap->statm >= 0)
        close(heap->statm);
    heap->pagemap = heap->statm = -1;
    protection_destroy(heap->protection);
    heap->protection = NULL;
    destroy_set(&heap->registered);
    destroy_set(&heap->seen);
    destroy_set(&heap->fresh);
    destroy_set(&heap->stacks);
}

void heap_lock(struct heap *heap)
{
    while (!heap_try_lock(heap))
        futex_wait(&heap->locked, 1, 10);
}

int heap_lock_in_time(struct heap *heap)
{
    DEMAND_MAIN_THREAD();
    uint64_t until = clock_usec() + (heap->holder_is_late ? 0 : LOCK_IN_TIME_USEC);
    while ((heap->holder_is_late = !heap_try_lock(heap)) && clock_usec() < until)
        futex_wait(&heap->locked, 1, 10);
    return heap->holder_is_late ? -EBUSY : 0;
}

bool heap_try_lock(struct heap *heap)
{
    LOCK_WANTED(RANK_HEAP);
    if (atomic_exchange_explicit(&heap->locked, 1, memory_order_acquire))
        return false;
    LOCK_TAKEN(&heap->locked, RANK_HEAP);
    return true;
}

void heap_unlock(struct heap *heap)
{
    DEMAND_HELD(&heap->locked);
    LOCK_RELEASED(&heap->locked);
    atomic_store_explicit(&heap->locked, 0, memory_order_release);
    futex_wake_all(&heap->locked);
}

/* What has changed is in the memory map before it is counted (release), and what was counted
 * (acquire) before the map is read: what is not seen there is counted afterwards. */
void heap_note_change(struct heap *heap)
{
    atomic_fetch_add_explicit(&heap->changes, 1, memory_order_release);
}

void heap_ask_for_huge_pages(void *start, size_t length, bool wanted)
{
    if (length >= HUGE_PAGE_BYTES)
        advice_give(start, length, wanted ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

bool heap_is_stale(const struct heap *heap)
{
    DEMAND_HELD(&heap->locked);
    return atomic_load_explicit(&heap->changes, memory_order_relaxed) !=
               heap->changes_seen ||
           metadata_changes() != heap->metadata_seen ||
           (!fault_point(FAULT_TRUST_HOOKS) &&
            mappings_differ(mappings_measure(heap->statm), heap->extent_seen));
}

static bool is_disarmed(const struct heap *heap)
{
    return atomic_load_explicit(&heap->disarmed, memory_order_acquire);
}

static int open_userfaultfd(const struct ability *ability)
{
    int descriptor = fault_point(FAULT_NO_USERFAULTFD) ? -EPERM : userfaultfd_open();
    if (descriptor < 0)
        return descriptor;
    int error = userfaultfd_handshake(descriptor, ability_features(ability), NULL);
    if (!error)
        return descriptor;
    close(descriptor);
    return error;
}

/* After the emergency exit the new one takes the number of the old one: the fault server
 * may be about to use it. */
int heap_open(struct heap *heap, const struct ability *ability)
{
    DEMAND_HELD(&heap->locked);
    bool disarmed = is_disarmed(heap);
    if (heap->pagemap < 0)
        heap->pagemap = pagemap_open();
    if (heap->pagemap < 0)
        return heap->pagemap;
    if (heap->userfaultfd >= 0 && !disarmed)
        return 0;
    int descriptor = open_userfaultfd(ability);
    if (descriptor < 0)
        return descriptor;
    if (disarmed) {
        dup3(descriptor, heap->userfaultfd, O_CLOEXEC);
        close(descriptor);
        heap->has_marks = true;
        atomic_store_explicit(&heap->disarmed, false, memory_order_release);
    } else {
        heap->userfaultfd = descriptor;
    }
    regions_clear(&heap->registered);
    heap_note_change(heap);
    return 0;
}

bool heap_disarm_now(struct heap *heap)
{
    /* Never readable: the fault server, which polls it, shall sleep. */
    int nothing = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (nothing < 0)
        return false;
    dup3(nothing, heap->userfaultfd, O_CLOEXEC);
    close(nothing);
    atomic_store_explicit(&heap->disarmed, true, memory_order_release);
    return true;
}

void heap_want_whole(struct heap *heap, bool whole)
{
    DEMAND_HELD(&heap->locked);
    if (whole != heap->whole)
        heap_note_change(heap);
    heap->whole = whole;
}

/* ---- what is heap ---------------------------------------------------------------- */

static bool is_data(const struct mapping *mapping)
{
    if (!mapping->anonymous || mapping->shared || !mapping->readable ||
        !mapping->writable)
        return false;
    return mapping->name[0] == '\0' || strcmp(mapping->name, "[heap]") == 0 ||
           strncmp(mapping->name, "[anon:", 6) == 0;
}

/* Exactly: a stack that has grown together with its neighbour is not known any more. */
static bool is_stack(const struct heap *heap, const struct mapping *mapping)
{
    const struct region *stack = regions_find(&heap->stacks, mapping->start);
    return stack && stack->start == mapping->start && stack->end == mapping->end;
}

static int add_mapping(const struct mapping *mapping, void *context)
{
    struct heap *heap = context;
    return is_data(mapping) && !is_stack(heap, mapping)
               ? regions_add(&heap->seen, mapping->start, mapping->end)
               : 0;
}

struct stack_search {
    struct heap *heap;
    uint64_t bytes; /* of a stack */
    uint64_t pointers[STACKS_MAX];
    size_t pointer_count;
    uint64_t guard_end; /* of the mapping before, if nobody may touch it */
};

static int note_stack(const struct mapping *mapping, void *context)
{
    struct stack_search *search = context;
    bool guarded = search->guard_end == mapping->start;
    search->guard_end = mapping->readable || mapping->writable ? 0 : mapping->end;
    if (!guarded || !is_data(mapping) || mapping->end - mapping->start != search->bytes)
        return 0;
    for (size_t i = 0; i < search->pointer_count; i++)
        if (search->pointers[i] >= mapping->start && search->pointers[i] < mapping->end)
            return regions_add(&search->heap->stacks, mapping->start, mapping->end);
    return 0;
}

void heap_find_stacks(struct heap *heap)
{
    DEMAND_HELD(&heap->locked);
    struct stack_search search = {.heap = heap, .bytes = stacks_default_bytes()};
    search.pointer_count = stacks_find_pointers(search.pointers, STACKS_MAX);
    /* Those of threads that happen to run now stay known. */
    if (heap->stacks.count > STACKS_MAX / 2)
        regions_clear(&heap->stacks);
    if (search.bytes)
        (void)mappings_visit(-1, note_stack, &search);
}

static int leave_out_object(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD)
            continue;
        uint64_t start = info->dlpi_addr + header->p_vaddr;
        int error = regions_remove(context, round_down(start, PAGE_BYTES),
                                   round_up(start + header->p_memsz, PAGE_BYTES));
        if (error)
            return error;
    }
    return 0;
}

static int scan(struct heap *heap)
{
    struct region_set *set = &heap->seen;
    regions_clear(set);
    int error = mappings_visit(heap->statm, add_mapping, heap);
    if (!error)
        error = dl_iterate_phdr(leave_out_object, set);
    if (!error && !heap->whole)
        error = metadata_leave_out(set);
    return error || !heap->prefaulted ? error
                                      : prefaulted_leave_out(heap->prefaulted, set);
}

/* Whoever else has memory of this kind, it is not the server's: another userfaultfd's, or
 * pages that the kernel may drop (glibc since 2.41 has some for its random numbers). */
static bool is_refusal(int error)
{
    return error == -EINVAL || error == -EBUSY || error == -ENOENT || error == -EPERM;
}

static int register_range(struct heap *heap, uint64_t start, uint64_t end)
{
    int error = userfaultfd_register(heap->userfaultfd, start, end - start);
    if (!error && heap->has_marks)
        heap_unprotect(heap, start, end);
    return error;
}

struct refused_region {
    struct heap *heap;
    struct region region;
};

/* The part of a mapping that is in the region. */
static int register_mapping(const struct mapping *mapping, void *context)
{
    const struct refused_region *refused = context;
    const struct region *region = &refused->region;
    uint64_t start = mapping->start > region->start ? mapping->start : region->start;
    uint64_t end = mapping->end < region->end ? mapping->end : region->end;
    if (start >= end || !is_data(mapping))
        return 0;
    int error = register_range(refused->heap, start, end);
    if (!error)
        return regions_add(&refused->heap->seen, start, end);
    return is_refusal(error) ? 0 : error;
}

/* A region is of all mappings that touch, and is refused for one of them: only that one is
 * left out of `seen`. A pointer into it will be refused by the view. */
static int register_by_mappings(struct heap *heap, struct region region)
{
    struct refused_region refused = {heap, region};
    int error = regions_remove(&heap->seen, region.start, region.end);
    return error ? error : mappings_visit(heap->statm, register_mapping, &refused);
}

static int register_fresh(struct heap *heap)
{
    for (size_t i = 0; i < heap->fresh.count; i++) {
        struct region region = heap->fresh.regions[i];
        int error = register_range(heap, region.start, region.end);
        if (is_refusal(error))
            error = register_by_mappings(heap, region);
        if (error)
            return error;
    }
    return 0;
}

static int scan_and_register(struct heap *heap)
{
    int error = scan(heap);
    if (!error)
        error = regions_subtract(&heap->seen, &heap->registered, &heap->fresh);
    return error ? error : register_fresh(heap);
}

int heap_refresh(struct heap *heap, bool all)
{
    DEMAND_HELD(&heap->locked);
    uint32_t changes = atomic_load_explicit(&heap->changes, memory_order_acquire);
    uint32_t metadata = metadata_changes();
    struct mappings_extent extent;
    int error = -EAGAIN;
    if (all)
        regions_clear(&heap->registered);
    /* Who maps in a freeze is another thread: for moments. */
    for (int i = 0; i < READINGS_MAX && error == -EAGAIN; i++) {
        /* Before the scan: what comes meanwhile is found by the next one. */
        extent = mappings_measure(heap->statm);
        error = scan_and_register(heap);
    }
    if (error)
        return error;
    struct region_set previous = heap->registered;
    heap->registered = heap->seen;
    heap->seen = previous;
    heap->changes_seen = changes;
    heap->extent_seen = extent;
    heap->metadata_seen = metadata;
    heap->has_marks = false;
    if (fault_point(FAULT_LOST_REGIONS) && !all)
        regions_clear(&heap->registered);
    return 0;
}

/* The last slice of what is registered. Un-registering lifts the protection, but wakes
 * nobody who has faulted on it. */
static void unregister_slice(struct heap *heap)
{
    struct region *region = &heap->registered.regions[heap->registered.count - 1];
    uint64_t at = round_down(region->end - 1, UNREGISTER_SLICE);
    if (at < region->start)
        at = region->start;
    userfaultfd_unregister(heap->userfaultfd, at, region->end - at);
    userfaultfd_wake(heap->userfaultfd, at, region->end - at);
    region->end = at;
    if (region->end > region->start)
        sleep_usec(UNREGISTER_REST_USEC);
    else
        heap->registered.count--;
}

int heap_unregister_all(struct heap *heap, const _Atomic bool *stop)
{
    DEMAND_HELD(&heap->locked);
    heap_note_change(heap);
    while (heap->registered.count) {
        if (atomic_load_explicit(stop, memory_order_acquire))
            return -ECANCELED;
        unregister_slice(heap);
    }
    return 0;
}

/* ---- protection ------------------------------------------------------------------ */

/* What is not decommitted of the registered regions, in heap->fresh. */
static int find_content(struct heap *heap)
{
    regions_clear(&heap->seen);
    int error = regions_subtract(&heap->registered, &heap->seen, &heap->fresh);
    return error ? error : decommitted_freeze(&heap->fresh);
}

int heap_protect(struct heap *heap)
{
    DEMAND_MAIN_THREAD();
    DEMAND_HELD(&heap->locked);
    int error = find_content(heap);
    if (!error && !fault_point(FAULT_SKIP_PROTECT))
        error = protection_set(heap->protection, heap->userfaultfd, &heap->fresh);
    /* A helper that is late would protect something again: the caller does not wait for
     * it. */
    if (error && protection_is_at_work(heap->protection))
        heap_disarm_now(heap);
    for (size_t i = 0; error && !is_disarmed(heap) && i < heap->fresh.count; i++)
        heap_unprotect(heap, heap->fresh.regions[i].start, heap->fresh.regions[i].end);
    return error;
}

const struct region_set *heap_content(const struct heap *heap)
{
    DEMAND_HELD(&heap->locked);
    return &heap->fresh;
}

static int unprotect_once(int descriptor, uint64_t start, uint64_t end)
{
    int error;
    do {
        error = userfaultfd_unprotect(descriptor, start, end - start);
    } while (error == -EAGAIN);
    return error;
}

/* The kernel stops at the first mapping in the range that is not registered (one that
 * was put in the place of another meanwhile) and leaves protected what comes after it:
 * a write to that would wait for ever. So by halves, around it. */
static void unprotect_around(int descriptor, uint64_t start, uint64_t end)
{
    uint64_t middle = start + round_down((end - start) / 2, PAGE_BYTES);
    if (unprotect_once(descriptor, start, end) == 0)
        return;
    if (middle == start) {
        userfaultfd_wake(descriptor, start, end - start);
        return;
    }
    unprotect_around(descriptor, start, middle);
    unprotect_around(descriptor, middle, end);
}

void heap_unprotect(struct heap *heap, uint64_t start, uint64_t end)
{
    if (heap->userfaultfd >= 0 && !is_disarmed(heap))
        unprotect_around(heap->userfaultfd, start, end);
}
