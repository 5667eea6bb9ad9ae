#include "kernel/fatal_signals.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "kernel/contract.h"
#include "kernel/guarded_copy.h"

static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
#define FATAL  (sizeof(fatal) / sizeof(fatal[0]))
#define LAYERS 4

/* One that was behind us. */
struct layer {
    struct sigaction action;
    _Atomic bool spent;                 /* it was to be called once, and was */
    _Atomic(const siginfo_t *) passing; /* what it is called with, NULL: it is not */
};

/* They stay when we have gone: somebody may still call us. */
static struct behind {
    struct layer layers[LAYERS]; /* the last one is the nearest */
    _Atomic size_t count;
} behind[FATAL];

static struct {
    void (*crashing)(void);
    void (*over)(void);
    _Atomic bool installed;
} front;

static size_t place_of(int signal)
{
    size_t i = 0;
    while (i < FATAL - 1 && fatal[i] != signal)
        i++;
    return i;
}

void fatal_signals_take_out(sigset_t *set)
{
    for (size_t i = 0; i < FATAL; i++)
        sigdelset(set, fatal[i]);
}

/* ---- the handler ----------------------------------------------------------------- */

/* The default is the kernel's: it ends the process when the instruction runs again, or
 * when what was sent arrives again. */
static void end_by_default(int signal, const siginfo_t *info)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigaction(signal, &standard, NULL);
    if (info->si_code <= 0)
        raise(signal);
}

/* The nearest; or, called by one of them, the one below it. NULL: there is none. */
static struct layer *next_layer(struct behind *all, const siginfo_t *info)
{
    size_t next = atomic_load_explicit(&all->count, memory_order_acquire);
    for (size_t i = 0; i < next; i++)
        if (atomic_load_explicit(&all->layers[i].passing, memory_order_relaxed) == info)
            next = i;
    return next ? &all->layers[next - 1] : NULL;
}

/* The kernel has blocked what the nearest one blocks; only that a handler is there once is
 * for us to see to. */
static void call_layer(struct layer *layer, int signal, siginfo_t *info, void *context)
{
    const struct sigaction *action = &layer->action;
    bool once = action->sa_flags & (int)SA_RESETHAND;
    bool spent =
        once && atomic_exchange_explicit(&layer->spent, true, memory_order_seq_cst);
    if (spent || action->sa_handler == SIG_DFL ||
        (action->sa_handler == SIG_IGN && info->si_code > 0)) {
        end_by_default(signal, info);
        return;
    }
    if (action->sa_handler == SIG_IGN)
        return;
    atomic_store_explicit(&layer->passing, info, memory_order_relaxed);
    if (action->sa_flags & SA_SIGINFO)
        action->sa_sigaction(signal, info, context);
    else
        action->sa_handler(signal);
    atomic_store_explicit(&layer->passing, NULL, memory_order_relaxed);
}

static void call_behind(int signal, siginfo_t *info, void *context)
{
    struct layer *layer = next_layer(&behind[place_of(signal)], info);
    if (layer)
        call_layer(layer, signal, info, context);
    else
        end_by_default(signal, info);
}

static void on_signal(int signal, siginfo_t *info, void *context)
{
    int callers_errno = errno;
    if ((signal == SIGSEGV || signal == SIGBUS) && info->si_code > 0 &&
        guarded_copy_land(context))
        return;
    bool ours = atomic_load_explicit(&front.installed, memory_order_acquire);
    if (ours)
        front.crashing();
    errno = callers_errno;
    call_behind(signal, info, context);
    if (ours)
        front.over();
    errno = callers_errno;
}

/* ---- coming and going ------------------------------------------------------------ */

static bool is_ours(const struct sigaction *action)
{
    return (action->sa_flags & SA_SIGINFO) && action->sa_sigaction == on_signal;
}

/* What stands there now has not come since if it was here before: then those above it
 * have gone. False: there are too many. */
static bool note_behind(struct behind *all, const struct sigaction *now)
{
    size_t count = atomic_load_explicit(&all->count, memory_order_relaxed), i = 0;
    while (i < count && all->layers[i].action.sa_handler != now->sa_handler)
        i++;
    if (i == LAYERS)
        return false;
    struct layer *layer = &all->layers[i];
    layer->action = *now;
    atomic_store_explicit(&layer->spent, false, memory_order_relaxed);
    atomic_store_explicit(&layer->passing, NULL, memory_order_relaxed);
    atomic_store_explicit(&all->count, i + 1, memory_order_release);
    return true;
}

static int stand_before(size_t place)
{
    struct sigaction now, ours;
    if (sigaction(fatal[place], NULL, &now) != 0)
        return -errno;
    if (is_ours(&now) || !note_behind(&behind[place], &now))
        return 0;
    ours = now;
    ours.sa_sigaction = on_signal;
    ours.sa_flags = (now.sa_flags | SA_SIGINFO | SA_ONSTACK) & ~(int)SA_RESETHAND;
    return sigaction(fatal[place], &ours, NULL) == 0 ? 0 : -errno;
}

int fatal_signals_look(void)
{
    DEMAND_MAIN_THREAD();
    int error = 0;
    for (size_t i = 0; i < FATAL && !error; i++)
        error = stand_before(i);
    return error;
}

int fatal_signals_install(void (*crashing)(void), void (*over)(void))
{
    DEMAND_MAIN_THREAD();
    front.crashing = crashing;
    front.over = over;
    atomic_store_explicit(&front.installed, true, memory_order_release);
    return fatal_signals_look();
}

/* Who is put in front again calls us for what was below him. */
static void put_back(size_t place)
{
    struct behind *all = &behind[place];
    size_t count = atomic_load_explicit(&all->count, memory_order_relaxed);
    struct sigaction now;
    if (sigaction(fatal[place], NULL, &now) != 0 || !is_ours(&now))
        return;
    sigaction(fatal[place], &all->layers[count - 1].action, NULL);
    if (count > 1)
        atomic_store_explicit(&all->count, count - 1, memory_order_release);
}

void fatal_signals_remove(void)
{
    DEMAND_MAIN_THREAD();
    atomic_store_explicit(&front.installed, false, memory_order_release);
    for (size_t i = 0; i < FATAL; i++)
        put_back(i);
}
