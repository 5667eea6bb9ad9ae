#include "memory/allocator.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include "kernel/contract.h"
#include "kernel/symbols.h"
#include "memory/arena_pool.h"
#include "memory/metadata.h"
#include "memory/pages.h"

/* jemalloc makes four arenas per CPU; more than this many are left as they are. */
#define ARENAS_MAX 256
/* Values that stayed in the pool's arenas since earlier snapshots leave as much room
 * unused in the old ones, but for what was evicted there: so much more than one snapshot
 * may take, in all of them. */
#define POOL_BYTES_MORE (UINT64_C(24) << 20)

/* What an arena may ask the kernel for beyond what it needs. It doubles that as it grows, so
 * that a heap of 8 GB came with 1.5 GB that nobody had touched yet: to protect that takes a
 * mark for each of its pages, 6 ms a gigabyte, where huge pages take 0.1. */
#define GROWTH_BYTES (UINT64_C(8) << 20)

static mallctl_function mallctl;
static const char *prefix = "";
/* The main thread's own arena, + 1; 0: not known. Written before the first snapshot. */
static _Atomic unsigned main_arena;

/* What it was before, 0: not known. */
static size_t growth_before;

static struct {
    bool steered;
    bool at_home;   /* … but the main thread is in its own arena again */
    bool cache_off; /* its thread cache, which was `cache_was_on` */
    bool cache_was_on;
    unsigned fresh; /* where the main thread is, unless at home */
    size_t fresh_pages_before;
    uint64_t fresh_bytes;    /* when last looked */
    uint64_t evicted;        /* in this snapshot, when last told */
    uint64_t evicted_before; /* in earlier ones, for values that are still in the pool */
    ssize_t dirty_decay[ARENAS_MAX];
    ssize_t muzzy_decay[ARENAS_MAX];
    unsigned decay_count;
} steering;

int allocator_find(void)
{
    DEMAND_MAIN_THREAD();
    static const char *const prefixes[] = {"", "je_"};
    for (size_t i = 0; i < 2; i++) {
        prefix = prefixes[i];
        mallctl = (mallctl_function)symbol_find_prefixed(prefix, "mallctl");
        const char *version;
        size_t length = sizeof(version);
        if (mallctl && mallctl("version", &version, &length, NULL, 0) == 0)
            return 0;
    }
    mallctl = NULL;
    return -ENOTSUP;
}

const char *allocator_prefix(void)
{
    return prefix;
}

const void *allocator_function(void)
{
    return (const void *)mallctl;
}

static bool get_unsigned(const char *name, unsigned *value)
{
    size_t length = sizeof(*value);
    return mallctl(name, value, &length, NULL, 0) == 0;
}

/* Writing a setting of an arena that does not exist would create it. */
static bool is_initialized(unsigned arena)
{
    char name[48];
    bool initialized = false;
    size_t length = sizeof(initialized);
    snprintf(name, sizeof(name), "arena.%u.initialized", arena);
    return mallctl(name, &initialized, &length, NULL, 0) == 0 && initialized;
}

static void set_growth(size_t bytes)
{
    unsigned count;
    if (!mallctl || !get_unsigned("arenas.narenas", &count))
        return;
    for (unsigned i = 0; i < count && i < ARENAS_MAX; i++) {
        char name[48];
        size_t old = 0, length = sizeof(old);
        snprintf(name, sizeof(name), "arena.%u.retain_grow_limit", i);
        if (!is_initialized(i) || mallctl(name, &old, &length, NULL, 0) != 0 ||
            old <= HUGE_PAGE_BYTES)
            continue; /* the pool's have less */
        if (!growth_before)
            growth_before = old;
        mallctl(name, NULL, NULL, &bytes, sizeof(bytes));
    }
}

void allocator_leave_growth(void)
{
    DEMAND_MAIN_THREAD();
    if (growth_before)
        set_growth(growth_before);
}

int allocator_create_pool(void)
{
    DEMAND_MAIN_THREAD();
    unsigned home;
    set_growth(GROWTH_BYTES);
    /* Of the arenas that an earlier load of the module has left. */
    steering.evicted = steering.evicted_before = steering.fresh_bytes = 0;
    if (mallctl && get_unsigned("thread.arena", &home))
        atomic_store_explicit(&main_arena, home + 1, memory_order_release);
    void (*dallocx)(void *memory, int flags);
    void *found = symbol_find_prefixed(prefix, "dallocx");
    memcpy(&dallocx, &found, sizeof(found));
    return mallctl ? arena_pool_create(mallctl, dallocx) : -ENOTSUP;
}

static void set_arena(unsigned arena)
{
    mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena));
}

static bool home_is_known(void)
{
    return atomic_load_explicit(&main_arena, memory_order_acquire) != 0;
}

void allocator_stay_at_home(void)
{
    if (home_is_known())
        set_arena(atomic_load_explicit(&main_arena, memory_order_relaxed) - 1);
}

void allocator_prepare_arena(void)
{
    DEMAND_MAIN_THREAD();
    arena_pool_grow();
}

/* -1 stops a kind of decay; a value as read puts it back. */
static void exchange_decay(unsigned arena, const char *kind, ssize_t *old, ssize_t value)
{
    char name[48];
    size_t length = sizeof(*old);
    snprintf(name, sizeof(name), "arena.%u.%s_decay_ms", arena, kind);
    if (mallctl(name, old, old ? &length : NULL, &value, sizeof(value)) != 0 && old)
        *old = -1;
}

void allocator_stop_decay(void)
{
    DEMAND_MAIN_THREAD();
    unsigned count;
    if (!mallctl || steering.decay_count || !get_unsigned("arenas.narenas", &count))
        return;
    steering.decay_count = count < ARENAS_MAX ? count : ARENAS_MAX;
    for (unsigned i = 0; i < steering.decay_count; i++) {
        steering.dirty_decay[i] = steering.muzzy_decay[i] = -1;
        if (!is_initialized(i))
            continue;
        exchange_decay(i, "dirty", &steering.dirty_decay[i], -1);
        exchange_decay(i, "muzzy", &steering.muzzy_decay[i], -1);
    }
}

static void restart_decay(void)
{
    for (unsigned i = 0; i < steering.decay_count; i++) {
        if (steering.dirty_decay[i] != -1)
            exchange_decay(i, "dirty", NULL, steering.dirty_decay[i]);
        if (steering.muzzy_decay[i] != -1)
            exchange_decay(i, "muzzy", NULL, steering.muzzy_decay[i]);
    }
    steering.decay_count = 0;
}

static void empty_cache(void)
{
    mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
}

static void switch_cache_off(void)
{
    bool off = false;
    size_t length = sizeof(steering.cache_was_on);
    if (!steering.cache_off)
        mallctl("thread.tcache.enabled", &steering.cache_was_on, &length, &off,
                sizeof(off));
    steering.cache_off = true;
}

static void switch_cache_back(void)
{
    if (steering.cache_off)
        mallctl("thread.tcache.enabled", NULL, NULL, &steering.cache_was_on,
                sizeof(bool));
    steering.cache_off = false;
}

void allocator_steer(bool past_is_kept_back)
{
    DEMAND_MAIN_THREAD();
    if (steering.steered || !home_is_known() || !arena_pool_next(&steering.fresh))
        return;
    if (past_is_kept_back && arena_pool_can_free())
        empty_cache();
    else
        switch_cache_off();
    steering.fresh_pages_before = arena_pool_pages_of(steering.fresh);
    steering.fresh_bytes = 0;
    set_arena(steering.fresh);
    arena_pool_begin_snapshot();
    steering.steered = true;
}

/* Without the thread cache: it would hand out the places that are freed in the fresh
 * arena again and again, and the old ones would never be filled. */
static void go_home(void)
{
    switch_cache_off();
    allocator_stay_at_home();
    steering.at_home = true;
}

static void look_at_statistics(void)
{
    uint64_t epoch = 1;
    metadata_begin_look();
    mallctl("epoch", NULL, NULL, &epoch, sizeof(epoch));
    metadata_end_look();
}

void allocator_measure(void)
{
    DEMAND_MAIN_THREAD();
    if (!steering.steered)
        return;
    look_at_statistics();
    size_t pages = arena_pool_pages_of(steering.fresh);
    if (pages < steering.fresh_pages_before)
        steering.fresh_pages_before = pages;
    steering.fresh_bytes = (pages - steering.fresh_pages_before) * PAGE_BYTES;
}

uint64_t allocator_fresh_bytes(void)
{
    DEMAND_MAIN_THREAD();
    return steering.fresh_bytes;
}

bool allocator_stay_below(uint64_t bytes, uint64_t evicted)
{
    DEMAND_MAIN_THREAD();
    if (!steering.steered)
        return false;
    uint64_t fresh = steering.fresh_bytes, pool = arena_pool_pages() * PAGE_BYTES;
    uint64_t older = pool > fresh ? pool - fresh : 0;
    if (steering.evicted_before > older)
        steering.evicted_before = older;
    steering.evicted = evicted;
    bytes += evicted;
    if (fresh > bytes || pool > bytes + steering.evicted_before + POOL_BYTES_MORE)
        go_home();
    return !steering.at_home;
}

void allocator_restore(void)
{
    DEMAND_MAIN_THREAD();
    if (steering.decay_count) {
        restart_decay();
        set_growth(GROWTH_BYTES); /* threads that came later have arenas of their own */
    }
    if (!steering.steered)
        return;
    if (!steering.at_home) {
        empty_cache();
        allocator_stay_at_home();
    }
    switch_cache_back();
    arena_pool_end_snapshot();
    steering.steered = steering.at_home = false;
    steering.evicted_before += steering.evicted;
    steering.evicted = 0;
}
