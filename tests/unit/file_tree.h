/* A tree of files below a directory of its own, like those that kernels show in /proc and
 * /sys: put() writes a file of it. After cmocka.h. */
#ifndef RDB_UFFD_TESTS_UNIT_FILE_TREE_H
#define RDB_UFFD_TESTS_UNIT_FILE_TREE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char root[32];

static int set_up(void **state)
{
    (void)state;
    strcpy(root, "/tmp/rdb_uffd-tree-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int tear_down(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", root);
    return system(command);
}

static void put(const char *path, const char *text)
{
    char command[1024];
    snprintf(command, sizeof(command),
             "cd '%s' && mkdir -p \"$(dirname %s)\" && printf '%%b' '%s' >'%s'", root,
             path, text, path);
    assert_int_equal(system(command), 0);
}

#endif
