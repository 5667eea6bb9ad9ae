#include "host/late_free.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "host/got.h"
#include "kernel/memory.h"
#include "kernel/symbols.h"
#include "kernel/thread.h"

#define NOTES_MAX           (256 * 1024)
#define FREES_BETWEEN_LOOKS 64
/* Made up for with every free() that is not put off any more. */
#define FREES_MADE_UP 2

static struct {
    bool putting_off;
    pthread_t main_thread;
    void **notes;
    size_t count;
    uint64_t bytes;
    struct got_patch free_patch, sized_free_patch;
} late;

/* The server's allocator: libc's of the same names may be nearer to us. */
static struct {
    void (*free)(void *memory);
    void (*sized_free)(void *memory, size_t size, int flags);
    size_t (*usable_size)(void *memory);
    bool (*free_fresh)(void *memory);
} real;

static void free_now(void *memory)
{
    if (!real.free_fresh(memory))
        real.free(memory);
}

static void free_one(void)
{
    void *memory = late.notes[--late.count];
    late.bytes -= real.usable_size(memory);
    free_now(memory);
}

static void stand_in_free(void *memory)
{
    if (!memory || !pthread_equal(pthread_self(), late.main_thread)) {
        real.free(memory);
        return;
    }
    if (!late.putting_off) {
        free_now(memory);
        for (int i = 0; i < FREES_MADE_UP && late.count; i++)
            free_one();
        return;
    }
    size_t bytes = real.usable_size(memory);
    if (late.count == NOTES_MAX || bytes > LATE_FREE_BYTES_MAX - late.bytes) {
        free_now(memory);
        return;
    }
    late.notes[late.count++] = memory;
    late.bytes += bytes;
}

/* Valkey tells the allocator the size, to save it looking. */
static void stand_in_sized_free(void *memory, size_t size, int flags)
{
    if (flags || !pthread_equal(pthread_self(), late.main_thread))
        real.sized_free(memory, size, flags);
    else
        stand_in_free(memory);
}

static int find_real_functions(void)
{
    void *release = symbol_find("free"), *size = symbol_find("malloc_usable_size");
    void *sized = symbol_find("sdallocx");
    memcpy(&real.free, &release, sizeof(release));
    memcpy(&real.sized_free, &sized, sizeof(sized));
    memcpy(&real.usable_size, &size, sizeof(size));
    return release && size ? 0 : -ENOENT;
}

static void restore(void)
{
    got_restore(&late.free_patch);
    got_restore(&late.sized_free_patch);
    late.free_patch.count = late.sized_free_patch.count = 0;
}

int late_free_install(bool (*free_fresh)(void *memory))
{
    struct got_object executable;
    if (find_real_functions() != 0)
        return -ENOENT;
    late.main_thread = pthread_self();
    real.free_fresh = free_fresh;
    late.notes = memory_map(NOTES_MAX * sizeof(*late.notes));
    if (!late.notes)
        return -ENOMEM;
    int error = got_find_executable(&executable);
    if (!error)
        error = got_replace(&executable, "free", (void *)stand_in_free, &late.free_patch);
    if (!error && real.sized_free)
        error = got_replace(&executable, "sdallocx", (void *)stand_in_sized_free,
                            &late.sized_free_patch);
    /* Many do without that one. */
    if (error == -ENOENT && late.free_patch.count)
        error = 0;
    if (error) {
        restore();
        memory_unmap(late.notes, NOTES_MAX * sizeof(*late.notes));
        late.notes = NULL;
    }
    return error;
}

void late_free_begin(void)
{
    late.putting_off = late.notes != NULL;
}

void late_free_end(void)
{
    late.putting_off = false;
}

bool late_free_some(uint64_t usec)
{
    uint64_t until = late.count ? clock_usec() + usec : 0;
    while (late.count) {
        for (int i = 0; i < FREES_BETWEEN_LOOKS && late.count; i++)
            free_one();
        if (clock_usec() >= until)
            break;
    }
    return late.count != 0;
}

void late_free_remove(void)
{
    late_free_end();
    while (late_free_some(UINT32_MAX))
        ;
    restore();
    memory_unmap(late.notes, NOTES_MAX * sizeof(*late.notes));
    late.notes = NULL;
}

/* The notes are shared with the parent, whose memory they are about. */
void late_free_forked(void)
{
    late.putting_off = false;
    late.count = 0;
}

uint64_t late_free_bytes(void)
{
    return late.bytes;
}
