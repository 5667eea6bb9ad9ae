#include "value_child/pager.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/guarded_copy.h"
#include "kernel/handover.h"
#include "kernel/memory.h"
#include "kernel/own_threads.h"
#include "kernel/userfaultfd.h"
#include "value_child/inside.h"

#define STACK_BYTES (256 * 1024)
#define LOOK_MSEC   50
#define DROP_MSEC   4000
#define MESSAGES    16
#define BATCH_BYTES (PAGER_BATCH_PAGES * PAGE_BYTES)
/* Dropped at a time: a request costs the child a change of threads. */
#define DROP_PAGES 64

enum page_state { ABSENT, CLEAN, OWN };

static uint8_t *state_at(struct pager *pager, uint64_t address)
{
    uint32_t page;
    return view_page_of(pager->view, address, &page) ? &pager->states[page] : NULL;
}

/* ---- dropping -------------------------------------------------------------------- */

static uint64_t take_oldest(struct pager *pager)
{
    uint64_t address = pager->given[pager->given_first];
    pager->given_first = (pager->given_first + 1) % pager->given_capacity;
    pager->given_count--;
    return address;
}

static void note_held(struct pager *pager)
{
    uint64_t held = pager->given_count + pager->own_pages;
    atomic_store_explicit(&pager->held, held, memory_order_relaxed);
    if (held > atomic_load_explicit(&pager->pages_peak, memory_order_relaxed))
        atomic_store_explicit(&pager->pages_peak, held, memory_order_relaxed);
}

static bool wait_readable(int descriptor, int msec)
{
    struct pollfd waiting = {.fd = descriptor, .events = POLLIN};
    return poll(&waiting, 1, msec) > 0;
}

static int ask_child_to_drop(struct pager *pager, const struct region *drops,
                             size_t count)
{
    char done;
    if (send(pager->handover, drops, count * sizeof(*drops), MSG_NOSIGNAL) < 0)
        return -errno;
    if (!wait_readable(pager->handover, DROP_MSEC))
        return -ETIMEDOUT;
    return recv(pager->handover, &done, 1, 0) == 1 ? 0 : -EPIPE;
}

static int drop_some(struct pager *pager)
{
    struct region drops[DROP_PAGES];
    size_t count = 0;
    for (size_t i = 0; i < DROP_PAGES && pager->given_count; i++) {
        uint64_t address = take_oldest(pager);
        uint8_t *state = state_at(pager, address);
        if (*state != CLEAN)
            continue;
        *state = ABSENT;
        if (count && drops[count - 1].end == address)
            drops[count - 1].end += PAGE_BYTES;
        else
            drops[count++] = (struct region){address, address + PAGE_BYTES};
        atomic_fetch_add_explicit(&pager->dropped, 1, memory_order_relaxed);
    }
    return count ? ask_child_to_drop(pager, drops, count) : 0;
}

/* ---- giving ---------------------------------------------------------------------- */

static void note_given(struct pager *pager, uint64_t from, uint64_t end)
{
    for (uint64_t at = from; at < end; at += PAGE_BYTES) {
        uint64_t place =
            (pager->given_first + pager->given_count++) % pager->given_capacity;
        *state_at(pager, at) = CLEAN;
        pager->given[place] = at;
    }
    atomic_fetch_add_explicit(&pager->pages, (end - from) / PAGE_BYTES,
                              memory_order_relaxed);
    note_held(pager);
}

/* What stood there at the freeze. */
static int read_past(struct pager *pager, uint64_t from, uint64_t end)
{
    if (fault_point(FAULT_LIVE_PAGES))
        return guarded_copy(pager->batch, (const void *)(uintptr_t)from, end - from);
    return view_read(&pager->reader, pager->batch, from, end - from);
}

/* All of it absent. */
static int give_pages(struct pager *pager, uint64_t from, uint64_t end)
{
    int error = read_past(pager, from, end);
    const unsigned char *bytes = pager->batch;
    while (!error && from < end) {
        uint64_t done;
        error = userfaultfd_give(pager->userfaultfd, from, bytes, end - from, &done);
        note_given(pager, from, from + done);
        from += done;
        bytes += done;
        if (error == -EAGAIN)
            error = 0;
    }
    /* The child has unmapped it, or has put something of its own there. */
    if (error == -ENOENT || error == -EEXIST) {
        userfaultfd_wake(pager->userfaultfd, from, end - from);
        error = 0;
    }
    return error;
}

static bool is_absent(struct pager *pager, uint64_t address)
{
    const uint8_t *state = state_at(pager, address);
    return state && *state == ABSENT;
}

/* With what is absent around it. */
static int give_around(struct pager *pager, uint64_t address)
{
    const struct region *range = regions_find(pager->ranges, address);
    if (!range || !is_absent(pager, address))
        return userfaultfd_wake(pager->userfaultfd, address, PAGE_BYTES);
    uint64_t window = round_down(address, BATCH_BYTES), from = address,
             end = address + PAGE_BYTES;
    while (from > window && from > range->start && is_absent(pager, from - PAGE_BYTES))
        from -= PAGE_BYTES;
    while (end < window + BATCH_BYTES && end < range->end && is_absent(pager, end))
        end += PAGE_BYTES;
    int error = 0;
    while (!error && pager->given_count + (end - from) / PAGE_BYTES > pager->most_pages)
        error = drop_some(pager);
    if (!error)
        error = give_pages(pager, from, end);
    return error == -EFAULT && end - from > PAGE_BYTES
               ? give_pages(pager, address, address + PAGE_BYTES)
               : error;
}

/* The child wants to write. What was dropped meanwhile is asked for again. */
static int let_write(struct pager *pager, uint64_t address)
{
    uint8_t *state = state_at(pager, address);
    if (state && *state == CLEAN) {
        *state = OWN;
        if (++pager->own_pages > pager->most_own_pages)
            return -ENOMEM;
        note_held(pager);
    }
    int error;
    do {
        error = userfaultfd_unprotect(pager->userfaultfd, address, PAGE_BYTES);
    } while (error == -EAGAIN);
    return error == -ENOENT ? userfaultfd_wake(pager->userfaultfd, address, PAGE_BYTES)
                            : error;
}

static int serve_message(struct pager *pager, const struct uffd_msg *message)
{
    uint64_t address = round_down(message->arg.pagefault.address, PAGE_BYTES);
    if (message->event != UFFD_EVENT_PAGEFAULT)
        return 0;
    fault_point_hang(FAULT_HUNG_PAGER);
    if (message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP)
        return let_write(pager, address);
    return give_around(pager, address);
}

/* ---- the thread ------------------------------------------------------------------ */

static int take_descriptor(struct pager *pager)
{
    while (!atomic_load_explicit(&pager->stopping, memory_order_acquire))
        if (wait_readable(pager->handover, LOOK_MSEC)) {
            pager->userfaultfd = handover_receive(pager->handover);
            return pager->userfaultfd < 0 ? pager->userfaultfd : 0;
        }
    return -ECANCELED;
}

static int serve_all(struct pager *pager)
{
    struct uffd_msg messages[MESSAGES];
    while (!atomic_load_explicit(&pager->stopping, memory_order_acquire)) {
        if (!wait_readable(pager->userfaultfd, LOOK_MSEC))
            continue;
        int got = userfaultfd_read(pager->userfaultfd, messages, MESSAGES);
        for (int i = 0; i < got; i++) {
            int error = serve_message(pager, &messages[i]);
            if (error)
                return error;
        }
        if (got < 0)
            return got;
    }
    return 0;
}

static void *run_pager(void *argument)
{
    struct pager *pager = argument;
    view_reader_init(&pager->reader, pager->view);
    int error = take_descriptor(pager);
    if (!error)
        error = serve_all(pager);
    atomic_store_explicit(&pager->error, error, memory_order_release);
    return NULL;
}

static void release(struct pager *pager)
{
    memory_unmap(pager->states, pager->state_bytes);
    memory_unmap(pager->given, pager->given_capacity * sizeof(*pager->given));
    memory_unmap(pager->batch, BATCH_BYTES);
    pager->states = NULL;
    pager->given = NULL;
    pager->batch = NULL;
}

int pager_start(struct pager *pager)
{
    pager->userfaultfd = -1;
    pager->own_pages = pager->given_first = pager->given_count = 0;
    atomic_store_explicit(&pager->stopping, false, memory_order_relaxed);
    atomic_store_explicit(&pager->error, 0, memory_order_relaxed);
    pager->given_capacity = pager->most_pages + PAGER_BATCH_PAGES;
    pager->state_bytes = (uint64_t)pager->view->chunk_count * PAGES_PER_CHUNK;
    pager->states = memory_map(pager->state_bytes);
    pager->given = memory_map(pager->given_capacity * sizeof(*pager->given));
    pager->batch = memory_map(BATCH_BYTES);
    int error =
        pager->states && pager->given && pager->batch
            ? thread_start(&pager->thread, THREAD_PAGER, STACK_BYTES, run_pager, pager)
            : -ENOMEM;
    if (error)
        release(pager);
    return error;
}

void pager_stop(struct pager *pager)
{
    atomic_store_explicit(&pager->stopping, true, memory_order_release);
    if (!pager->states)
        return;
    thread_join(&pager->thread);
    if (pager->userfaultfd >= 0)
        close(pager->userfaultfd);
    pager->userfaultfd = -1;
    atomic_store_explicit(&pager->held, 0, memory_order_relaxed);
    release(pager);
}
