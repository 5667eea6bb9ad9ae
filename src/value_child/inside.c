#include "value_child/inside.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "host/server_internal.h"
#include "host/server_stream.h"
#include "kernel/bare_thread.h"
#include "kernel/fault_points.h"
#include "kernel/handover.h"
#include "kernel/mappings.h"
#include "kernel/thread.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"

#define MODULE_VALUE_TYPE 7 /* RDB_TYPE_MODULE_2 */
/* Exit codes, for whoever looks with strace. */
#define NO_HEAP   3
#define ORPHAN    4
#define NO_MEMORY 5

static struct inside *in;
static struct sigaction before;
static bool expected; /* in the parent only around the fork */

bool inside_is_here(void)
{
    return expected && getpid() != in->parent;
}

/* ---- the heap -------------------------------------------------------------------- */

/* Shares thread-local storage with the thread that runs the module's code. */
static int run_drops(void *unused)
{
    (void)unused;
    for (;;) {
        long got = bare_call(SYS_read, in->handover, (long)in->drops, sizeof(in->drops));
        if (got <= 0)
            for (;;)
                bare_call(SYS_exit, 0, 0, 0);
        for (size_t i = 0; i < (size_t)got / sizeof(in->drops[0]); i++)
            bare_call(SYS_madvise, (long)in->drops[i].start,
                      (long)(in->drops[i].end - in->drops[i].start), MADV_DONTNEED);
        bare_call(SYS_write, in->handover, (long)"", 1);
    }
    return 0;
}

static int map_range(int descriptor, const struct region *range)
{
    uint64_t bytes = range->end - range->start;
    void *start = (void *)(uintptr_t)range->start;
    if (mmap(start, bytes, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1,
             0) != start)
        return -errno;
    madvise(start, bytes, MADV_NOHUGEPAGE);
    return userfaultfd_register_missing(descriptor, range->start, bytes);
}

/* The parent may have died before; and then no page would ever come. */
static void die_with_parent(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != in->parent)
        _exit(ORPHAN);
}

/* In a signal handler that may have come in the midst of the allocator. */
static void make_heap(void)
{
    die_with_parent();
    int descriptor = userfaultfd_open();
    int error =
        descriptor < 0
            ? descriptor
            : userfaultfd_handshake(descriptor, UFFD_FEATURE_PAGEFAULT_FLAG_WP, NULL);
    for (size_t i = 0; i < in->range_count && !error; i++)
        error = map_range(descriptor, &in->ranges[i]);
    if (!error)
        error =
            bare_thread_start(in->drop_stack, sizeof(in->drop_stack), run_drops, NULL);
    /* It stays open here: closed everywhere, missing pages would read as zeros. */
    if (!error)
        error = handover_send(in->handover, descriptor);
    if (error)
        _exit(NO_HEAP);
    in->ready = true;
}

static bool is_of_heap(uint64_t address)
{
    for (size_t i = 0; i < in->range_count; i++)
        if (address >= in->ranges[i].start && address < in->ranges[i].end)
            return true;
    return false;
}

static void on_touch(int signal, siginfo_t *info, void *context)
{
    if (getpid() == in->parent) {
        /* Another thread of the server, in this moment. */
        if (before.sa_flags & SA_SIGINFO)
            before.sa_sigaction(signal, info, context);
        else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN)
            before.sa_handler(signal);
        else
            sigaction(signal, &before, NULL);
        return;
    }
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigaction(SIGSEGV, &standard, NULL);
    if (!in->ready && is_of_heap((uint64_t)(uintptr_t)info->si_addr))
        make_heap();
}

int inside_expect(struct inside *inside)
{
    struct sigaction action = {.sa_sigaction = on_touch, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    in = inside;
    if (sigaction(SIGSEGV, &action, &before) != 0)
        return -errno;
    expected = true;
    return 0;
}

void inside_forget(void)
{
    sigaction(SIGSEGV, &before, NULL);
    expected = false;
}

/* ---- what a value is written to -------------------------------------------------- */

static void send_all(const void *bytes, size_t length)
{
    const char *at = bytes;
    while (length) {
        ssize_t sent = send(in->stream, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            _exit(ORPHAN);
        at += sent;
        length -= (size_t)sent;
    }
}

static void flush(void)
{
    if (!in->buffered)
        return;
    send_all(&in->buffered, sizeof(in->buffered));
    send_all(in->buffer, in->buffered);
    in->buffered = 0;
}

/* As rio.h has it: 0 is an error. */
static size_t collect_bytes(void *rio, const void *bytes, size_t length)
{
    const unsigned char *at = bytes;
    (void)rio;
    while (length) {
        size_t room = INSIDE_PIECE_BYTES - in->buffered;
        size_t piece = length < room ? length : room;
        memcpy(in->buffer + in->buffered, at, piece);
        in->buffered += (uint32_t)piece;
        at += piece;
        length -= piece;
        if (in->buffered == INSIDE_PIECE_BYTES)
            flush();
    }
    return 1;
}

/* ---- saving ---------------------------------------------------------------------- */

static long save_value(void *rio, const struct wanted_value *wanted)
{
    void *key = server_symbols.create_string((const char *)(uintptr_t)wanted->key,
                                             wanted->key_length);
    long written = server_symbols.save_object(rio, (void *)(uintptr_t)wanted->object, key,
                                              wanted->database, MODULE_VALUE_TYPE);
    server_symbols.release(key);
    return written;
}

static bool save(const struct inside_request *request)
{
    struct server_stream stream;
    server_stream_redirect(&stream, collect_bytes);
    long written = request->aux ? server_symbols.modules_aux(stream.rio, request->aux)
                                : save_value(stream.rio, &request->value);
    flush();
    return written >= 0;
}

static bool receive_request(struct inside_request *request)
{
    ssize_t got;
    do {
        got = recv(in->stream, request, sizeof(*request), MSG_WAITALL);
    } while (got < 0 && errno == EINTR);
    return got == (ssize_t)sizeof(*request);
}

/* ---- manners --------------------------------------------------------------------- */

/* The machine short of memory ends this one, not the server. */
static void offer_to_killer(void)
{
    int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return;
    (void)!write(file, "1000", 4); /* else it is the server's, then */
    close(file);
}

static void bound_memory(void)
{
    int statm = mappings_open_statm();
    uint64_t data_pages = mappings_measure(statm).data_pages;
    uint64_t most = data_pages * PAGE_BYTES + in->memory;
    struct rlimit limit = {most, most};
    if (statm >= 0)
        close(statm);
    if (data_pages)
        setrlimit(RLIMIT_DATA, &limit);
}

static void end_out_of_memory(size_t bytes)
{
    (void)bytes;
    _exit(NO_MEMORY);
}

/* What goes wrong here ends this process without the server's report: that would test, and
 * so fetch, the whole heap. */
static void behave(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGUSR1};
    struct sigaction standard = {.sa_handler = SIG_DFL};
    struct rlimit no_core = {0, 0};
    for (size_t i = 0; i < sizeof(fatal) / sizeof(fatal[0]); i++)
        if (fatal[i] != SIGSEGV || in->ready)
            sigaction(fatal[i], &standard, NULL);
    setrlimit(RLIMIT_CORE, &no_core);
    die_with_parent();
    close(in->outer_stream);
    close(in->outer_handover);
    struct thread_cpus cpus;
    thread_get_cpus(0, &cpus);
    thread_stay_off(&cpus, in->writer_cpu);
}

void inside_run(void)
{
    struct inside_request request;
    behave();
    if (!in->ready)
        make_heap(); /* the allocator has not touched it yet */
    offer_to_killer();
    bound_memory();
    server_symbols.set_out_of_memory(end_out_of_memory);
    server_symbols.close_unused();
    *server_variables.compression = in->compress;
    while (receive_request(&request)) {
        uint32_t end = save(&request) ? INSIDE_DONE : INSIDE_FAILED;
        send_all(&end, sizeof(end));
    }
    _exit(0);
}
