#include "host/guard.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host/got.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/thread.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif

/* FAULT_SLOW_GUARD */
#define SLOW_USEC 50000
/* A call takes microseconds, unless its thread has lost its CPU. */
#define CALL_LOOK_USEC 20

/* ---- asking ---------------------------------------------------------------------- */

static bool never_frozen(void)
{
    return false;
}

static void not_told(void *start, size_t length)
{
    (void)start, (void)length;
}

/* What is not frozen is asked for nothing else. */
static const struct guard_operations at_rest = {.frozen = never_frozen,
                                                .mapped = not_told};

static const struct guard_operations *_Atomic operations = &at_rest;
/* Threads that are asking. */
static _Atomic unsigned asking;

/* Before each operation, and with stop_asking() after it: the threads of the allocator and
 * others may be anywhere in here when the module goes. Either guard_remove() sees that one
 * is asking, or that one sees that there is nobody to ask. */
static const struct guard_operations *begin_asking(void)
{
    atomic_fetch_add_explicit(&asking, 1, memory_order_seq_cst);
    return atomic_load_explicit(&operations, memory_order_seq_cst);
}

static void stop_asking(void)
{
    atomic_fetch_sub_explicit(&asking, 1, memory_order_release);
}

static void ask_nobody(void)
{
    atomic_store_explicit(&operations, &at_rest, memory_order_seq_cst);
    while (atomic_load_explicit(&asking, memory_order_seq_cst))
        sched_yield();
}

/* ---- the calls ------------------------------------------------------------------- */

/* Threads amid a call that takes memory away. */
static _Atomic unsigned in_calls;

/* Around the look whether anything is frozen and the call that follows from it: who found
 * nothing frozen may lose its CPU between the two, and its call would take the marks of a
 * snapshot that has begun meanwhile. It says first that it is here and looks then; who
 * freezes says so first, and then waits for those that are here. */
static void enter_call(void)
{
    atomic_fetch_add_explicit(&in_calls, 1, memory_order_seq_cst);
    /* frozen() loads with acquire order only, which may come before the addition is seen. */
    atomic_thread_fence(memory_order_seq_cst);
}

static void leave_call(void)
{
    atomic_fetch_sub_explicit(&in_calls, 1, memory_order_release);
}

/* The look is over, the call not made yet. */
static void lose_cpu(void)
{
    if (fault_point(FAULT_SLOW_GUARD) && thread_own_id() != getpid())
        sleep_usec(SLOW_USEC);
    if (fault_point(FAULT_HUNG_GUARD) && thread_own_id() != getpid())
        fault_point_hang(FAULT_HUNG_GUARD);
}

int guard_wait_for_calls(void)
{
    DEMAND_MAIN_THREAD();
    static bool caller_is_late;
    uint64_t until = clock_usec() + (caller_is_late ? 0 : LOCK_IN_TIME_USEC);
    bool late = false;
    while (atomic_load_explicit(&in_calls, memory_order_seq_cst) && !late) {
        sleep_usec(CALL_LOOK_USEC);
        late = clock_usec() >= until;
    }
    caller_is_late = late;
    return late ? -EBUSY : 0;
}

static bool drops_pages(int advice)
{
    return advice == MADV_DONTNEED || advice == MADV_FREE || advice == MADV_REMOVE ||
           advice == MADV_DONTNEED_LOCKED;
}

/* 0, or the errno with which the call is to be refused. A free() that gives
 * memory back must not change errno under its caller, so neither do these. */
static int ask_to_preserve(const void *start, size_t length, bool may_refuse)
{
    if (!length || fault_point(FAULT_SKIP_ADVICE))
        return 0;
    int callers_errno = errno, error = 0;
    uint64_t from = (uint64_t)(uintptr_t)start;
    const struct guard_operations *guard = begin_asking();
    if (guard->frozen())
        error = guard->preserve(from, from + length, may_refuse);
    stop_asking();
    errno = callers_errno;
    return may_refuse ? -error : 0;
}

static void tell_mapped(void *start, size_t length)
{
    int callers_errno = errno;
    begin_asking()->mapped(start, length);
    stop_asking();
    errno = callers_errno;
}

static int drop_pages(void *start, size_t length, int advice)
{
    enter_call();
    int result = -1, refused = ask_to_preserve(start, length, true);
    lose_cpu();
    if (refused)
        errno = refused;
    else
        result = madvise(start, length, advice);
    leave_call();
    return result;
}

static int guarded_madvise(void *start, size_t length, int advice)
{
    return drops_pages(advice) ? drop_pages(start, length, advice)
                               : madvise(start, length, advice);
}

static bool ask_if_past(const void *start, size_t length)
{
    uint64_t from = (uint64_t)(uintptr_t)start;
    if (!length || fault_point(FAULT_SKIP_ADVICE))
        return false;
    const struct guard_operations *guard = begin_asking();
    bool past = guard->frozen() && guard->is_past(from, from + length);
    stop_asking();
    return past;
}

static bool ask_to_put_off(const void *start, size_t length)
{
    uint64_t from = (uint64_t)(uintptr_t)start;
    if (!ask_if_past(start, length))
        return false;
    int callers_errno = errno;
    const struct guard_operations *guard = begin_asking();
    bool taken = guard->frozen() && guard->put_off(from, from + length);
    stop_asking();
    errno = callers_errno;
    return taken;
}

static int unmap(void *start, size_t length)
{
    if (ask_to_put_off(start, length))
        return 0;
    ask_to_preserve(start, length, false);
    lose_cpu();
    int result = munmap(start, length);
    tell_mapped(NULL, 0);
    return result;
}

static int guarded_munmap(void *start, size_t length)
{
    enter_call();
    int result = unmap(start, length);
    leave_call();
    return result;
}

static void *ask_for_prefaulted(size_t length)
{
    const struct guard_operations *guard = begin_asking();
    void *prefaulted = guard->frozen() ? guard->prefaulted(length) : NULL;
    stop_asking();
    return prefaulted;
}

static void *map(void *wanted, size_t length, int protection, int flags, int descriptor,
                 off_t offset)
{
    int plain = MAP_PRIVATE | MAP_ANONYMOUS;
    void *prefaulted = NULL;
    if (!wanted && (flags & ~MAP_NORESERVE) == plain &&
        protection == (PROT_READ | PROT_WRITE))
        prefaulted = ask_for_prefaulted(length);
    return prefaulted ? prefaulted
                      : mmap(wanted, length, protection, flags, descriptor, offset);
}

/* How jemalloc decommits where memory is not overcommitted; it does without. */
static void *map_over(void *wanted, size_t length, int protection, int flags,
                      int descriptor, off_t offset)
{
    enter_call();
    void *start = MAP_FAILED;
    if (protection == PROT_NONE && ask_if_past(wanted, length))
        errno = ENOMEM;
    else {
        ask_to_preserve(wanted, length, false);
        lose_cpu();
        start = mmap(wanted, length, protection, flags, descriptor, offset);
    }
    leave_call();
    return start;
}

static void *guarded_mmap(void *wanted, size_t length, int protection, int flags,
                          int descriptor, off_t offset)
{
    void *start = flags & MAP_FIXED
                      ? map_over(wanted, length, protection, flags, descriptor, offset)
                      : map(wanted, length, protection, flags, descriptor, offset);
    if (start != MAP_FAILED && (flags & MAP_ANONYMOUS) && (flags & MAP_PRIVATE) &&
        (protection & PROT_WRITE))
        tell_mapped(start, length);
    return start;
}

static void *guarded_mremap(void *start, size_t length, size_t new_length, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    void *wanted = flags & MREMAP_FIXED ? va_arg(arguments, void *) : NULL;
    va_end(arguments);
    void *result = MAP_FAILED;
    enter_call();
    if (ask_if_past(start, length) || (wanted && ask_if_past(wanted, new_length)))
        errno = ENOMEM;
    else {
        lose_cpu();
        result = mremap(start, length, new_length, flags, wanted);
        tell_mapped(NULL, 0);
    }
    leave_call();
    return result;
}

/* The same call under the names by which it may be imported. */
static const struct {
    const char *symbol;
    void *replacement;
} guarded[] = {
    {"madvise", (void *)guarded_madvise}, {"munmap", (void *)guarded_munmap},
    {"mmap", (void *)guarded_mmap},       {"mmap64", (void *)guarded_mmap},
    {"mremap", (void *)guarded_mremap},
};
#define GUARDED (sizeof(guarded) / sizeof(guarded[0]))

static struct got_patch patches[2 * GUARDED];

static int patch_object(const struct got_object *object, struct got_patch *first)
{
    for (size_t i = 0; i < GUARDED; i++) {
        int error =
            got_replace(object, guarded[i].symbol, guarded[i].replacement, &first[i]);
        if (error && error != -ENOENT)
            return error;
    }
    return 0;
}

int guard_install(const struct guard_operations *ops, const void *allocator_function)
{
    DEMAND_MAIN_THREAD();
    struct got_object allocator, executable;
    int error = got_find_object(allocator_function, &allocator);
    if (!error)
        error = got_find_executable(&executable);
    if (error)
        return error;
    atomic_store_explicit(&operations, ops, memory_order_seq_cst);
    error = patch_object(&allocator, patches);
    if (!error && executable.dynamic != allocator.dynamic)
        error = patch_object(&executable, patches + GUARDED);
    if (error)
        guard_remove();
    return error;
}

int guard_check(char *reason, size_t size)
{
    DEMAND_MAIN_THREAD();
    return got_check(patches, 2 * GUARDED, reason, size);
}

void guard_remove(void)
{
    DEMAND_MAIN_THREAD();
    for (size_t i = 0; i < 2 * GUARDED; i++)
        got_restore(&patches[i]);
    ask_nobody();
}
