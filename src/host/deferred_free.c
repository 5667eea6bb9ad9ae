#include "host/deferred_free.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "host/entry.h"
#include "host/got.h"
#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/memory.h"
#include "kernel/symbols.h"
#include "kernel/thread.h"

/* Of 16 bytes each, they come to DEFERRED_FREE_BYTES_MAX. A value that can be evicted takes
 * two, until after the save: at 10,000 SET/s of 4 KB half a million were not enough for a
 * save and the next one. */
#define NOTES_MAX           (2 * 1024 * 1024)
#define FREES_BETWEEN_LOOKS 64
/* A page at least: it may be evicted. */
#define LARGE_BYTES 4096
/* Made up for with every free() that is not put off any more. */
#define FREES_MADE_UP 2

/* The notes are the main thread's. While frees are put off they are only added, and
 * another thread may read those below `count`. It does so under `lock`, which the main
 * thread takes to end it all before it frees the first one. */
static struct {
    bool putting_off;
    bool leaves_past; /* in a child: only what is fresh is freed */
    pthread_t main_thread;
    void **notes;
    _Atomic size_t count; /* published after the note */
    uint64_t small_bytes, large_bytes;
    bool (*is_kept_back)(const void *memory);
    bool evictable; /* what is large may be given back before it is freed */
    struct short_lock lock;
    _Atomic bool open;   /* notes may be read; becomes true under `lock` */
    size_t looked;       /* under `lock`: notes that were given already */
    uint64_t openings;   /* under `lock` */
    bool holder_is_late; /* has not let go of the notes, which must stay */
    struct got_patch free_patch, sized_free_patch;
} late;

/* The server's allocator: libc's of the same names may be nearer to us. */
static struct {
    void (*free)(void *memory);
    void (*sized_free)(void *memory, size_t size, int flags);
    void (*measured_free)(void *memory, size_t *bytes);
    void (*dallocx)(void *memory, int flags);
    size_t (*usable_size)(void *memory);
    bool (*free_fresh)(void *memory);
    bool (*free_past)(void *memory);
} real;

/* How the server's frees reach us. Outlives an unload, as the replaced code does. */
static struct {
    bool entries; /* its allocator's code leads here (host/entry.h) */
    char obstacle[96];
} reach;

static size_t noted(void)
{
    return atomic_load_explicit(&late.count, memory_order_relaxed);
}

static void free_now(void *memory)
{
    if (!real.free_fresh(memory))
        real.free(memory);
}

static uint64_t *bytes_like(size_t bytes)
{
    return bytes < LARGE_BYTES ? &late.small_bytes : &late.large_bytes;
}

static bool has_room_for_note(size_t count, size_t bytes)
{
    if (count == NOTES_MAX)
        return false;
    if (late.evictable && bytes >= LARGE_BYTES)
        return true;
    uint64_t held = late.small_bytes + (late.evictable ? 0 : late.large_bytes);
    return held + bytes <= DEFERRED_FREE_BYTES_MAX;
}

static void free_one(void)
{
    size_t last = noted() - 1;
    void *memory = late.notes[last];
    atomic_store_explicit(&late.count, last, memory_order_relaxed);
    size_t bytes = real.usable_size(memory);
    *bytes_like(bytes) -= bytes;
    free_now(memory);
    if (last == 0) /* the notes took memory too */
        advice_give(late.notes, NOTES_MAX * sizeof(*late.notes), MADV_DONTNEED);
}

static void put_off(void *memory)
{
    /* Where new values go, the places of dead ones are of use: most of all those of what
     * lives as long as one command. */
    if (real.free_fresh(memory))
        return;
    if (late.is_kept_back && !late.is_kept_back(memory)) {
        real.free(memory);
        return;
    }
    size_t bytes = real.usable_size(memory), count = noted();
    if (!has_room_for_note(count, bytes)) {
        if (!real.free_past(memory))
            real.free(memory);
        return;
    }
    late.notes[count] = memory;
    *bytes_like(bytes) += bytes;
    atomic_store_explicit(&late.count, count + 1, memory_order_release);
}

static void stand_in_free(void *memory)
{
    if (late.leaves_past) {
        if (memory)
            real.free_fresh(memory);
        return;
    }
    if (!memory || !pthread_equal(pthread_self(), late.main_thread) || !late.notes) {
        real.free(memory);
        return;
    }
    if (late.putting_off) {
        put_off(memory);
        return;
    }
    free_now(memory);
    for (int i = 0; i < FREES_MADE_UP && noted() && !late.holder_is_late; i++)
        free_one();
}

/* Valkey tells the allocator the size, to save it looking. */
static void stand_in_sized_free(void *memory, size_t size, int flags)
{
    if (flags || !pthread_equal(pthread_self(), late.main_thread))
        real.sized_free(memory, size, flags);
    else
        stand_in_free(memory);
}

/* Redis since 8.2 asks the allocator that it brings along how large it was. */
static void stand_in_measured_free(void *memory, size_t *bytes)
{
    if (memory && bytes)
        *bytes = real.usable_size(memory);
    stand_in_free(memory);
}

/* ---- reaching the server's frees ------------------------------------------------- */

static void free_directly(void *memory)
{
    if (memory)
        real.dallocx(memory, 0);
}

static void sized_free_directly(void *memory, size_t size, int flags)
{
    (void)size;
    real.dallocx(memory, flags);
}

static void find_function(const char *prefix, const char *name, void *function)
{
    void *found = symbol_find_prefixed(prefix, name);
    memcpy(function, &found, sizeof(found));
}

static int find_real_functions(const char *prefix)
{
    find_function(prefix, "free", &real.free);
    find_function(prefix, "sdallocx", &real.sized_free);
    find_function(prefix, "free_with_usize", &real.measured_free);
    find_function(prefix, "dallocx", &real.dallocx);
    find_function(prefix, "malloc_usable_size", &real.usable_size);
    return real.free && real.usable_size ? 0 : -ENOENT;
}

static int tell_obstacle(int error)
{
    const char *text = error == -EBUSY ? "it is called directly, and other threads were "
                                         "running when the module was loaded"
                       : error == -EOPNOTSUPP
                           ? "it is called directly, and its code is of an unknown kind"
                       : error == -ENXIO
                           ? "the server frees by a function that is not known"
                       : error == -ENOENT ? "it is not exported, or not called"
                                          : strerror(-error);
    snprintf(reach.obstacle, sizeof(reach.obstacle), "%s", error ? text : "");
    return error;
}

static bool is_in_executable(const void *function)
{
    struct got_object object, executable;
    return got_find_object(function, &object) == 0 &&
           got_find_executable(&executable) == 0 && object.dynamic == executable.dynamic;
}

struct replaced {
    void *function;
    unsigned arguments;
    void *stand_in;
};

/* All or none. */
static int replace_all(const struct replaced *entries, size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        if (entries[i].function)
            error = entry_check(entries[i].function, entries[i].arguments);
    if (error)
        return error;
    real.free = free_directly;
    real.sized_free = sized_free_directly;
    for (size_t i = 0; i < count && !error; i++) {
        if (!entries[i].function)
            continue;
        error =
            entry_replace(entries[i].function, entries[i].arguments, entries[i].stand_in);
        reach.entries = reach.entries || !error;
    }
    return error;
}

/* What stands in does as they did by dallocx(), which stays as it is. */
static int replace_entries(void)
{
    struct replaced entries[] = {{NULL, 1, (void *)stand_in_free},
                                 {NULL, 3, (void *)stand_in_sized_free},
                                 {NULL, 2, (void *)stand_in_measured_free}};
    memcpy(&entries[0].function, &real.free, sizeof(void *));
    memcpy(&entries[1].function, &real.sized_free, sizeof(void *));
    memcpy(&entries[2].function, &real.measured_free, sizeof(void *));
    if (!real.dallocx || !is_in_executable(entries[0].function))
        return -ENOENT;
    return replace_all(entries, sizeof(entries) / sizeof(entries[0]));
}

void deferred_free_reach(const void *allocator_function, const char *prefix)
{
    DEMAND_MAIN_THREAD();
    if (reach.entries)
        return;
    int error = find_real_functions(prefix);
    if (!error && is_in_executable(allocator_function))
        error = replace_entries();
    tell_obstacle(error);
}

const char *deferred_free_obstacle(void)
{
    return reach.obstacle;
}

int deferred_free_check(char *reason, size_t size)
{
    DEMAND_MAIN_THREAD();
    int error = got_check(&late.free_patch, 1, reason, size);
    return error ? error : got_check(&late.sized_free_patch, 1, reason, size);
}

static void restore(void)
{
    got_restore(&late.free_patch);
    got_restore(&late.sized_free_patch);
}

/* Many do without the second. */
static int replace_imports(void)
{
    struct got_object executable;
    int error = got_find_executable(&executable);
    if (!error)
        error = got_replace(&executable, "free", (void *)stand_in_free, &late.free_patch);
    if (!error && real.sized_free)
        error = got_replace(&executable, "sdallocx", (void *)stand_in_sized_free,
                            &late.sized_free_patch);
    if (error == -ENOENT && late.free_patch.count)
        error = 0;
    if (error)
        restore();
    return error;
}

/* An allocator that a server brings along may have more functions that free. So something of
 * the server's is freed by it, and has to come by here. Where it does not say how it
 * allocates, it is not asked. */
static bool is_reached(void)
{
    void *(*allocate)(size_t bytes);
    void (*release)(void *memory);
    const char *prefix = symbol_find("zfree") ? "z" : "valkey_";
    find_function(prefix, "malloc", &allocate);
    find_function(prefix, "free", &release);
    void *memory = allocate && release ? allocate(1) : NULL;
    if (!memory)
        return true;
    size_t before = noted();
    late.putting_off = true;
    release(memory);
    late.putting_off = false;
    return noted() > before;
}

int deferred_free_install(bool (*free_fresh)(void *memory),
                          bool (*free_past)(void *memory))
{
    DEMAND_MAIN_THREAD();
    if (reach.obstacle[0])
        return -ENOENT;
    late.main_thread = pthread_self();
    real.free_fresh = free_fresh;
    real.free_past = free_past;
    late.small_bytes = late.large_bytes = 0;
    late.looked = 0;
    late.notes = memory_map(NOTES_MAX * sizeof(*late.notes));
    if (!late.notes)
        return tell_obstacle(-ENOMEM);
    late.is_kept_back = NULL;
    late.evictable = false;
    int error = reach.entries ? 0 : replace_imports();
    if (!error && !is_reached()) {
        restore();
        error = -ENXIO;
    }
    if (error) {
        memory_unmap(late.notes, NOTES_MAX * sizeof(*late.notes));
        late.notes = NULL;
    }
    return tell_obstacle(error);
}

bool deferred_free_is_installed(void)
{
    return late.notes != NULL;
}

void deferred_free_begin(bool evictable, bool (*is_kept_back)(const void *memory))
{
    DEMAND_MAIN_THREAD();
    late.is_kept_back = is_kept_back;
    late.evictable = evictable;
    late.putting_off = deferred_free_is_installed();
    short_lock_take(&late.lock);
    atomic_store_explicit(&late.open, late.putting_off && evictable,
                          memory_order_relaxed);
    late.openings++;
    if (late.looked > noted()) /* the last ones have been freed since */
        late.looked = noted();
    short_lock_release(&late.lock);
}

bool deferred_free_end(void)
{
    DEMAND_MAIN_THREAD();
    late.putting_off = false;
    if (!deferred_free_is_open() && !late.holder_is_late)
        return true;
    atomic_store_explicit(&late.open, false, memory_order_relaxed);
    /* Whoever has it saw it open. */
    late.holder_is_late =
        short_lock_take_within(&late.lock, late.holder_is_late ? 0 : LOCK_IN_TIME_USEC);
    if (!late.holder_is_late)
        short_lock_release(&late.lock);
    return !late.holder_is_late;
}

/* ---- for whoever evicts ---------------------------------------------------------- */

size_t deferred_free_hold(struct iovec *memory, size_t most)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    size_t found = 0;
    short_lock_take(&late.lock);
    size_t count =
        late.open ? atomic_load_explicit(&late.count, memory_order_acquire) : 0;
    for (; late.looked < count && found < most; late.looked++, found++) {
        void *note = late.notes[late.looked];
        memory[found] = (struct iovec){note, real.usable_size(note)};
    }
    return found;
}

uint64_t deferred_free_opening(void)
{
    DEMAND_HELD(&late.lock);
    return late.openings;
}

bool deferred_free_hold_again(uint64_t opening)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    short_lock_take(&late.lock);
    return deferred_free_is_open() && late.openings == opening;
}

void deferred_free_let_go(void)
{
    DEMAND_HELD(&late.lock);
    short_lock_release(&late.lock);
}

bool deferred_free_is_open(void)
{
    return atomic_load_explicit(&late.open, memory_order_relaxed);
}

/* ---- freeing --------------------------------------------------------------------- */

bool deferred_free_some(uint64_t usec)
{
    DEMAND_MAIN_THREAD();
    uint64_t until = noted() ? clock_usec() + usec : 0;
    while (noted() && !late.holder_is_late) {
        for (int i = 0; i < FREES_BETWEEN_LOOKS && noted(); i++)
            free_one();
        if (clock_usec() >= until)
            break;
    }
    return noted() != 0;
}

void deferred_free_remove(void)
{
    DEMAND_MAIN_THREAD();
    deferred_free_end();
    while (deferred_free_some(UINT32_MAX))
        ;
    restore();
    memory_unmap(late.notes, NOTES_MAX * sizeof(*late.notes));
    late.notes = NULL;
}

/* The notes are shared with the parent, whose memory they are about. */
void deferred_free_forked(bool leave_past)
{
    late.leaves_past = leave_past;
    late.putting_off = false;
    atomic_store_explicit(&late.count, 0, memory_order_relaxed);
    atomic_store_explicit(&late.open, false, memory_order_relaxed);
    late.holder_is_late = false;
    short_lock_release(&late.lock);
}

uint64_t deferred_free_bytes(void)
{
    return late.small_bytes + late.large_bytes;
}
