#include "kernel/contract.h"

#ifdef RDB_UFFD_CHECKS

#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Locks that are held: fewer than there are threads, since few hold more than two. */
#define HELD_MAX   128
#define LINE_BYTES 512

/* `thread` 0: a free place. The rest is its thread's, which alone looks at it: others
 * compare `thread`. */
static struct {
    _Atomic(const void *) lock;
    _Atomic int32_t thread;
    _Atomic uint32_t rank;
} held[HELD_MAX];

static _Atomic bool suspended;

static int32_t own_id(void)
{
    return (int32_t)syscall(SYS_gettid);
}

/* ---- a broken demand ------------------------------------------------------------- */

struct line {
    char text[LINE_BYTES];
    size_t length;
};

static void add(struct line *line, const char *text)
{
    size_t length = strlen(text), room = LINE_BYTES - line->length;
    if (length > room)
        length = room;
    memcpy(line->text + line->length, text, length);
    line->length += length;
}

static void add_number(struct line *line, unsigned number)
{
    char digits[12];
    size_t at = sizeof(digits) - 1;
    digits[at] = '\0';
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    add(line, digits + at);
}

void contract_broken(const char *file, int line, const char *function,
                     const char *demanded)
{
    const char *name = own_thread_name();
    struct line told = {.length = 0};
    add(&told, "uffd: ");
    add(&told, file);
    add(&told, ":");
    add_number(&told, (unsigned)line);
    add(&told, ": ");
    add(&told, function);
    add(&told, "() demands ");
    add(&told, demanded);
    add(&told, ", called on ");
    add(&told, name                        ? name
               : contract_on_main_thread() ? "the main thread"
                                           : "another thread");
    add(&told, "\n");
    (void)!write(STDERR_FILENO, told.text, told.length);
    abort();
}

bool contract_is_suspended(void)
{
    return atomic_load_explicit(&suspended, memory_order_relaxed);
}

void contract_suspend(bool on)
{
    atomic_store_explicit(&suspended, on, memory_order_relaxed);
}

/* ---- threads --------------------------------------------------------------------- */

bool contract_on_main_thread(void)
{
    return own_id() == (int32_t)getpid();
}

static bool is_called(const char *name)
{
    const char *own = own_thread_name();
    return own && strcmp(own, name) == 0;
}

bool contract_on_thread(const char *name)
{
    return is_called(name) || !own_thread_exists(name);
}

bool contract_not_on_thread(const char *name)
{
    return !is_called(name);
}

/* ---- locks ----------------------------------------------------------------------- */

void contract_taken(const void *lock, enum lock_rank rank)
{
    int32_t self = own_id();
    for (size_t i = 0; i < HELD_MAX; i++) {
        int32_t none = 0;
        if (!atomic_compare_exchange_strong_explicit(
                &held[i].thread, &none, self, memory_order_relaxed, memory_order_relaxed))
            continue;
        atomic_store_explicit(&held[i].rank, rank, memory_order_relaxed);
        atomic_store_explicit(&held[i].lock, lock, memory_order_relaxed);
        return;
    }
    DEMAND(!"a place for one more lock that is held");
}

static bool is_own(size_t i, int32_t self)
{
    return atomic_load_explicit(&held[i].thread, memory_order_relaxed) == self &&
           atomic_load_explicit(&held[i].lock, memory_order_relaxed);
}

/* A forked child gives back what its parent has taken, under another id. */
void contract_released(const void *lock)
{
    int32_t self = own_id();
    for (size_t i = 0; i < HELD_MAX; i++)
        if (is_own(i, self) &&
            atomic_load_explicit(&held[i].lock, memory_order_relaxed) == lock) {
            atomic_store_explicit(&held[i].lock, NULL, memory_order_relaxed);
            atomic_store_explicit(&held[i].thread, 0, memory_order_relaxed);
            return;
        }
}

bool contract_holds(const void *lock)
{
    int32_t self = own_id();
    for (size_t i = 0; i < HELD_MAX; i++)
        if (is_own(i, self) &&
            atomic_load_explicit(&held[i].lock, memory_order_relaxed) == lock)
            return true;
    return false;
}

bool contract_may_take(enum lock_rank rank)
{
    int32_t self = own_id();
    if (is_called(THREAD_FAULT_SERVER))
        return false;
    for (size_t i = 0; i < HELD_MAX; i++)
        if (is_own(i, self) &&
            atomic_load_explicit(&held[i].rank, memory_order_relaxed) >= rank)
            return false;
    return true;
}

#endif
