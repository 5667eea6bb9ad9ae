#include "host/child.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/child_files.h"
#include "host/got.h"
#include "kernel/contract.h"
#include "kernel/symbols.h"
#include "kernel/thread.h"

#define STACK_FRAMES 16
/* A transfer makes three pipes right before it forks. */
#define PIPES_KEPT 8

enum state { NONE, RUNNING, ZOMBIE };

static struct {
    const struct child_operations *operations;
    pthread_t main_thread;
    bool atfork_registered;
    bool pass_through; /* in the child of a real fork */
    _Atomic pid_t pid; /* of the child that is not one, 0: none */
    _Atomic int state; /* enum state; ZOMBIE is published with `status` */
    int status;
    _Atomic pid_t hidden;     /* a child of ours that the server is not to see, or 0 */
    int pipes[PIPES_KEPT][2]; /* the last ones made, a ring */
    unsigned pipes_made;
} child;

/* The real functions, by name: the patched slots may be those of our own object
 * (in the unit tests), and what stood in a slot may be a stub that would bind it
 * again. */
static struct {
    pid_t (*fork)(void);
    pid_t (*waitpid)(pid_t, int *, int);
    int (*kill)(pid_t, int);
    int (*pipe2)(int[2], int);
    int (*pipe)(int[2]);
    int (*unlink)(const char *);
    int (*rename)(const char *, const char *);
} real;

static bool on_main_thread(void)
{
    return pthread_equal(pthread_self(), child.main_thread);
}

/* ---- who forks? ------------------------------------------------------------------ */

/* Functions of the servers that may be on the stack of a fork, and where the code
 * of each lies in this one. */
static struct {
    const char *function;
    enum child_cause cause; /* CHILD_OTHER: says nothing about the cause */
    bool for_replica;
    bool by_command;
    bool by_timer;
    uintptr_t start, end; /* 0: not in this server */
} callers[] = {
    {.function = "rdbSaveBackground", .cause = CHILD_SAVE_DISK},
    {.function = "rdbSaveToSlavesSockets", .cause = CHILD_SAVE_SOCKET},
    {.function = "rdbSaveToReplicasSockets", .cause = CHILD_SAVE_SOCKET},
    {.function = "rewriteAppendOnlyFileBackground", .cause = CHILD_REWRITE_AOF},
    {.function = "slotExportJobBeginSnapshotToTargetSocket",
     .cause = CHILD_SLOT_MIGRATION},
    {.function = "startBgsaveForReplication", .for_replica = true},
    {.function = "bgsaveCommand", .by_command = true},
    {.function = "serverCron", .by_timer = true},
};
#define CALLERS (sizeof(callers) / sizeof(callers[0]))

const char *child_trigger_name(const struct child_request *request)
{
    if (request->cause == CHILD_REWRITE_AOF)
        return "aof rewrite";
    if (request->cause == CHILD_SLOT_MIGRATION)
        return "slot migration";
    if (request->cause == CHILD_BACKUP)
        return "backup";
    if (request->cause == CHILD_SAVE_SOCKET || request->for_replica)
        return "replica";
    if (request->by_command)
        return "command";
    return request->by_timer ? "save point" : "other";
}

/* The server exports its functions, whichever way it was linked. To look a name
 * up for every frame would take a good part of a millisecond at each fork. */
static void locate_callers(void)
{
    for (size_t i = 0; i < CALLERS; i++) {
        const void *function = symbol_find(callers[i].function);
        callers[i].start = (uintptr_t)function;
        callers[i].end = callers[i].start + (function ? symbol_bytes(function) : 0);
    }
}

static void name_frame(uintptr_t return_address, struct child_request *request)
{
    for (size_t i = 0; i < CALLERS; i++) {
        /* It may lie one past the end of its function. */
        if (return_address <= callers[i].start || return_address > callers[i].end)
            continue;
        if (request->cause == CHILD_OTHER)
            request->cause = callers[i].cause;
        request->for_replica |= callers[i].for_replica;
        request->by_command |= callers[i].by_command;
        request->by_timer |= callers[i].by_timer;
    }
}

/* The nearest function on the stack that is known to start a background save. */
static void classify(struct child_request *request)
{
    void *frames[STACK_FRAMES];
    int count = backtrace(frames, STACK_FRAMES);
    for (int i = 0; i < count; i++)
        name_frame((uintptr_t)frames[i], request);
}

/* ---- fork ------------------------------------------------------------------------ */

static void set_state(enum state state)
{
    atomic_store_explicit(&child.state, state, memory_order_release);
}

static enum state get_state(void)
{
    return atomic_load_explicit(&child.state, memory_order_acquire);
}

static void forget_child(void)
{
    set_state(NONE);
    atomic_store_explicit(&child.pid, 0, memory_order_relaxed);
}

/* No child, by the operator's wish. A fork() that fails in the middle of a transfer is
 * what servers are not made for: Valkey ends itself at the next one, Redis 8.0 believes
 * that the pipe is still there. A child that fails at once is, everywhere. */
static pid_t refuse_fork(const struct child_request *request, int error)
{
    if (request->cause == CHILD_SAVE_SOCKET || request->cause == CHILD_SLOT_MIGRATION) {
        child_exited(1 << 8);
        return request->pid;
    }
    forget_child();
    errno = error;
    return -1;
}

static pid_t fork_for_server(void)
{
    uint64_t began = clock_usec();
    pid_t pid = real.fork();
    if (pid > 0)
        child.operations->fork_took(clock_usec() - began);
    return pid;
}

static pid_t stand_in_fork(void)
{
    struct child_request request = {.cause = CHILD_OTHER};
    if (child.pass_through || get_state() != NONE || !on_main_thread())
        return real.fork();
    classify(&request);
    if (request.cause == CHILD_OTHER)
        return real.fork();
    /* There is no other one: who is not reaped yet stands in the way of a fork. */
    request.pid = child_files_number();
    child_files_begin(request.pid, request.cause == CHILD_REWRITE_AOF);
    /* Before the snapshot begins: a small one may end before begin() returns. */
    atomic_store_explicit(&child.pid, request.pid, memory_order_relaxed);
    set_state(RUNNING);
    int error = EAGAIN;
    switch (child.operations->begin(&request, &error)) {
    case CHILD_TAKE_OVER:
        return request.pid;
    case CHILD_REFUSE:
        return refuse_fork(&request, error);
    case CHILD_REAL_FORK:
        break;
    }
    forget_child();
    return fork_for_server();
}

/* In the child of a real fork everything goes to the kernel. */
static void after_real_fork(void)
{
    if (!child.operations)
        return;
    child.pass_through = true;
    forget_child();
    child.operations->forked();
}

/* ---- waitpid --------------------------------------------------------------------- */

static pid_t reap(int *status)
{
    pid_t pid = atomic_load_explicit(&child.pid, memory_order_relaxed);
    child.operations->reaped();
    if (status)
        *status = child.status;
    forget_child();
    return pid;
}

/* Any child but the hidden one. */
static pid_t wait_for_real(pid_t which, int *status, int options)
{
    pid_t ended;
    do {
        ended = real.waitpid(which, status, options);
    } while (ended > 0 && which <= 0 &&
             ended == atomic_load_explicit(&child.hidden, memory_order_relaxed));
    return ended;
}

static pid_t stand_in_waitpid(pid_t which, int *status, int options)
{
    pid_t pid = atomic_load_explicit(&child.pid, memory_order_relaxed);
    if (child.pass_through || !pid || (which != -1 && which != pid) || !on_main_thread())
        return wait_for_real(which, status, options);
    if (which == -1 && get_state() != ZOMBIE) {
        /* A real child (Lua debugger) may end first. */
        pid_t ended = wait_for_real(-1, status, options | WNOHANG);
        if (ended > 0)
            return ended;
    }
    if (get_state() == RUNNING && (options & WNOHANG))
        return 0;
    if (get_state() == RUNNING)
        child.operations->wait();
    /* The saver has ended; its report follows at once. */
    while (get_state() == RUNNING)
        usleep(50);
    return reap(status);
}

/* ---- kill ------------------------------------------------------------------------ */

static int stand_in_kill(pid_t pid, int signal)
{
    if (child.pass_through || !pid ||
        pid != atomic_load_explicit(&child.pid, memory_order_relaxed))
        return real.kill(pid, signal);
    if (signal && get_state() == RUNNING)
        child.operations->kill(signal);
    return 0;
}

/* ---- pipes ----------------------------------------------------------------------- */

/* The server keeps one end of each pipe in a variable that only the forking
 * function has. */
static int keep_pipe(int result, const int ends[2])
{
    if (result == 0 && !child.pass_through && on_main_thread()) {
        int *kept = child.pipes[child.pipes_made++ % PIPES_KEPT];
        kept[0] = ends[0];
        kept[1] = ends[1];
    }
    return result;
}

static int stand_in_pipe2(int ends[2], int flags)
{
    return keep_pipe(real.pipe2(ends, flags), ends);
}

static int stand_in_pipe(int ends[2])
{
    return keep_pipe(real.pipe(ends), ends);
}

bool child_pipe_made(unsigned back, int ends[2])
{
    DEMAND_MAIN_THREAD();
    if (back >= PIPES_KEPT || back >= child.pipes_made)
        return false;
    const int *kept = child.pipes[(child.pipes_made - 1 - back) % PIPES_KEPT];
    ends[0] = kept[0];
    ends[1] = kept[1];
    return true;
}

int child_pipe_peer(int descriptor)
{
    DEMAND_MAIN_THREAD();
    for (unsigned back = 1; back <= PIPES_KEPT && back <= child.pipes_made; back++) {
        const int *kept = child.pipes[(child.pipes_made - back) % PIPES_KEPT];
        if (kept[0] == descriptor)
            return kept[1];
        if (kept[1] == descriptor)
            return kept[0];
    }
    return -1;
}

/* ---- files ----------------------------------------------------------------------- */

static bool may_mean_child(void)
{
    return !child.pass_through && on_main_thread();
}

static int stand_in_unlink(const char *path)
{
    char name[CHILD_FILE_BYTES];
    const char *meant = may_mean_child() ? child_files_meant(path, name) : path;
    if (meant)
        return real.unlink(meant);
    errno = ENOENT;
    return -1;
}

static int stand_in_rename(const char *from, const char *to)
{
    char name[CHILD_FILE_BYTES];
    const char *meant = may_mean_child() ? child_files_meant(from, name) : from;
    if (meant)
        return real.rename(meant, to);
    errno = ENOENT;
    return -1;
}

/* ---- for rdb_uffd.c ------------------------------------------------------------- */

/* What the server calls, what it gets instead, and what that calls in turn. */
static const struct {
    const char *symbol;
    void *replacement;
    void *real;
    bool optional;
} stand_ins[] = {
    /* A server that imports only one of the two is as good. */
    {"pipe2", (void *)stand_in_pipe2, &real.pipe2, true},
    {"pipe", (void *)stand_in_pipe, &real.pipe, true},
    /* Without these the names are random all the same. */
    {"unlink", (void *)stand_in_unlink, &real.unlink, true},
    {"rename", (void *)stand_in_rename, &real.rename, true},
    {"waitpid", (void *)stand_in_waitpid, &real.waitpid, false},
    {"kill", (void *)stand_in_kill, &real.kill, false},
    {"fork", (void *)stand_in_fork, &real.fork, false}, /* last in, first out */
};
#define STAND_INS (sizeof(stand_ins) / sizeof(stand_ins[0]))
static struct got_patch patches[STAND_INS];

static int find_real_functions(void)
{
    for (size_t i = 0; i < STAND_INS; i++) {
        void *found = symbol_find(stand_ins[i].symbol);
        if (!found)
            return -ENOENT;
        memcpy(stand_ins[i].real, &found, sizeof(found));
    }
    return 0;
}

static int patch_executable(void)
{
    struct got_object executable;
    int error = got_find_executable(&executable);
    for (size_t i = 0; i < STAND_INS && !error; i++) {
        error = got_replace(&executable, stand_ins[i].symbol, stand_ins[i].replacement,
                            &patches[i]);
        if (error == -ENOENT && stand_ins[i].optional)
            error = 0;
    }
    return error;
}

int child_install(const struct child_operations *operations)
{
    DEMAND_MAIN_THREAD();
    if (child.operations)
        return -EBUSY;
    int error = find_real_functions();
    if (error)
        return error;
    locate_callers();
    void *warm[2];
    backtrace(warm, 2); /* loads libgcc now, not in the pause */
    if (!child.atfork_registered)
        error = -pthread_atfork(NULL, NULL, after_real_fork);
    if (error)
        return error;
    /* Once: a module that is unloaded stays in memory (Makefile), and so does this. */
    child.atfork_registered = true;
    child.pipes_made = 0;
    child.main_thread = pthread_self();
    child.operations = operations;
    error = patch_executable();
    if (error)
        child_remove();
    return error;
}

int child_check(char *reason, size_t size)
{
    return got_check(patches, STAND_INS, reason, size);
}

int child_remove(void)
{
    DEMAND_MAIN_THREAD();
    if (get_state() != NONE)
        return -EBUSY;
    for (size_t i = STAND_INS; i-- > 0;)
        got_restore(&patches[i]);
    child.operations = NULL;
    return 0;
}

void child_exited(int status)
{
    child.status = status;
    set_state(ZOMBIE);
}

void child_hide(pid_t pid)
{
    atomic_store_explicit(&child.hidden, pid, memory_order_relaxed);
}

pid_t child_pid(void)
{
    return atomic_load_explicit(&child.pid, memory_order_relaxed);
}
