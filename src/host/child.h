/* The child that isn't one.
 *
 * The server makes its background savers with fork(), learns of their end
 * through waitpid() and ends them with kill(). This part stands in those three
 * places (and nowhere else), asks rdb_uffd.c whether it wants to take a fork
 * over, and from then on answers as the kernel would for a real child.
 *
 *            fork()            child_exited() or kill()       waitpid()
 *   NONE ───────────▶ RUNNING ────────────────────────▶ ZOMBIE ─────────▶ NONE
 *
 * The pid handed out is above the kernel's ceiling for pid_max (4194304), so
 * it can never be a real process: a kill() that slips past us can only fail. It is
 * chosen at random for each fork: another server's in the same directory, of whatever
 * pid namespace, has another one, and so have the files that are named after it
 * (host/child_files.h).
 *
 * Threads: fork and waitpid are answered on the server's main thread, kill on any and in
 * signal handlers; child_exited() comes from whoever ends the save: the saver, or if it hangs
 * the watchdog or the main thread (snapshot/rescue.h).
 */
#ifndef RDB_UFFD_HOST_CHILD_H
#define RDB_UFFD_HOST_CHILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Who called fork(), told apart by the exported functions on the stack. */
enum child_cause {
    CHILD_OTHER,          /* module fork, Lua debugger, daemonize, sentinel … */
    CHILD_SAVE_DISK,      /* rdbSaveBackground */
    CHILD_SAVE_SOCKET,    /* rdbSaveToSlavesSockets / …ReplicasSockets */
    CHILD_REWRITE_AOF,    /* rewriteAppendOnlyFileBackground */
    CHILD_SLOT_MIGRATION, /* slotExportJobBeginSnapshotToTargetSocket */
    CHILD_BACKUP, /* nobody did: UFFD.BACKUP, of which the server knows no child */
};

struct child_request {
    enum child_cause cause;
    bool for_replica; /* startBgsaveForReplication is on the stack */
    bool by_command;  /* bgsaveCommand is */
    bool by_timer;    /* serverCron is */
    pid_t pid;        /* the pid that will be handed out when taken over */
};

enum child_decision {
    CHILD_TAKE_OVER, /* the snapshot has begun; hand out request->pid */
    CHILD_REAL_FORK,
    CHILD_REFUSE, /* fork() returns -1; *error is the errno. For a transfer: the pid of a
                     child that has ended with exit code 1 */
};

struct child_operations {
    /* Main thread, inside the server's fork(). */
    enum child_decision (*begin)(const struct child_request *request, int *error);
    /* kill(pid, signal) for our pid. Must stop the work soon; the end is
     * reported with child_exited(). Async-signal-safe. */
    void (*kill)(int signal);
    /* A blocking waitpid() for our pid: return once child_exited() was called. */
    void (*wait)(void);
    /* waitpid() is about to hand out the end of our pid. Main thread. */
    void (*reaped)(void);
    /* The server has a real child for what begin() would not do; the fork took so long.
     * Main thread. */
    void (*fork_took)(uint64_t usec);
    /* In the child of a real fork: the snapshot, if any, is not this process's. */
    void (*forked)(void);
};

/* Starts standing in for calls of this thread; other threads' forks and waits go
 * to the kernel. `operations` must stay valid. 0, -EBUSY when it stands in
 * already, or -errno; nothing is changed on failure. Main thread. */
int child_install(const struct child_operations *operations);
/* Whether the server's calls can be put back: 0, or -EBUSY and a sentence in `reason`:
 * somebody else stands in for them by now. */
int child_check(char *reason, size_t size);
/* Puts the server's calls back. -EBUSY while a child is RUNNING or ZOMBIE. */
int child_remove(void);
/* The child ended: `status` as waitpid() would store it (exit code << 8, or
 * the number of the signal). Any thread, once per taken-over fork; may come
 * before operations->begin has returned. */
void child_exited(int status);
/* A real child that the server's wait for any child is not to find, 0: none. Whoever waits
 * for it may find that it has been reaped. Any thread. */
void child_hide(pid_t pid);
/* The pid of the child that runs or waits to be reaped, 0 if there is none. */
pid_t child_pid(void);
/* The other end of a pipe that the server made lately, by either of its ends;
 * -1 when it is not known. Main thread. */
int child_pipe_peer(int descriptor);
/* The pipe that the server has made last (`back` 0), or so many before it. False: there
 * were not so many. Main thread. */
bool child_pipe_made(unsigned back, int ends[2]);
/* What made the server ask, as far as its stack tells: "command", "save point"
 * (or a BGSAVE that had to wait for its turn), "replica", "aof rewrite", "slot
 * migration", "backup", "other". Static text. */
const char *child_trigger_name(const struct child_request *request);

#endif
