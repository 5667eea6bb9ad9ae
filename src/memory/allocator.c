#include "memory/allocator.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <sys/types.h>

#define POOL_ARENAS 4
/* jemalloc makes four arenas per CPU; more than this many are left to decay. */
#define DECAY_ARENAS_MAX 256

typedef int (*mallctl_function)(const char *name, void *old, size_t *old_length,
                                void *new_value, size_t new_length);

static mallctl_function mallctl;

static struct {
    unsigned pool[POOL_ARENAS];
    unsigned pool_count;
    unsigned next; /* turn in the pool */
    bool steered;
    unsigned home; /* the main thread's own arena */
    bool tcache_was_on;
    ssize_t dirty_decay[DECAY_ARENAS_MAX];
    ssize_t muzzy_decay[DECAY_ARENAS_MAX];
    unsigned decay_count;
} steering;

int allocator_find(void)
{
    const char *names[] = {"mallctl", "je_mallctl"};
    for (size_t i = 0; i < 2; i++) {
        mallctl = (mallctl_function)dlsym(RTLD_DEFAULT, names[i]);
        const char *version;
        size_t length = sizeof(version);
        if (mallctl && mallctl("version", &version, &length, NULL, 0) == 0)
            return 0;
    }
    mallctl = NULL;
    return -ENOTSUP;
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

static void set_arena(unsigned arena)
{
    mallctl("thread.arena", NULL, NULL, &arena, sizeof(arena));
}

void allocator_make_ready(void)
{
    if (steering.pool_count == POOL_ARENAS)
        return;
    unsigned arena;
    if (!get_unsigned("arenas.create", &arena))
        return;
    /* In use at once when the snapshot comes: its first allocation maps memory. */
    steering.pool[steering.pool_count++] = arena;
    steering.next = steering.pool_count - 1;
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
    unsigned count;
    if (!mallctl || steering.decay_count || !get_unsigned("arenas.narenas", &count))
        return;
    steering.decay_count = count < DECAY_ARENAS_MAX ? count : DECAY_ARENAS_MAX;
    for (unsigned i = 0; i < steering.decay_count; i++) {
        char name[48];
        bool initialized = false;
        size_t length = sizeof(initialized);
        snprintf(name, sizeof(name), "arena.%u.initialized", i);
        steering.dirty_decay[i] = steering.muzzy_decay[i] = -1;
        /* Writing a setting of an arena that does not exist would create it. */
        if (mallctl(name, &initialized, &length, NULL, 0) != 0 || !initialized)
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

void allocator_steer(void)
{
    if (!mallctl || steering.steered || !steering.pool_count)
        return;
    if (!get_unsigned("thread.arena", &steering.home))
        return;
    bool off = false;
    size_t length = sizeof(steering.tcache_was_on);
    mallctl("thread.tcache.enabled", &steering.tcache_was_on, &length, &off, sizeof(off));
    set_arena(steering.pool[steering.next]);
    steering.next = (steering.next + 1) % steering.pool_count;
    steering.steered = true;
}

void allocator_restore(void)
{
    if (steering.decay_count)
        restart_decay();
    if (!steering.steered)
        return;
    set_arena(steering.home);
    mallctl("thread.tcache.enabled", NULL, NULL, &steering.tcache_was_on, sizeof(bool));
    steering.steered = false;
}
