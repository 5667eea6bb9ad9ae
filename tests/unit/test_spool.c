/* Where the spool's file comes from: nameless, or for a moment under a name that no other
 * process takes. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "memory/spool.h"

static char directory[] = "/tmp/rdb_uffd-spool.XXXXXX";

/* In place of the system call: a file system without O_TMPFILE. */
static bool without_nameless;

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = (mode_t)va_arg(arguments, int);
    va_end(arguments);
    if (without_nameless && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static void check_open(void)
{
    struct spool spool = {.file = -1};
    struct stat status;
    assert_int_equal(spool_open(&spool, directory), 0);
    assert_int_equal(fstat(spool.file, &status), 0);
    assert_int_equal(status.st_nlink, 0);
    assert_int_equal(status.st_mode & 0777, 0600);
    spool_close(&spool);
}

static void needs_no_name(void **state)
{
    (void)state;
    check_open();
}

/* The name that a process of this number has taken before it crashed; in a container all
 * have the same one. */
static void a_name_that_is_left_is_no_obstacle(void **state)
{
    (void)state;
    char left[64];
    snprintf(left, sizeof(left), "%s/rdb_uffd-spool-%ld", directory, (long)getpid());
    assert_int_equal(symlink("/nowhere", left), 0);
    without_nameless = true;
    check_open();
    check_open();
    without_nameless = false;
    assert_int_equal(unlink(left), 0);
    assert_int_equal(rmdir(directory), 0); /* empty */
    assert_int_equal(mkdir(directory, 0700), 0);
}

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    (void)state;
    return rmdir(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(needs_no_name),
        cmocka_unit_test(a_name_that_is_left_is_no_obstacle),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
