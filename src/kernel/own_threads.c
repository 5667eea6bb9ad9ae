#include "kernel/own_threads.h"

#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#define THREADS_MAX 64
#define NAME_BYTES  16

/* `start` 0: a free place. `end` 0: not yet, or not any more, valid; it publishes the
 * name. */
static struct {
    _Atomic uintptr_t start, end;
    char name[NAME_BYTES];
} threads[THREADS_MAX];

void own_thread_note(uintptr_t start, uintptr_t end, const char *name)
{
    for (size_t i = 0; i < THREADS_MAX; i++) {
        uintptr_t none = 0;
        if (!atomic_compare_exchange_strong_explicit(&threads[i].start, &none, start,
                                                     memory_order_acquire,
                                                     memory_order_relaxed))
            continue;
        strncpy(threads[i].name, name, NAME_BYTES - 1);
        atomic_store_explicit(&threads[i].end, end, memory_order_release);
        return;
    }
}

void own_thread_forget(uintptr_t start)
{
    for (size_t i = 0; i < THREADS_MAX; i++)
        if (atomic_load_explicit(&threads[i].start, memory_order_relaxed) == start) {
            atomic_store_explicit(&threads[i].end, 0, memory_order_relaxed);
            memset(threads[i].name, 0, NAME_BYTES);
            atomic_store_explicit(&threads[i].start, 0, memory_order_release);
        }
}

const char *own_thread_name(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    for (size_t i = 0; i < THREADS_MAX; i++)
        if (here < atomic_load_explicit(&threads[i].end, memory_order_acquire) &&
            here >= atomic_load_explicit(&threads[i].start, memory_order_relaxed))
            return threads[i].name;
    return NULL;
}

#ifdef RDB_UFFD_CHECKS
bool own_thread_exists(const char *name)
{
    for (size_t i = 0; i < THREADS_MAX; i++)
        if (atomic_load_explicit(&threads[i].end, memory_order_acquire) &&
            strcmp(threads[i].name, name) == 0)
            return true;
    return false;
}
#endif
