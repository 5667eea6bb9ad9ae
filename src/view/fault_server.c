#include "view/fault_server.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/inherited_affinity.h"
#include "kernel/memory.h"
#include "kernel/userfaultfd.h"
#include "memory/metadata.h"
#include "view/forgoing.h"

#define STACK_BYTES       (256 * 1024)
#define MESSAGES_PER_READ 32
/* Of a range that is to be preserved, between two looks at the faults: some 20 us. */
#define PAGES_PER_LOOK 32
/* After a huge page has been split: the writer is on this CPU, and it is ours before it. */
#define SPLIT_PAUSE_MSEC 2

_Static_assert(PAGES_PER_LOOK <= AUDIT_PAGES_MAX && SPOOL_BATCH_PAGES <= AUDIT_PAGES_MAX,
               "what is copied at once is checked at once");

/* ABANDONED: by who posted it. It is the server's then, and the turn is too, until it has
 * seen that. */
enum request { REQUEST_NONE, REQUEST_POSTED, REQUEST_DONE, REQUEST_ABANDONED };

static void count(_Atomic uint64_t *counter, uint64_t more)
{
    atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* Only the serving thread waits for room or the spool. */
static void count_wait(struct fault_statistics *statistics, uint64_t usec)
{
    count(&statistics->writer_waits, 1);
    count(&statistics->writer_wait_usec, usec);
    if (usec >
        atomic_load_explicit(&statistics->writer_wait_longest_usec, memory_order_relaxed))
        atomic_store_explicit(&statistics->writer_wait_longest_usec, usec,
                              memory_order_relaxed);
}

/* ---- the serving thread ---------------------------------------------------------- */

static void lift_protection(struct fault_server *server, uint64_t start, uint64_t length)
{
    int descriptor = atomic_load_explicit(&server->userfaultfd, memory_order_relaxed);
    int error;
    do {
        error = userfaultfd_unprotect(descriptor, start, length);
    } while (error == -EAGAIN);
    count(&server->statistics.unprotects, 1);
    /* -ENOENT and the like: the range was unmapped meanwhile. Whoever waited
     * for it must still wake up and find out. */
    if (error)
        userfaultfd_wake(descriptor, start, length);
}

static void give_up(struct fault_server *server, int error)
{
    view_fail(server->view, error);
    server->failed(server->context, error);
}

static bool gave_up(const struct fault_server *server)
{
    return atomic_load_explicit(&server->view->error, memory_order_relaxed) != 0;
}

static enum fault_duty wanted_duty(const struct fault_server *server)
{
    return (enum fault_duty)atomic_load_explicit(&server->duty, memory_order_acquire);
}

/* No room, and the policy is to wait for it: until the limit is raised or the
 * snapshot ends. The saver goes on meanwhile, the writer does not. */
static int wait_for_room(struct fault_server *server, uint32_t page, const void *live)
{
    int error = -ENOBUFS;
    uint64_t began = clock_usec();
    atomic_store_explicit(&server->blocked_by_policy, true, memory_order_relaxed);
    while (error == -ENOBUFS && !gave_up(server) &&
           wanted_duty(server) == FAULTS_PRESERVED) {
        struct pollfd wake = {.fd = server->wake_event, .events = POLLIN};
        if (poll(&wake, 1, 100) > 0) {
            uint64_t ignored;
            (void)!read(server->wake_event, &ignored, sizeof(ignored));
        }
        count(&server->beats, 1);
        preserved_work(server->view->preserved);
        error = preserved_put(server->view->preserved, page, live);
    }
    atomic_store_explicit(&server->blocked_by_policy, false, memory_order_relaxed);
    count_wait(&server->statistics, clock_usec() - began);
    return error;
}

/* Preserves one page. After an error the snapshot has been given up. */
static int preserve_page(struct fault_server *server, uint64_t address)
{
    struct preserved *preserved = server->view->preserved;
    uint32_t page;
    if (fault_point(FAULT_SKIP_PRESERVE) || gave_up(server) ||
        !view_page_of(server->view, address, &page))
        return 0;
    const void *live = (const void *)(uintptr_t)address;
    fault_point_hang(FAULT_HUNG_SERVER);
    fault_point_crash(FAULT_WILD_SERVER);
    uint64_t waits = preserved->waits, wait_usec = preserved->wait_usec;
    int error = preserved_put(preserved, page, live);
    bool blocked = error == -ENOBUFS && preserved->policy == BUFFER_BLOCK;
    bool waited = blocked || preserved->waits != waits;
    if (blocked)
        error = wait_for_room(server, page, live);
    else if (waited)
        count_wait(&server->statistics, preserved->wait_usec - wait_usec);
    /* In all that time the page may have lost its mark and been written to. Not after
     * every fault: it takes a microsecond. */
    if (!error && waited && audit_covers(&server->audit, address))
        error = audit_check(&server->audit, address, 1);
    if (error && !gave_up(server))
        give_up(server, error);
    return error;
}

/* True if that was it. A message that was read together with one of the same page may be of
 * a writer that has gone on long ago, and looks at the allocator by now: its page has been
 * preserved. */
static bool forgo_if_metadata(struct fault_server *server, uint64_t address, pid_t writer)
{
    uint32_t page;
    if (writer != server->writer_id || !metadata_is_looked_at() || gave_up(server) ||
        !view_page_of(server->view, address, &page) ||
        preserved_has(server->view->preserved, page))
        return false;
    metadata_note(address);
    uint64_t block = round_down(address, HUGE_PAGE_BYTES);
    int error = server->may_forgo ? forgo_huge_page(server->view, &server->audit, block)
                                  : -ENOENT;
    if (error == -ENOENT)
        return false;
    if (error)
        give_up(server, error);
    lift_protection(server, block, HUGE_PAGE_BYTES);
    return true;
}

static void serve_fault(struct fault_server *server, const struct uffd_msg *message)
{
    if (message->event != UFFD_EVENT_PAGEFAULT)
        return;
    uint64_t address = round_down(message->arg.pagefault.address, PAGE_BYTES);
    if ((int32_t)message->arg.pagefault.feat.ptid ==
        atomic_load_explicit(&server->own_thread, memory_order_relaxed))
        count(&server->statistics.saver_faults, 1);
    if (!forgo_if_metadata(server, address, (pid_t)message->arg.pagefault.feat.ptid)) {
        preserve_page(server, address);
        lift_protection(server, address, PAGE_BYTES);
    }
    splitter_after_fault(&server->splitter, server->view, address);
    count(&server->statistics.faults, 1);
    count(&server->beats, 1);
    wait_histogram_add(server->waits, clock_nsec() - server->woken_nsec);
}

static void end_turn(struct fault_server *server)
{
    atomic_store_explicit(&server->request_state, REQUEST_NONE, memory_order_relaxed);
    atomic_store_explicit(&server->request_owner, 0, memory_order_release);
    futex_wake_all(&server->request_owner);
}

static void answer_request(struct fault_server *server, int result)
{
    uint32_t posted = REQUEST_POSTED;
    atomic_store_explicit(&server->request_result, result, memory_order_relaxed);
    if (atomic_compare_exchange_strong_explicit(&server->request_state, &posted,
                                                REQUEST_DONE, memory_order_acq_rel,
                                                memory_order_relaxed))
        futex_wake_all(&server->request_state);
    else
        end_turn(server);
}

/* What was copied for a request, and not for a fault, is the past only if the page is
 * protected still. */
static int check_copies(struct fault_server *server, uint64_t start, uint32_t pages)
{
    int error = gave_up(server) ? 0 : audit_check(&server->audit, start, pages);
    if (error)
        give_up(server, error);
    return error;
}

static int take_spooled_page(struct fault_server *server, uint64_t address,
                             uint32_t place)
{
    uint32_t page;
    if (!view_page_of(server->view, address, &page))
        return 0;
    return preserved_put_spooled(server->view->preserved, page, place);
}

/* Neighbours together, from `first` on; `*next`: where others begin. */
static int take_spooled_run(struct fault_server *server,
                            const struct preserve_request *request, size_t first,
                            size_t *next)
{
    uint64_t start = request->pages[first];
    size_t count = 1;
    int error = 0;
    while (first + count < request->page_count &&
           request->pages[first + count] == start + count * PAGE_BYTES)
        count++;
    *next = first + count;
    uint32_t copied = audit_find_new(&server->audit, start, (uint32_t)count);
    for (size_t i = first; i < *next && !error; i++)
        error = take_spooled_page(server, request->pages[i],
                                  request->place + (uint32_t)i * RAW_PIECE_PLACES);
    if (error) {
        give_up(server, error);
        return error;
    }
    return check_copies(server, start, copied);
}

static int take_spooled(struct fault_server *server,
                        const struct preserve_request *request)
{
    int error = 0;
    for (size_t i = 0; i < request->page_count && !error;)
        error = take_spooled_run(server, request, i, &i);
    return error;
}

/* The first pages of [start, end), at most PAGES_PER_LOOK. */
static int preserve_some(struct fault_server *server, uint64_t start, uint64_t end)
{
    uint32_t copied =
        audit_find_new(&server->audit, start, (uint32_t)((end - start) / PAGE_BYTES));
    int error = 0;
    for (uint64_t at = start; at < end && !error; at += PAGE_BYTES) {
        error = preserve_page(server, at);
        count(&server->beats, 1);
    }
    return error ? error : check_copies(server, start, copied);
}

/* Some pages of it, so that a writer's fault need not wait for a range of megabytes.
 * Returns whether there are more. */
static bool serve_request(struct fault_server *server, bool serving)
{
    uint32_t state = atomic_load_explicit(&server->request_state, memory_order_acquire);
    if (state == REQUEST_ABANDONED)
        end_turn(server);
    if (state != REQUEST_POSTED)
        return false;
    /* We looked at our duty before a freeze, and the request is from after it: to say that
     * there is nothing to preserve would have the past dropped. Nudged, we look again. */
    if (!serving && wanted_duty(server) == FAULTS_PRESERVED)
        return false;
    struct preserve_request *request = &server->request;
    int result = !serving || gave_up(server) ? -EAGAIN : take_spooled(server, request);
    if (!result && request->range.start < request->range.end) {
        uint64_t end = request->range.start + PAGES_PER_LOOK * PAGE_BYTES;
        bool more = end < request->range.end;
        result =
            preserve_some(server, request->range.start, more ? end : request->range.end);
        request->range.start = end;
        if (more && !result)
            return true;
    }
    answer_request(server, gave_up(server) ? -EAGAIN : result);
    return false;
}

/* On one CPU the writer and the fault server take turns: a fault is served in
 * about 10 us. On two, each waits for the other CPU to wake, 50 us, and a
 * scheduler that sees a free CPU keeps moving the writer there. So both stay
 * where the writer was when the snapshot began, as long as that CPU has time for
 * them. Real-time priority (from the start) lets no third program come between, nor
 * between a freeze and the server that has to take over. */
static void take_place(const struct fault_server *server)
{
    if (!atomic_load_explicit(&server->roaming, memory_order_relaxed))
        thread_stay_on(0, server->writer_cpu);
}

static void leave_place(const struct fault_server *server)
{
    thread_set_cpus(0, &server->writer_cpus);
}

/* One look at everything. `quiet`: no fault is waiting. Returns when to look again for what
 * nobody waits for, in milliseconds; -1: at the next nudge. */
static int serve_once(struct fault_server *server, int descriptor, bool quiet)
{
    struct uffd_msg messages[MESSAGES_PER_READ];
    count(&server->beats, 1);
    while (fault_point(FAULT_STUCK_SERVER) && !gave_up(server))
        sleep_usec(1000);
    fault_point_hang(FAULT_HUNG_WHEN_FROZEN);
    int got = userfaultfd_read(descriptor, messages, MESSAGES_PER_READ);
    for (int i = 0; i < got; i++)
        serve_fault(server, &messages[i]);
    bool more_requested = serve_request(server, true);
    if (!gave_up(server))
        preserved_tend(server->view->preserved);
    /* The writer that was just let go may be waiting for this very CPU: back to
     * sleep at once, and without a timer, which costs as much as the copy of a
     * page. What need not be done in a fault waits for the watchdog's next nudge. */
    if (got != 0 || !quiet || more_requested)
        return more_requested ? 0 : -1;
    int more = gave_up(server) ? 0 : preserved_work(server->view->preserved);
    if (more < 0)
        give_up(server, more);
    if (more > 0)
        return 0;
    bool behind = !gave_up(server) && splitter_catch_up(&server->splitter, server->view);
    return behind ? SPLIT_PAUSE_MSEC : -1;
}

/* Returns true if somebody nudged. */
static bool wait_for_work(struct fault_server *server, int descriptor, int timeout_msec)
{
    struct pollfd events[2] = {
        {.fd = server->wake_event, .events = POLLIN},
        {.fd = descriptor, .events = POLLIN},
    };
    atomic_store_explicit(&server->busy, false, memory_order_release);
    int ready = poll(events, descriptor >= 0 ? 2 : 1, timeout_msec);
    atomic_store_explicit(&server->busy, true, memory_order_relaxed);
    server->woken_nsec = clock_nsec();
    if (ready <= 0 || !(events[0].revents & POLLIN))
        return false;
    uint64_t ignored;
    (void)!read(server->wake_event, &ignored, sizeof(ignored));
    return true;
}

static void go_on_duty(struct fault_server *server, enum fault_duty duty)
{
    if (atomic_exchange_explicit(&server->on_duty, duty, memory_order_acq_rel) != duty)
        futex_wake_all(&server->on_duty);
}

static void *serve(void *argument)
{
    struct fault_server *server = argument;
    bool nudged = true, placed = false;
    int pause_msec = 0;
    thread_set_urgent(true);
    atomic_store_explicit(&server->own_id, thread_own_id(), memory_order_release);
    while (!atomic_load_explicit(&server->stopping, memory_order_acquire)) {
        enum fault_duty duty = wanted_duty(server);
        bool preserves = duty == FAULTS_PRESERVED;
        int descriptor =
            duty == FAULTS_PARKED
                ? -1
                : atomic_load_explicit(&server->userfaultfd, memory_order_relaxed);
        go_on_duty(server, duty);
        if (preserves && !placed)
            take_place(server);
        else if (!preserves && placed)
            leave_place(server);
        placed = preserves;
        if (preserves)
            pause_msec = serve_once(server, descriptor, nudged);
        else {
            fault_point_hang(FAULT_STALE_DUTY);
            serve_request(server, false);
        }
        nudged = wait_for_work(server, descriptor, preserves ? pause_msec : -1) ||
                 pause_msec >= 0;
    }
    return NULL;
}

/* ---- for the others -------------------------------------------------------------- */

static void packer_drained(void *context)
{
    fault_server_nudge(context);
}

int fault_server_start(struct fault_server *server, struct view *view,
                       void (*failed)(void *context, int error), void *context)
{
    memset(server, 0, sizeof(*server));
    server->view = view;
    server->failed = failed;
    server->context = context;
    atomic_store_explicit(&server->userfaultfd, -1, memory_order_relaxed);
    server->wake_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (server->wake_event < 0)
        return -errno;
    server->waits = memory_map(sizeof(*server->waits));
    if (!server->waits) {
        close(server->wake_event);
        return -ENOMEM;
    }
    int error =
        thread_start(&server->thread, THREAD_FAULT_SERVER, STACK_BYTES, serve, server);
    if (!error)
        error = preserved_start_packer(view->preserved, packer_drained, server);
    if (error)
        fault_server_stop(server);
    return error;
}

void fault_server_nudge(struct fault_server *server)
{
    uint64_t one = 1;
    (void)!write(server->wake_event, &one, sizeof(one));
}

void fault_server_stop(struct fault_server *server)
{
    DEMAND(wanted_duty(server) == FAULTS_PARKED);
    preserved_stop_packer(server->view->preserved);
    atomic_store_explicit(&server->stopping, true, memory_order_release);
    fault_server_nudge(server);
    thread_join(&server->thread);
    close(server->wake_event);
    memory_unmap(server->waits, sizeof(*server->waits));
}

static void set_duty(struct fault_server *server, enum fault_duty duty)
{
    atomic_store_explicit(&server->duty, duty, memory_order_release);
    fault_server_nudge(server);
}

/* False when it is missing. */
static bool wait_for_duty(struct fault_server *server, enum fault_duty duty)
{
    uint32_t now;
    while ((now = atomic_load_explicit(&server->on_duty, memory_order_acquire)) != duty) {
        if (fault_server_is_missing(server))
            return false;
        futex_wait(&server->on_duty, now, 100);
    }
    return true;
}

/* What it has to do is not what it does yet. */
static bool is_late(const struct fault_server *server)
{
    return atomic_load_explicit(&server->on_duty, memory_order_acquire) !=
           (uint32_t)wanted_duty(server);
}

pid_t fault_server_thread(const struct fault_server *server)
{
    return atomic_load_explicit(&server->own_id, memory_order_acquire);
}

bool fault_server_is_due(const struct fault_server *server)
{
    return atomic_load_explicit(&server->busy, memory_order_relaxed) || is_late(server) ||
           atomic_load_explicit(&server->request_state, memory_order_relaxed) ==
               REQUEST_POSTED;
}

bool fault_server_is_missing(const struct fault_server *server)
{
    return atomic_load_explicit(&server->missing, memory_order_acquire);
}

void fault_server_leave(struct fault_server *server)
{
    atomic_store_explicit(&server->missing, true, memory_order_seq_cst);
    futex_wake_all(&server->on_duty);
    futex_wake_all(&server->request_state);
    futex_wake_all(&server->request_owner);
}

/* Parked, and asleep since: what it had begun before has ended. */
bool fault_server_is_back(struct fault_server *server)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    if (!fault_server_is_missing(server))
        return true;
    if (wanted_duty(server) != FAULTS_PARKED || is_late(server) ||
        atomic_load_explicit(&server->busy, memory_order_acquire))
        return false;
    atomic_store_explicit(&server->missing, false, memory_order_release);
    return true;
}

static void release_writer(struct fault_server *server)
{
    thread_set_cpus(server->writer_id, &server->writer_cpus);
    inherited_affinity_undo(server->armed_at, server->writer_cpu, &server->writer_cpus);
}

void fault_server_arm(struct fault_server *server, int userfaultfd, bool may_forgo)
{
    DEMAND_MAIN_THREAD();
    DEMAND(wanted_duty(server) == FAULTS_PARKED);
    struct fault_statistics *statistics = &server->statistics;
    atomic_store_explicit(&statistics->faults, 0, memory_order_relaxed);
    atomic_store_explicit(&statistics->unprotects, 0, memory_order_relaxed);
    atomic_store_explicit(&statistics->writer_waits, 0, memory_order_relaxed);
    atomic_store_explicit(&statistics->writer_wait_usec, 0, memory_order_relaxed);
    atomic_store_explicit(&statistics->writer_wait_longest_usec, 0, memory_order_relaxed);
    wait_histogram_clear(server->waits);
    splitter_begin(&server->splitter, server->view);
    atomic_store_explicit(&statistics->saver_faults, 0, memory_order_relaxed);
    atomic_store_explicit(&server->roaming, false, memory_order_relaxed);
    server->may_forgo = may_forgo;
    server->writer_id = thread_own_id();
    server->armed_at = inherited_affinity_now();
    server->writer_cpu = thread_own_cpu();
    thread_get_cpus(0, &server->writer_cpus);
    thread_stay_on(0, server->writer_cpu);
    atomic_store_explicit(&server->userfaultfd, userfaultfd, memory_order_relaxed);
    set_duty(server, FAULTS_PRESERVED);
}

bool fault_server_disarm(struct fault_server *server)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    set_duty(server, FAULTS_PARKED);
    bool there = wait_for_duty(server, FAULTS_PARKED);
    release_writer(server);
    return there;
}

void fault_server_roam(struct fault_server *server)
{
    if (atomic_exchange_explicit(&server->roaming, true, memory_order_relaxed))
        return;
    thread_set_cpus(atomic_load_explicit(&server->own_id, memory_order_acquire),
                    &server->writer_cpus);
    thread_set_cpus(server->writer_id, &server->writer_cpus);
}

/* False when the server is missing. */
static bool take_turn(struct fault_server *server)
{
    uint32_t mine = (uint32_t)thread_own_id();
    uint32_t owner = 0;
    LOCK_WANTED(RANK_REQUEST);
    while (!atomic_compare_exchange_weak_explicit(&server->request_owner, &owner, mine,
                                                  memory_order_acquire,
                                                  memory_order_relaxed)) {
        if (fault_server_is_missing(server))
            return false;
        if (owner)
            futex_wait(&server->request_owner, owner, 10);
        owner = 0;
    }
    LOCK_TAKEN(&server->request_owner, RANK_REQUEST);
    return true;
}

/* The turn's owner has filled in the request. The turn is over, or the server's, when it
 * returns. */
static int post_request(struct fault_server *server)
{
    LOCK_RELEASED(&server->request_owner); /* nothing is taken while it waits */
    atomic_store_explicit(&server->request_state, REQUEST_POSTED, memory_order_release);
    fault_server_nudge(server);
    while (atomic_load_explicit(&server->request_state, memory_order_acquire) !=
           REQUEST_DONE) {
        uint32_t posted = REQUEST_POSTED;
        if (fault_server_is_missing(server) &&
            atomic_compare_exchange_strong_explicit(
                &server->request_state, &posted, REQUEST_ABANDONED, memory_order_acq_rel,
                memory_order_relaxed))
            return -EAGAIN;
        futex_wait(&server->request_state, REQUEST_POSTED, 100);
    }
    int result = atomic_load_explicit(&server->request_result, memory_order_relaxed);
    end_turn(server);
    return result;
}

int fault_server_preserve(struct fault_server *server, uint64_t start, uint64_t end)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    if (!take_turn(server))
        return -EAGAIN;
    server->request.range =
        (struct region){round_down(start, PAGE_BYTES), round_up(end, PAGE_BYTES)};
    server->request.page_count = 0;
    return post_request(server);
}

int fault_server_take_spooled(struct fault_server *server, const uint64_t *pages,
                              size_t count, uint32_t place)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    DEMAND(count <= SPOOL_BATCH_PAGES);
    DEMAND(server->view->preserved->policy == BUFFER_SPOOL);
    if (!take_turn(server))
        return -EAGAIN;
    server->request.range = (struct region){0, 0};
    memcpy(server->request.pages, pages, count * sizeof(*pages));
    server->request.page_count = count;
    server->request.place = place;
    return post_request(server);
}
