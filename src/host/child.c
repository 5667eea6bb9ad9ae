#include "host/child.h"

#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "host/got.h"

/* Above the kernel's ceiling for pid_max on 64-bit machines. */
#define FIRST_PID    4194305
#define LAST_PID     (INT_MAX - 1)
#define STACK_FRAMES 16
/* A transfer makes three pipes right before it forks. */
#define PIPES_KEPT 8

enum state { NONE, RUNNING, ZOMBIE };

static struct {
    const struct child_operations *operations;
    pthread_t main_thread;
    bool atfork_registered;
    bool pass_through; /* in the child of a real fork */
    pid_t last_pid;
    _Atomic pid_t pid; /* of the child that is not one, 0: none */
    _Atomic int state; /* enum state; ZOMBIE is published with `status` */
    int status;
    struct got_patch fork_patch, waitpid_patch, kill_patch, pipe2_patch, pipe_patch;
    int pipes[PIPES_KEPT][2]; /* the last ones made, a ring */
    unsigned pipes_made;
} child = {.last_pid = FIRST_PID - 1};

/* ---- who forks? ------------------------------------------------------------------ */

static const struct {
    const char *function;
    enum child_cause cause;
} causes[] = {
    {"rdbSaveBackground", CHILD_SAVE_DISK},
    {"rdbSaveToSlavesSockets", CHILD_SAVE_SOCKET},
    {"rdbSaveToReplicasSockets", CHILD_SAVE_SOCKET},
    {"rewriteAppendOnlyFileBackground", CHILD_REWRITE_AOF},
    {"slotExportJobBeginSnapshotToTargetSocket", CHILD_SLOT_MIGRATION},
};
#define CAUSES (sizeof(causes) / sizeof(causes[0]))

const char *child_cause_name(enum child_cause cause)
{
    switch (cause) {
    case CHILD_SAVE_DISK:
        return "save";
    case CHILD_SAVE_SOCKET:
        return "replica sync";
    case CHILD_REWRITE_AOF:
        return "AOF rewrite";
    case CHILD_SLOT_MIGRATION:
        return "slot migration";
    case CHILD_OTHER:
        break;
    }
    return "other";
}

static void name_frame(const char *function, struct child_request *request)
{
    for (size_t i = 0; i < CAUSES; i++)
        if (request->cause == CHILD_OTHER && strcmp(function, causes[i].function) == 0)
            request->cause = causes[i].cause;
    if (strcmp(function, "startBgsaveForReplication") == 0)
        request->for_replica = true;
}

/* The nearest function on the stack that is known to start a background save.
 * The server exports its functions, whichever way it was linked. */
static void classify(struct child_request *request)
{
    void *frames[STACK_FRAMES];
    int count = backtrace(frames, STACK_FRAMES);
    for (int i = 0; i < count; i++) {
        Dl_info info;
        /* A return address may lie one past the end of its function. */
        if (dladdr((char *)frames[i] - 1, &info) && info.dli_sname)
            name_frame(info.dli_sname, request);
    }
}

/* ---- fork ------------------------------------------------------------------------ */

static pid_t next_pid(void)
{
    child.last_pid = child.last_pid >= LAST_PID ? FIRST_PID : child.last_pid + 1;
    return child.last_pid;
}

static void set_state(enum state state)
{
    atomic_store_explicit(&child.state, state, memory_order_release);
}

static enum state get_state(void)
{
    return atomic_load_explicit(&child.state, memory_order_acquire);
}

static pid_t forget_child(void)
{
    set_state(NONE);
    atomic_store_explicit(&child.pid, 0, memory_order_relaxed);
    return -1;
}

static pid_t stand_in_fork(void)
{
    struct child_request request = {.cause = CHILD_OTHER};
    if (child.pass_through || get_state() != NONE ||
        !pthread_equal(pthread_self(), child.main_thread))
        return fork();
    classify(&request);
    if (request.cause == CHILD_OTHER)
        return fork();
    request.pid = next_pid();
    /* Before the snapshot begins: a small one may end before begin() returns. */
    atomic_store_explicit(&child.pid, request.pid, memory_order_relaxed);
    set_state(RUNNING);
    int error = EAGAIN;
    switch (child.operations->begin(&request, &error)) {
    case CHILD_TAKE_OVER:
        return request.pid;
    case CHILD_REFUSE:
        forget_child();
        errno = error;
        return -1;
    case CHILD_REAL_FORK:
        break;
    }
    forget_child();
    return fork();
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

static pid_t stand_in_waitpid(pid_t which, int *status, int options)
{
    pid_t pid = atomic_load_explicit(&child.pid, memory_order_relaxed);
    if (child.pass_through || !pid || (which != -1 && which != pid))
        return waitpid(which, status, options);
    if (which == -1 && get_state() != ZOMBIE) {
        /* A real child (Lua debugger) may end first. */
        pid_t real = waitpid(-1, status, options | WNOHANG);
        if (real > 0)
            return real;
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
        return kill(pid, signal);
    if (signal && get_state() == RUNNING)
        child.operations->kill(signal);
    return 0;
}

/* ---- pipes ----------------------------------------------------------------------- */

/* The server keeps one end of each pipe in a variable that only the forking
 * function has. */
static int keep_pipe(int result, const int ends[2])
{
    if (result == 0 && !child.pass_through &&
        pthread_equal(pthread_self(), child.main_thread)) {
        int *kept = child.pipes[child.pipes_made++ % PIPES_KEPT];
        kept[0] = ends[0];
        kept[1] = ends[1];
    }
    return result;
}

static int stand_in_pipe2(int ends[2], int flags)
{
    return keep_pipe(pipe2(ends, flags), ends);
}

static int stand_in_pipe(int ends[2])
{
    return keep_pipe(pipe(ends), ends);
}

int child_pipe_peer(int descriptor)
{
    for (unsigned back = 1; back <= PIPES_KEPT && back <= child.pipes_made; back++) {
        const int *kept = child.pipes[(child.pipes_made - back) % PIPES_KEPT];
        if (kept[0] == descriptor)
            return kept[1];
        if (kept[1] == descriptor)
            return kept[0];
    }
    return -1;
}

/* ---- for the face ---------------------------------------------------------------- */

int child_install(const struct child_operations *operations)
{
    struct got_object executable;
    int error = got_find_executable(&executable);
    if (error)
        return error;
    void *warm[2];
    backtrace(warm, 2); /* loads libgcc now, not in the pause */
    child.operations = operations;
    child.main_thread = pthread_self();
    if (!child.atfork_registered)
        pthread_atfork(NULL, NULL, after_real_fork);
    child.atfork_registered = true;
    /* A server that imports only one of the two is as good. */
    got_replace(&executable, "pipe2", (void *)stand_in_pipe2, &child.pipe2_patch);
    got_replace(&executable, "pipe", (void *)stand_in_pipe, &child.pipe_patch);
    error = got_replace(&executable, "waitpid", (void *)stand_in_waitpid,
                        &child.waitpid_patch);
    if (!error)
        error =
            got_replace(&executable, "kill", (void *)stand_in_kill, &child.kill_patch);
    if (!error)
        error =
            got_replace(&executable, "fork", (void *)stand_in_fork, &child.fork_patch);
    if (error)
        child_remove();
    return error;
}

int child_remove(void)
{
    if (get_state() != NONE)
        return -EBUSY;
    struct got_patch *patches[] = {&child.fork_patch, &child.kill_patch,
                                   &child.waitpid_patch, &child.pipe2_patch,
                                   &child.pipe_patch};
    for (size_t i = 0; i < sizeof(patches) / sizeof(patches[0]); i++) {
        got_restore(patches[i]);
        patches[i]->count = 0;
    }
    child.operations = NULL;
    return 0;
}

void child_exited(int status)
{
    child.status = status;
    set_state(ZOMBIE);
}

pid_t child_pid(void)
{
    return atomic_load_explicit(&child.pid, memory_order_relaxed);
}
