#include "memory/arena_pool.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>

#include "kernel/contract.h"
#include "kernel/memory.h"
#include "memory/decommitted.h"
#include "memory/pages.h"

#define GRANULE_BITS    21
#define ADDRESS_BITS    48 /* x86-64 gives 47; more only to who asks for such an address */
#define AGES_BYTES      (UINT64_C(1) << (ADDRESS_BITS - GRANULE_BITS))
#define NO_THREAD_CACHE 0x100 /* jemalloc's MALLOCX_TCACHE_NONE */
/* What a granule's age says. Snapshots are numbered from 1 on, and from 1 again. */
#define NOT_OURS    0
#define AGELESS     UINT8_MAX
#define NO_SNAPSHOT AGELESS

/* jemalloc's documented table of functions of an arena, the same since 5.0. */
struct extent_hooks {
    void *(*alloc)(struct extent_hooks *, void *, size_t, size_t, bool *, bool *,
                   unsigned);
    bool (*dalloc)(struct extent_hooks *, void *, size_t, bool, unsigned);
    void (*destroy)(struct extent_hooks *, void *, size_t, bool, unsigned);
    bool (*commit)(struct extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*decommit)(struct extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_lazy)(struct extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*purge_forced)(struct extent_hooks *, void *, size_t, size_t, size_t, unsigned);
    bool (*split)(struct extent_hooks *, void *, size_t, size_t, size_t, bool, unsigned);
    bool (*merge)(struct extent_hooks *, void *, size_t, void *, size_t, bool, unsigned);
};

static struct {
    mallctl_function mallctl;
    void (*dallocx)(void *memory, int flags);
    unsigned arenas[ARENA_POOL_SIZE];
    unsigned count;
    struct extent_hooks *jemallocs_hooks;
    struct extent_hooks hooks;
    uint8_t snapshots;
    _Atomic uint8_t snapshot; /* the one that is under way, or NO_SNAPSHOT */
    _Atomic uint8_t *ages;    /* never protected: read in every free() */
} pool;

/* ---- hooks ----------------------------------------------------------------------- */

static _Atomic uint8_t *age_of(uint64_t address)
{
    return &pool.ages[address >> GRANULE_BITS];
}

static void mark(uint64_t start, uint64_t end)
{
    uint8_t age = atomic_load_explicit(&pool.snapshot, memory_order_relaxed);
    for (uint64_t at = start; at < end; at += UINT64_C(1) << GRANULE_BITS)
        atomic_store_explicit(age_of(at), age, memory_order_relaxed);
    atomic_store_explicit(age_of(end - 1), age, memory_order_relaxed);
}

static void *allocate_extent(struct extent_hooks *hooks, void *wanted, size_t size,
                             size_t alignment, bool *zero, bool *commit, unsigned arena)
{
    (void)hooks;
    void *extent = pool.jemallocs_hooks->alloc(pool.jemallocs_hooks, wanted, size,
                                               alignment, zero, commit, arena);
    uint64_t start = (uint64_t)(uintptr_t)extent;
    if (extent && (start + size) >> ADDRESS_BITS == 0)
        mark(start, start + size);
    return extent;
}

/* True: not done. */
static bool decommit_extent(struct extent_hooks *hooks, void *extent, size_t size,
                            size_t offset, size_t length, unsigned arena)
{
    (void)hooks, (void)size, (void)arena;
    uint64_t start = (uint64_t)(uintptr_t)extent + offset;
    return !decommitted_give_up(start, start + length);
}

static bool commit_extent(struct extent_hooks *hooks, void *extent, size_t size,
                          size_t offset, size_t length, unsigned arena)
{
    (void)hooks, (void)size, (void)arena;
    uint64_t start = (uint64_t)(uintptr_t)extent + offset;
    decommitted_take_back(start, start + length);
    mark(start, start + length); /* as good as new */
    return false;
}

static int control(unsigned arena, const char *what, void *old, size_t *old_length,
                   void *new_value, size_t new_length)
{
    char name[64];
    snprintf(name, sizeof(name), "arena.%u.%s", arena, what);
    return pool.mallctl(name, old, old_length, new_value, new_length);
}

static void set_hooks(unsigned arena, struct extent_hooks *hooks)
{
    void *table = hooks;
    control(arena, "extent_hooks", NULL, NULL, &table, sizeof(table));
}

static void watch_extents(unsigned arena)
{
    void *table;
    size_t length = sizeof(table);
    if (control(arena, "extent_hooks", &table, &length, NULL, 0) != 0)
        return;
    pool.jemallocs_hooks = table;
    pool.hooks = *pool.jemallocs_hooks;
    pool.hooks.alloc = allocate_extent;
    pool.hooks.commit = commit_extent;
    pool.hooks.decommit = decommit_extent;
    set_hooks(arena, &pool.hooks);
}

/* ---- arenas ---------------------------------------------------------------------- */

int arena_pool_create(mallctl_function mallctl, void (*dallocx)(void *memory, int flags))
{
    DEMAND_MAIN_THREAD();
    if (!pool.ages)
        pool.ages = memory_map_inherited(AGES_BYTES);
    if (!pool.ages || decommitted_create() != 0)
        return -ENOMEM;
    arena_pool_end_snapshot();
    pool.dallocx = dallocx;
    pool.mallctl = mallctl;
    return 0;
}

bool arena_pool_may_leave(void)
{
    DEMAND_MAIN_THREAD();
    for (unsigned i = 0; i < pool.count; i++) {
        void *table = NULL;
        size_t length = sizeof(table);
        control(pool.arenas[i], "extent_hooks", &table, &length, NULL, 0);
        if (table && table != &pool.hooks && table != pool.jemallocs_hooks)
            return false;
    }
    return true;
}

/* What was decommitted stays unused: nobody allocates in these arenas any more. But what
 * is in them is still freed, and the thread that does so may be in a hook: what hooks use
 * stays mapped, empty, for the next time. */
void arena_pool_leave(void)
{
    DEMAND_MAIN_THREAD();
    for (unsigned i = 0; i < pool.count; i++)
        set_hooks(pool.arenas[i], pool.jemallocs_hooks);
    if (pool.ages)
        madvise((void *)pool.ages, AGES_BYTES, MADV_DONTNEED);
    pool.mallctl = NULL;
    pool.dallocx = NULL;
    pool.count = 0;
    decommitted_destroy();
}

/* Else an arena asks for twice as much each time, and what it does not use of that
 * stays in its hands: address space usually, but what is mapped for it while frozen
 * has been touched (memory/prefaulted.h). */
static void grow_in_huge_pages(unsigned arena)
{
    size_t limit = HUGE_PAGE_BYTES;
    control(arena, "retain_grow_limit", NULL, NULL, &limit, sizeof(limit));
}

/* Else each arena has a thread of its own that purges it, with a stack which the server's
 * crash report fills: 8 MB. Those that there are do it too, and still do when the module
 * has left: the arenas stay. */
static void make_do_with_threads(void)
{
    uint64_t epoch = 1;
    size_t threads = 0, length = sizeof(threads);
    pool.mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
    pool.mallctl("stats.background_thread.num_threads", &threads, &length, NULL, 0);
    threads = threads ? threads : 1;
    pool.mallctl("max_background_threads", NULL, NULL, &threads, sizeof(threads));
}

void arena_pool_grow(void)
{
    DEMAND_MAIN_THREAD();
    unsigned arena;
    size_t length = sizeof(arena);
    if (!pool.mallctl || pool.count == ARENA_POOL_SIZE)
        return;
    if (!pool.count)
        make_do_with_threads();
    if (pool.mallctl("arenas.create", &arena, &length, NULL, 0) != 0)
        return;
    grow_in_huge_pages(arena);
    watch_extents(arena);
    pool.arenas[pool.count++] = arena;
}

size_t arena_pool_pages_of(unsigned arena)
{
    static const char *const kinds[] = {"pactive", "pdirty", "pmuzzy"};
    size_t pages = 0;
    for (size_t i = 0; i < 3; i++) {
        char name[64];
        size_t value, length = sizeof(value);
        snprintf(name, sizeof(name), "stats.arenas.%u.%s", arena, kinds[i]);
        if (pool.mallctl(name, &value, &length, NULL, 0) == 0)
            pages += value;
    }
    return pages;
}

size_t arena_pool_pages(void)
{
    size_t pages = 0;
    for (unsigned i = 0; i < pool.count; i++)
        pages += arena_pool_pages_of(pool.arenas[i]);
    return pages;
}

bool arena_pool_next(unsigned *arena)
{
    DEMAND_MAIN_THREAD();
    size_t fewest = SIZE_MAX;
    for (unsigned i = 0; i < pool.count; i++) {
        size_t pages = arena_pool_pages_of(pool.arenas[i]);
        if (pages < fewest) {
            fewest = pages;
            *arena = pool.arenas[i];
        }
    }
    return pool.count != 0;
}

void arena_pool_purge(void)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    for (unsigned i = 0; i < pool.count; i++)
        control(pool.arenas[i], "purge", NULL, NULL, NULL, 0);
}

void arena_pool_begin_snapshot(void)
{
    DEMAND_MAIN_THREAD();
    pool.snapshots = pool.snapshots + 1 < AGELESS ? pool.snapshots + 1 : NOT_OURS + 1;
    atomic_store_explicit(&pool.snapshot, pool.snapshots, memory_order_relaxed);
}

void arena_pool_end_snapshot(void)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&pool.snapshot, NO_SNAPSHOT, memory_order_relaxed);
}

bool arena_pool_can_free(void)
{
    return pool.ages && pool.dallocx;
}

bool arena_pool_free(void *memory)
{
    if (!arena_pool_can_free())
        return false;
    uint64_t address = (uint64_t)(uintptr_t)memory;
    if (address >> ADDRESS_BITS)
        return false;
    uint8_t age = atomic_load_explicit(age_of(address), memory_order_relaxed);
    uint8_t snapshot = atomic_load_explicit(&pool.snapshot, memory_order_relaxed);
    if (age == NOT_OURS)
        return false;
    bool young = age == snapshot && snapshot != NO_SNAPSHOT;
    pool.dallocx(memory, young ? 0 : NO_THREAD_CACHE);
    return true;
}

bool arena_pool_free_past(void *memory)
{
    if (!arena_pool_can_free())
        return false;
    pool.dallocx(memory, NO_THREAD_CACHE);
    return true;
}
