/* The child that isn't one, in this program instead of a server: functions with the
 * names of a server's are on the stack when it forks, and a toy takes the place of the
 * snapshot.
 *
 * Not here: that servers have these functions on the stack. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "got_table.h"
#include "host/child.h"
#include "host/child_files.h"

#define PID_CEILING 4194304 /* of the kernel: no process has a greater number */

/* ---- the server ------------------------------------------------------------------ */

typedef pid_t forker(void);
typedef pid_t server_function(forker *next);

/* Stays on the stack while it calls, found by its name. The text for the assembler
 * keeps the compiler from a jump in place of the call, and from making one function of
 * them all. */
#define SERVER_FUNCTION(name)                                                            \
    pid_t name(forker *next);                                                            \
    __attribute__((noinline)) pid_t name(forker *next)                                   \
    {                                                                                    \
        pid_t pid = next();                                                              \
        __asm__ volatile("# " #name : "+r"(pid));                                        \
        return pid;                                                                      \
    }

SERVER_FUNCTION(rdbSaveBackground)
SERVER_FUNCTION(rdbSaveToSlavesSockets)
SERVER_FUNCTION(rdbSaveToReplicasSockets)
SERVER_FUNCTION(rewriteAppendOnlyFileBackground)
SERVER_FUNCTION(slotExportJobBeginSnapshotToTargetSocket)
SERVER_FUNCTION(startBgsaveForReplication)
SERVER_FUNCTION(bgsaveCommand)
SERVER_FUNCTION(serverCron)

static pid_t plain_fork(void)
{
    return fork();
}

/* A function that is known, but starts no save. */
static pid_t fork_by_timer(void)
{
    return serverCron(plain_fork);
}

static pid_t save(void)
{
    return rdbSaveBackground(plain_fork);
}

static pid_t transfer(void)
{
    return rdbSaveToReplicasSockets(plain_fork);
}

static pid_t migrate_slots(void)
{
    return slotExportJobBeginSnapshotToTargetSocket(plain_fork);
}

static pid_t save_for_replica(void)
{
    return startBgsaveForReplication(save);
}

/* ---- the toy --------------------------------------------------------------------- */

static struct {
    enum child_decision decision;
    int error;           /* for CHILD_REFUSE, 0: says nothing of it */
    bool ends_at_once;   /* before begin() has returned */
    int end_when_waited; /* the status, -1: wait() returns before the end */
    struct child_request request;
    pid_t pid_in_begin;
    unsigned begins, kills, waits, reaps, forks;
    int signal;
    uint64_t fork_usec;
} toy;

static enum child_decision toy_begin(const struct child_request *request, int *error)
{
    toy.begins++;
    toy.request = *request;
    toy.pid_in_begin = child_pid();
    if (toy.error)
        *error = toy.error;
    if (toy.ends_at_once)
        child_exited(0);
    return toy.decision;
}

static void toy_kill(int signal)
{
    toy.kills++;
    toy.signal = signal;
}

static void toy_wait(void)
{
    toy.waits++;
    if (toy.end_when_waited >= 0)
        child_exited(toy.end_when_waited);
}

static void toy_reaped(void)
{
    toy.reaps++;
}

static void toy_fork_took(uint64_t usec)
{
    toy.fork_usec = usec;
}

static void toy_forked(void)
{
    toy.forks++;
}

static const struct child_operations toy_operations = {.begin = toy_begin,
                                                       .kill = toy_kill,
                                                       .wait = toy_wait,
                                                       .reaped = toy_reaped,
                                                       .fork_took = toy_fork_took,
                                                       .forked = toy_forked};

static int set_up(void **state)
{
    (void)state;
    memset(&toy, 0, sizeof(toy));
    toy.decision = CHILD_TAKE_OVER;
    return child_install(&toy_operations);
}

static int tear_down(void **state)
{
    (void)state;
    if (child_pid()) {
        child_exited(0);
        waitpid(child_pid(), NULL, 0);
    }
    return child_remove();
}

static pid_t take_over(void)
{
    pid_t pid = save();
    assert_true(pid > PID_CEILING);
    return pid;
}

/* What a real child ended with; it is reaped. */
static int exit_code_of(pid_t pid)
{
    int status = 0;
    assert_in_range(pid, 1, PID_CEILING);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void check_forks_for_real(forker *forks)
{
    pid_t pid = forks();
    if (pid == 0)
        _exit(7);
    assert_int_equal(exit_code_of(pid), 7);
}

/* ---- fork ------------------------------------------------------------------------ */

static void takes_a_save_over(void **state)
{
    (void)state;
    assert_int_equal(child_pid(), 0);
    pid_t first = take_over();
    assert_int_equal(toy.begins, 1);
    assert_int_equal(toy.request.pid, first);
    assert_int_equal(toy.pid_in_begin, first);
    assert_int_equal(child_pid(), first);
    /* There is no such process. */
    assert_int_equal(syscall(SYS_kill, first, 0), -1);
    assert_int_equal(errno, ESRCH);
    child_exited(0);
    assert_int_equal(waitpid(first, NULL, 0), first);
    pid_t second = take_over();
    assert_int_not_equal(second, first);
}

/* Two processes do not hand out the same ones, nor one process in a row. */
static void numbers_are_at_random(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    pid_t pids[COUNT], greatest = 0;
    for (int i = 0; i < COUNT; i++) {
        pids[i] = take_over();
        for (int j = 0; j < i; j++)
            assert_int_not_equal(pids[i], pids[j]);
        greatest = pids[i] > greatest ? pids[i] : greatest;
        child_exited(0);
        assert_int_equal(waitpid(-1, NULL, 0), pids[i]);
    }
    /* One of so many lies in the upper half of all there are. */
    assert_true(greatest > INT_MAX / 2);
}

/* What the server does by the pid's name reaches the file that was made, whatever that is
 * called, and no other one. */
static void names_lead_to_what_was_made(void **state)
{
    (void)state;
    char name[CHILD_FILE_BYTES], asked[CHILD_FILE_BYTES];
    pid_t pid = take_over();
    child_files_name(pid, asked);
    assert_null(child_files_meant(asked, name));
    assert_string_equal(child_files_meant("temp-1.rdb", name), "temp-1.rdb");
    assert_string_equal(child_files_meant("dump.rdb", name), "dump.rdb");
    child_files_made(4194305);
    assert_string_equal(child_files_meant(asked, name), "temp-4194305.rdb");
    /* A server asks for these too when a rewrite has ended. */
    snprintf(asked, sizeof(asked), "temp-rewriteaof-%d.aof", (int)pid);
    assert_null(child_files_meant(asked, name));
    snprintf(asked, sizeof(asked), "temp-rewriteaof-bg-%d.aof", (int)pid);
    assert_null(child_files_meant(asked, name));
    child_files_begin(pid, true);
    child_files_made(4194306);
    assert_string_equal(child_files_meant(asked, name), "temp-rewriteaof-bg-4194306.aof");
    /* This program's own unlink() and rename() are patched. */
    assert_int_equal(unlink(asked), -1);
    assert_int_equal(errno, ENOENT);
}

static void check_request(pid_t pid, enum child_cause cause, const char *trigger)
{
    assert_true(pid > PID_CEILING);
    assert_int_equal(toy.request.cause, cause);
    assert_string_equal(child_trigger_name(&toy.request), trigger);
    child_exited(0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void knows_what_is_wanted(void **state)
{
    (void)state;
    check_request(rdbSaveBackground(plain_fork), CHILD_SAVE_DISK, "other");
    check_request(rdbSaveToSlavesSockets(plain_fork), CHILD_SAVE_SOCKET, "replica");
    check_request(rdbSaveToReplicasSockets(plain_fork), CHILD_SAVE_SOCKET, "replica");
    check_request(rewriteAppendOnlyFileBackground(plain_fork), CHILD_REWRITE_AOF,
                  "aof rewrite");
    check_request(slotExportJobBeginSnapshotToTargetSocket(plain_fork),
                  CHILD_SLOT_MIGRATION, "slot migration");
    assert_false(toy.request.for_replica || toy.request.by_command ||
                 toy.request.by_timer);
}

static void knows_who_wants_it(void **state)
{
    (void)state;
    check_request(bgsaveCommand(save), CHILD_SAVE_DISK, "command");
    assert_true(toy.request.by_command);
    assert_false(toy.request.by_timer || toy.request.for_replica);
    check_request(serverCron(save), CHILD_SAVE_DISK, "save point");
    assert_true(toy.request.by_timer);
    assert_false(toy.request.by_command || toy.request.for_replica);
    check_request(serverCron(save_for_replica), CHILD_SAVE_DISK, "replica");
    assert_true(toy.request.by_timer && toy.request.for_replica);
    assert_false(toy.request.by_command);
}

static void leaves_other_forks_alone(void **state)
{
    (void)state;
    check_forks_for_real(plain_fork);
    check_forks_for_real(fork_by_timer);
    assert_int_equal(toy.begins, 0);
    assert_int_equal(toy.forks, 0); /* only in the child */
    assert_int_equal(toy.fork_usec, 0);
}

static void forks_for_real_when_told_to(void **state)
{
    (void)state;
    toy.decision = CHILD_REAL_FORK;
    check_forks_for_real(save);
    assert_int_equal(toy.begins, 1);
    assert_true(toy.fork_usec > 0);
    assert_int_equal(child_pid(), 0);
    assert_int_equal(toy.reaps, 0);
}

static void refuses_when_told_to(void **state)
{
    (void)state;
    toy.decision = CHILD_REFUSE;
    errno = 0;
    assert_int_equal(save(), -1);
    assert_int_equal(errno, EAGAIN);
    toy.error = ENOMEM;
    assert_int_equal(save(), -1);
    assert_int_equal(errno, ENOMEM);
    assert_int_equal(child_pid(), 0);
    toy.decision = CHILD_TAKE_OVER;
    take_over();
}

/* Where a server does not survive a fork() that fails. */
static void refuses_a_transfer_by_a_failed_child(void **state)
{
    (void)state;
    forker *const transfers[] = {transfer, migrate_slots};
    toy.decision = CHILD_REFUSE;
    for (unsigned i = 0; i < sizeof(transfers) / sizeof(transfers[0]); i++) {
        int status = 0;
        pid_t pid = transfers[i]();
        assert_true(pid > PID_CEILING);
        assert_int_equal(kill(pid, SIGUSR1), 0);
        assert_int_equal(toy.kills, 0);
        assert_int_equal(waitpid(-1, &status, WNOHANG), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
        assert_int_equal(toy.reaps, i + 1);
        assert_int_equal(child_pid(), 0);
    }
}

static void *save_on_a_thread(void *pid)
{
    *(pid_t *)pid = save();
    if (*(pid_t *)pid == 0)
        _exit(7);
    return NULL;
}

static void takes_one_at_a_time_on_one_thread(void **state)
{
    (void)state;
    pthread_t thread;
    pid_t pid = 0;
    assert_int_equal(pthread_create(&thread, NULL, save_on_a_thread, &pid), 0);
    pthread_join(thread, NULL);
    assert_int_equal(exit_code_of(pid), 7);
    assert_int_equal(toy.begins, 0);
    pid = take_over();
    check_forks_for_real(save);
    child_exited(0); /* not reaped yet */
    check_forks_for_real(save);
    assert_int_equal(toy.begins, 1);
    assert_int_equal(child_pid(), pid);
}

/* ---- waitpid --------------------------------------------------------------------- */

static void runs_until_it_is_reaped(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = take_over();
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    assert_int_equal(waitpid(-1, &status, WNOHANG), 0);
    assert_int_equal(status, -1);
    child_exited(3 << 8);
    assert_int_equal(child_pid(), pid);
    assert_int_equal(toy.reaps, 0);
    assert_int_equal(waitpid(-1, &status, WNOHANG), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 3);
    assert_int_equal(toy.reaps, 1);
    assert_int_equal(toy.waits, 0);
    assert_int_equal(child_pid(), 0);
    assert_int_equal(waitpid(pid, &status, WNOHANG), -1);
    assert_int_equal(errno, ECHILD);
    assert_int_equal(toy.reaps, 1);
}

static void waits_for_the_end(void **state)
{
    (void)state;
    for (int any = 0; any < 2; any++) {
        int status = -1;
        pid_t pid = take_over();
        toy.end_when_waited = (any + 1) << 8;
        assert_int_equal(waitpid(any ? -1 : pid, &status, 0), pid);
        assert_int_equal(status, (any + 1) << 8);
        assert_int_equal(toy.waits, any + 1);
        assert_int_equal(toy.reaps, any + 1);
    }
    take_over();
    assert_true(waitpid(-1, NULL, 0) > PID_CEILING); /* nobody wants the status */
}

static void *report_end_later(void *argument)
{
    (void)argument;
    usleep(20000);
    child_exited(5 << 8);
    return NULL;
}

/* The saver is done, and waitpid() told so, a moment before its report comes. */
static void waits_for_the_report(void **state)
{
    (void)state;
    int status = -1;
    pthread_t saver;
    pid_t pid = take_over();
    toy.end_when_waited = -1;
    assert_int_equal(pthread_create(&saver, NULL, report_end_later, NULL), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    pthread_join(saver, NULL);
    assert_int_equal(status, 5 << 8);
    assert_int_equal(toy.waits, 1);
}

static void may_end_before_it_began(void **state)
{
    (void)state;
    int status = -1;
    toy.ends_at_once = true;
    pid_t pid = take_over();
    assert_int_equal(child_pid(), pid);
    assert_int_equal(waitpid(pid, &status, WNOHANG), pid);
    assert_int_equal(status, 0);
}

static void real_children_are_reaped_beside_it(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = take_over(), real = plain_fork(), got = 0;
    if (real == 0)
        _exit(9);
    for (int i = 0; i < 10000 && !got; i++, usleep(1000))
        got = waitpid(-1, &status, WNOHANG);
    assert_int_equal(got, real);
    assert_int_equal(WEXITSTATUS(status), 9);
    assert_int_equal(child_pid(), pid);
    check_forks_for_real(plain_fork); /* by its number */
    child_exited(0);
    assert_int_equal(waitpid(-1, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void *wait_on_a_thread(void *pid)
{
    int status;
    pid_t got = waitpid(*(pid_t *)pid, &status, WNOHANG);
    *(pid_t *)pid = got < 0 && errno == ECHILD ? 0 : 1;
    return NULL;
}

static void other_threads_wait_for_real_children(void **state)
{
    (void)state;
    pthread_t thread;
    pid_t pid = take_over();
    child_exited(0);
    assert_int_equal(pthread_create(&thread, NULL, wait_on_a_thread, &pid), 0);
    pthread_join(thread, NULL);
    assert_int_equal(pid, 0);
    assert_int_equal(toy.reaps, 0);
    assert_int_not_equal(child_pid(), 0);
}

/* ---- kill ------------------------------------------------------------------------ */

static void a_signal_ends_it(void **state)
{
    (void)state;
    int status = -1;
    pid_t pid = take_over();
    assert_int_equal(kill(pid, 0), 0); /* is it there? */
    assert_int_equal(toy.kills, 0);
    assert_int_equal(kill(pid, SIGUSR1), 0);
    assert_int_equal(toy.kills, 1);
    assert_int_equal(toy.signal, SIGUSR1);
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0); /* no end before its report */
    child_exited(SIGUSR1);
    assert_int_equal(kill(pid, SIGKILL), 0); /* as for a zombie of the kernel's */
    assert_int_equal(toy.kills, 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGUSR1);
    assert_int_equal(kill(pid, SIGUSR1), -1);
    assert_int_equal(errno, ESRCH);
    assert_int_equal(toy.kills, 1);
}

static void kill_it(int signal)
{
    (void)signal;
    kill(child_pid(), SIGTERM);
}

static void *kill_on_a_thread(void *argument)
{
    kill_it(0);
    return argument;
}

static void can_be_killed_from_anywhere(void **state)
{
    (void)state;
    pthread_t thread;
    take_over();
    assert_int_equal(pthread_create(&thread, NULL, kill_on_a_thread, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(toy.kills, 1);
    assert_true(signal(SIGUSR2, kill_it) != SIG_ERR);
    raise(SIGUSR2);
    assert_true(signal(SIGUSR2, SIG_DFL) != SIG_ERR);
    assert_int_equal(toy.kills, 2);
    assert_int_equal(toy.signal, SIGTERM);
}

static void others_are_killed_for_real(void **state)
{
    (void)state;
    int status = 0;
    take_over();
    pid_t real = plain_fork();
    if (real == 0)
        for (;;)
            pause();
    assert_int_equal(kill(real, SIGTERM), 0);
    assert_int_equal(waitpid(real, &status, 0), real);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
    assert_int_equal(kill(0, 0), 0); /* the group, not the child that is not there */
    assert_int_equal(toy.kills, 0);
}

/* ---- in the child of a real fork ------------------------------------------------- */

enum { TOLD = 1, NO_CHILD = 2, NO_SUCH_PROCESS = 4, REAL_FORK = 8, NOT_ASKED = 16 };

static int look_around(pid_t pid)
{
    int seen = 0;
    if (toy.forks == 1)
        seen |= TOLD;
    if (child_pid() == 0 && waitpid(pid, NULL, WNOHANG) == -1 && errno == ECHILD)
        seen |= NO_CHILD;
    if (kill(pid, SIGKILL) == -1 && errno == ESRCH)
        seen |= NO_SUCH_PROCESS;
    pid_t grandchild = save();
    if (grandchild == 0)
        _exit(0);
    if (grandchild < PID_CEILING && waitpid(grandchild, NULL, 0) == grandchild)
        seen |= REAL_FORK;
    if (toy.begins == 1 && !toy.kills && !toy.reaps)
        seen |= NOT_ASKED;
    return seen;
}

static void is_no_child_of_a_forked_process(void **state)
{
    (void)state;
    pid_t pid = take_over(), real = plain_fork();
    if (real == 0)
        _exit(look_around(pid));
    assert_int_equal(exit_code_of(real),
                     TOLD | NO_CHILD | NO_SUCH_PROCESS | REAL_FORK | NOT_ASKED);
    assert_int_equal(child_pid(), pid);
    assert_int_equal(toy.forks, 0);
}

/* ---- putting it in and taking it out --------------------------------------------- */

static const char *const names[GOT_TABLE_NAMES] = {"fork", "waitpid", "kill", "pipe",
                                                   "pipe2"};

static void check_program_is_as_before(void)
{
    int ends[2];
    check_forks_for_real(save);
    assert_int_equal(kill(getpid(), 0), 0);
    for (int flags = 0; flags < 2; flags++) {
        assert_int_equal(flags ? pipe2(ends, O_CLOEXEC) : pipe(ends), 0);
        close(ends[0]);
        close(ends[1]);
    }
    assert_int_equal(toy.begins + toy.kills + toy.waits + toy.reaps, 0);
}

static void removed_leaves_the_program_as_before(void **state)
{
    (void)state;
    assert_int_equal(child_remove(), 0);
    check_program_is_as_before();
    struct got_table before = got_table_read(names);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(child_install(&toy_operations), 0);
        got_table_check(&before, names, false);
        assert_int_equal(child_remove(), 0);
        got_table_check(&before, names, true);
        check_program_is_as_before();
    }
    assert_int_equal(child_remove(), 0); /* once more does nothing */
    got_table_check(&before, names, true);
}

static void installs_once(void **state)
{
    (void)state;
    static const struct child_operations others;
    struct got_table before = got_table_read(names);
    assert_int_equal(child_install(&others), -EBUSY);
    got_table_check(&before, names, true);
    take_over();
    assert_int_equal(toy.begins, 1);
}

/* Whoever was told of a child will ask for its end. */
static void stays_until_the_child_is_reaped(void **state)
{
    (void)state;
    pid_t pid = take_over();
    assert_int_equal(child_remove(), -EBUSY);
    child_exited(0);
    assert_int_equal(child_remove(), -EBUSY);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(child_remove(), 0);
}

#define INSTALLED(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        INSTALLED(takes_a_save_over),
        INSTALLED(numbers_are_at_random),
        INSTALLED(names_lead_to_what_was_made),
        INSTALLED(knows_what_is_wanted),
        INSTALLED(knows_who_wants_it),
        INSTALLED(leaves_other_forks_alone),
        INSTALLED(forks_for_real_when_told_to),
        INSTALLED(refuses_when_told_to),
        INSTALLED(refuses_a_transfer_by_a_failed_child),
        INSTALLED(takes_one_at_a_time_on_one_thread),
        INSTALLED(runs_until_it_is_reaped),
        INSTALLED(waits_for_the_end),
        INSTALLED(waits_for_the_report),
        INSTALLED(may_end_before_it_began),
        INSTALLED(real_children_are_reaped_beside_it),
        INSTALLED(other_threads_wait_for_real_children),
        INSTALLED(a_signal_ends_it),
        INSTALLED(can_be_killed_from_anywhere),
        INSTALLED(others_are_killed_for_real),
        INSTALLED(is_no_child_of_a_forked_process),
        INSTALLED(removed_leaves_the_program_as_before),
        INSTALLED(installs_once),
        INSTALLED(stays_until_the_child_is_reaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
