/* The pipes that a server makes before it forks, found again by either end. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/child.h"

static void forked(void)
{
}

static int set_up(void **state)
{
    (void)state;
    static const struct child_operations no_saves = {.forked = forked};
    return child_install(&no_saves);
}

static int tear_down(void **state)
{
    (void)state;
    return child_remove();
}

static void make_pipe(int ends[2], bool with_flags)
{
    assert_int_equal(with_flags ? pipe2(ends, O_CLOEXEC) : pipe(ends), 0);
}

static void close_pipe(const int ends[2])
{
    close(ends[0]);
    close(ends[1]);
}

/* Nobody asks there. The first test: what was noted before is noted there too. */
static void a_forked_process_notes_none(void **state)
{
    (void)state;
    int ends[2], status = -1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(pipe(ends) != 0 || child_pipe_peer(ends[0]) != -1);
    assert_int_equal(kill(pid, 0), 0); /* also so that this program imports it */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void *make_pipe_on_a_thread(void *ends)
{
    make_pipe(ends, false);
    return NULL;
}

static void knows_the_other_end_of_a_pipe(void **state)
{
    (void)state;
    int pipes[8][2], late[2];
    pthread_t thread;
    for (int i = 0; i < 8; i++)
        make_pipe(pipes[i], i % 2);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(child_pipe_peer(pipes[i][0]), pipes[i][1]);
        assert_int_equal(child_pipe_peer(pipes[i][1]), pipes[i][0]);
    }
    assert_int_equal(child_pipe_peer(0), -1);
    assert_int_equal(pthread_create(&thread, NULL, make_pipe_on_a_thread, late), 0);
    pthread_join(thread, NULL);
    assert_int_equal(child_pipe_peer(late[0]), -1);
    close_pipe(late);
    make_pipe(late, true); /* the ninth: the first is forgotten */
    assert_int_equal(child_pipe_peer(late[0]), late[1]);
    assert_int_equal(child_pipe_peer(pipes[0][0]), -1);
    assert_int_equal(child_pipe_peer(pipes[1][0]), pipes[1][1]);
    close_pipe(late);
    for (int i = 0; i < 8; i++)
        close_pipe(pipes[i]);
}

/* The server closes them and gets the same numbers again. */
static void knows_the_latest_pipe_of_a_number(void **state)
{
    (void)state;
    int first[2], second[2];
    make_pipe(first, false);
    close(first[0]);
    make_pipe(second, false);
    assert_int_equal(second[0], first[0]);
    assert_int_not_equal(second[1], first[1]);
    assert_int_equal(child_pipe_peer(second[0]), second[1]);
    close(first[1]);
    close_pipe(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_process_notes_none),
        cmocka_unit_test(knows_the_other_end_of_a_pipe),
        cmocka_unit_test(knows_the_latest_pipe_of_a_number),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
