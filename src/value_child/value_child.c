#include "value_child/value_child.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/child.h"
#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "value_child/inside.h"

/* What is smaller is inherited as ever: it may be the C library's, or a thread's. */
#define RANGE_LEAST (UINT64_C(1) << 20)
/* On both sides of the calling thread's thread-local storage. */
#define OWN_BYTES (UINT64_C(1) << 20)
/* What a callback may take for itself: many collect a value before they write it. */
#define MEMORY_LEAST (UINT64_C(1) << 30)
#define PAGES_LEAST  (4 * PAGER_BATCH_PAGES)
/* So long a callback may be silent: no byte, no page. */
#define SILENCE_USEC       60000000
#define SHORT_SILENCE_USEC 500000
#define LOOK_MSEC          50

/* ---- what is not inherited ------------------------------------------------------- */

/* The C library's own heap stays, however large: its lock and lists are elsewhere, and
 * would not fit. */
static bool is_of_c_library(const struct region *region)
{
    uint64_t end = (uint64_t)(uintptr_t)sbrk(0);
    return region->start < end && end <= region->end;
}

static int choose_ranges(struct value_child *child, const struct region_set *heap)
{
    uint64_t own = (uint64_t)(uintptr_t)__builtin_thread_pointer();
    regions_clear(&child->ranges);
    for (size_t i = 0; i < heap->count; i++) {
        const struct region *region = &heap->regions[i];
        if (region->end - region->start < RANGE_LEAST || is_of_c_library(region))
            continue;
        int error = regions_add(&child->ranges, region->start, region->end);
        if (error)
            return error;
    }
    own = round_down(own, PAGE_BYTES);
    return regions_remove(&child->ranges, own - OWN_BYTES, own + OWN_BYTES);
}

static int advise(const struct value_child *child, struct region unused, int advice)
{
    int first = 0;
    if (unused.end > unused.start) /* some of it may have been taken meanwhile */
        advice_give((void *)(uintptr_t)unused.start, unused.end - unused.start, advice);
    for (size_t i = 0; i < child->ranges.count; i++) {
        const struct region *range = &child->ranges.regions[i];
        int error = advice_give((void *)(uintptr_t)range->start,
                                range->end - range->start, advice);
        first = first ? first : error;
    }
    return first;
}

/* ---- the fork -------------------------------------------------------------------- */

static void close_one(int *descriptor)
{
    if (*descriptor >= 0)
        close(*descriptor);
    *descriptor = -1;
}

static void close_sockets(struct value_child *child)
{
    close_one(&child->stream);
    close_one(&child->handover);
    if (child->inside) {
        close_one(&child->inside->stream);
        close_one(&child->inside->handover);
    }
}

static int make_sockets(struct value_child *child)
{
    int stream[2], handover[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, stream) != 0)
        return -errno;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, handover) != 0) {
        int error = -errno;
        close(stream[0]);
        close(stream[1]);
        return error;
    }
    child->stream = child->inside->outer_stream = stream[0];
    child->inside->stream = stream[1];
    child->handover = child->inside->outer_handover = handover[0];
    child->inside->handover = handover[1];
    return 0;
}

void value_child_forget(struct value_child *child)
{
    atomic_store_explicit(&child->values, 0, memory_order_relaxed);
    atomic_store_explicit(&child->fork_usec, 0, memory_order_relaxed);
    atomic_store_explicit(&child->wait_usec, 0, memory_order_relaxed);
    atomic_store_explicit(&child->pager.pages, 0, memory_order_relaxed);
    atomic_store_explicit(&child->pager.pages_peak, 0, memory_order_relaxed);
    atomic_store_explicit(&child->pager.dropped, 0, memory_order_relaxed);
}

int value_child_prepare(struct value_child *child)
{
    DEMAND_MAIN_THREAD();
    if (child->pid)
        return -EBUSY;
    if (fault_point(FAULT_NO_VALUE_CHILD))
        return -ENOMEM;
    if (!child->inside) {
        child->inside = memory_map_inherited(sizeof(*child->inside));
        child->storage = memory_map(INSIDE_RANGES_MAX * sizeof(*child->storage));
        if (!child->inside || !child->storage) {
            value_child_release(child);
            return -ENOMEM;
        }
        child->inside->stream = child->inside->handover = -1;
        regions_init(&child->ranges, child->storage, INSIDE_RANGES_MAX);
    }
    child->type_count = module_values_types(child->types, MODULE_TYPES_MAX);
    return child->stream < 0 ? make_sockets(child) : 0;
}

static int fork_without_heap(struct value_child *child)
{
    struct inside *inside = child->inside;
    int error = inside_expect(inside);
    if (error)
        return error;
    /* Ours is not patched: the C library's, with all that others want done at a fork. */
    pid_t pid = fault_point(FAULT_VALUE_CHILD_FORK) ? -1 : fork();
    if (pid == 0)
        inside_run();
    error = pid < 0 ? (errno ? -errno : -EAGAIN) : 0;
    inside_forget();
    if (error)
        return error;
    child->process = (int)syscall(SYS_pidfd_open, pid, 0);
    child->pid = pid;
    child_hide(pid);
    return 0;
}

int value_child_fork(struct value_child *child, const struct region_set *heap,
                     struct region unused, uint64_t memory, uint32_t writer_cpu)
{
    DEMAND_MAIN_THREAD();
    uint64_t began = clock_usec();
    struct inside *inside = child->inside;
    int error = choose_ranges(child, heap);
    if (error)
        return error;
    memcpy(inside->ranges, child->ranges.regions,
           child->ranges.count * sizeof(inside->ranges[0]));
    inside->range_count = child->ranges.count;
    inside->parent = getpid();
    inside->memory = memory > MEMORY_LEAST ? memory : MEMORY_LEAST;
    inside->writer_cpu = writer_cpu;
    inside->compress = child->compress;
    inside->ready = false;
    inside->buffered = 0;
    child->pager.most_pages =
        memory / PAGE_BYTES > PAGES_LEAST ? memory / PAGE_BYTES : PAGES_LEAST;
    child->pager.most_own_pages = inside->memory / PAGE_BYTES;
    error = advise(child, unused, MADV_DONTFORK);
    if (!error)
        error = fork_without_heap(child);
    advise(child, unused, MADV_DOFORK);
    atomic_store_explicit(&child->fork_usec, clock_usec() - began, memory_order_relaxed);
    return error;
}

/* ---- asking ---------------------------------------------------------------------- */

static struct value_child *child_of(struct value_source *source)
{
    return (struct value_child *)source;
}

/* The child would jump to what stands where the callbacks of a type are. */
static bool is_type(const struct value_child *child, frozen_address type)
{
    size_t i = 0;
    while (i < child->type_count && child->types[i] != type)
        i++;
    return !child->type_count || i < child->type_count;
}

/* Less than the socket holds, however slow the child is. */
static int request(const struct value_child *child, const struct inside_request *request)
{
    ssize_t sent = send(child->stream, request, sizeof(*request), MSG_NOSIGNAL);
    return sent == (ssize_t)sizeof(*request) ? 0 : -ECHILD;
}

static int ask(struct value_source *source, const struct wanted_value *wanted)
{
    struct value_child *child = child_of(source);
    if (!is_type(child, wanted->type))
        return -EBADMSG;
    if (child->asked - child->taken == VALUES_ASKED_MAX)
        return -EAGAIN;
    int error = request(child, &(struct inside_request){.value = *wanted});
    if (!error)
        child->asked++;
    return error;
}

/* Something has come, or the child has gone: 0. Whoever cancels the save fails the view. */
static int wait_for_bytes(struct value_child *child)
{
    uint64_t silence =
        fault_point(FAULT_SHORT_SILENCE) ? SHORT_SILENCE_USEC : SILENCE_USEC;
    for (;;) {
        struct pollfd waiting = {.fd = child->stream, .events = POLLIN};
        int ready = poll(&waiting, 1, LOOK_MSEC);
        uint64_t now = clock_usec();
        uint64_t pages = atomic_load_explicit(&child->pager.pages, memory_order_relaxed);
        int error = atomic_load_explicit(&child->pager.view->error, memory_order_acquire);
        if (error)
            return error;
        error = atomic_load_explicit(&child->pager.error, memory_order_acquire);
        if (error && error != -ESRCH)
            return error;
        if (ready > 0 || pages != child->pages_heard)
            child->heard_usec = now;
        child->pages_heard = pages;
        if (ready > 0)
            return 0;
        if (now - child->heard_usec > silence)
            return -ETIME;
    }
}

static int receive(struct value_child *child, void *to, size_t length)
{
    char *at = to;
    while (length) {
        int error = wait_for_bytes(child);
        if (error)
            return error;
        ssize_t got = recv(child->stream, at, length, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -ECHILD;
        at += got;
        length -= (size_t)got;
    }
    return 0;
}

static int take_pieces(struct value_child *child, struct rdb_encoder *encoder)
{
    static unsigned char piece[INSIDE_PIECE_BYTES]; /* one saver */
    for (;;) {
        uint32_t length;
        int error = receive(child, &length, sizeof(length));
        if (!error && length == INSIDE_DONE)
            return 0;
        if (!error && length > INSIDE_PIECE_BYTES)
            error = -EPROTO;
        if (!error)
            error = receive(child, piece, length);
        if (!error)
            error = rdb_encode_raw(encoder, piece, length);
        if (error)
            return error;
    }
}

/* What has been requested, of which nothing has been taken yet. */
static int take_bytes(struct value_child *child, struct rdb_encoder *encoder)
{
    uint64_t began = child->heard_usec = clock_usec();
    int error = take_pieces(child, encoder);
    atomic_fetch_add_explicit(&child->wait_usec, clock_usec() - began,
                              memory_order_relaxed);
    return error;
}

static int take(struct value_source *source, struct rdb_encoder *encoder)
{
    struct value_child *child = child_of(source);
    if (child->asked == child->taken)
        return -ENOENT;
    child->taken++;
    int error = take_bytes(child, encoder);
    if (!error)
        atomic_fetch_add_explicit(&child->values, 1, memory_order_relaxed);
    return error;
}

int value_child_save_aux(struct value_child *child, enum aux_place place,
                         struct rdb_encoder *encoder)
{
    DEMAND(child->asked == child->taken);
    int error = request(child, &(struct inside_request){.aux = place});
    return error ? error : take_bytes(child, encoder);
}

/* ---- beginning and end ----------------------------------------------------------- */

bool value_child_exists(const struct value_child *child)
{
    return child->pid != 0;
}

uint64_t value_child_bytes(const struct value_child *child)
{
    return atomic_load_explicit(&child->pager.held, memory_order_relaxed) * PAGE_BYTES;
}

int value_child_begin(struct value_child *child, struct view *view)
{
    child->source = (struct value_source){.ask = ask, .take = take};
    child->asked = child->taken = 0;
    child->pages_heard = 0;
    /* Its end is to be seen, so nobody else may have these. */
    close_one(&child->inside->stream);
    close_one(&child->inside->handover);
    child->pager.view = view;
    child->pager.ranges = &child->ranges;
    child->pager.handover = child->handover;
    return pager_start(&child->pager);
}

static void kill_child(const struct value_child *child)
{
    if (child->process < 0)
        kill(child->pid, SIGKILL);
    else
        syscall(SYS_pidfd_send_signal, child->process, SIGKILL, NULL, 0);
}

void value_child_end(struct value_child *child)
{
    if (child->pid) {
        pid_t ended;
        kill_child(child);
        do {
            /* The server's own wait may have been there first. */
            ended = waitpid(child->pid, NULL, 0);
        } while (ended < 0 && errno == EINTR);
        child_hide(0);
    }
    pager_stop(&child->pager);
    if (child->pid) {
        /* Those of the next one are made now, and not in its freeze. */
        close_sockets(child);
        make_sockets(child);
    }
    close_one(&child->process);
    child->pid = 0;
}

void value_child_init(struct value_child *child)
{
    memset(child, 0, sizeof(*child));
    child->stream = child->handover = child->process = -1;
}

void value_child_release(struct value_child *child)
{
    close_sockets(child);
    memory_unmap(child->inside, sizeof(*child->inside));
    memory_unmap(child->storage, INSIDE_RANGES_MAX * sizeof(*child->storage));
    child->inside = NULL;
    child->storage = NULL;
}
