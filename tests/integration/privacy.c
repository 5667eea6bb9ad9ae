#include "privacy.h"

#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define NODE "/dev/userfaultfd"

void mounts_become_private(void)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        skip("no private mounts: %s", strerror(errno));
}

const char *mount_small(const char *size)
{
    static int count;
    char *directory = format_text("%s/mount-%d", test_directory(), count++);
    CHECK(mkdir(directory, 0755) == 0, "%s", strerror(errno));
    if (mount("tmpfs", directory, "tmpfs", 0, format_text("size=%s,mode=0777", size)) < 0)
        skip("cannot mount a file system: %s", strerror(errno));
    return directory;
}

void mount_read_only(const char *directory, bool read_only)
{
    CHECK(mount(NULL, directory, NULL, MS_REMOUNT | (read_only ? MS_RDONLY : 0), NULL) ==
              0,
          "remounting %s: %s", directory, strerror(errno));
}

void userfaultfd_node(unsigned mode)
{
    struct stat node;
    if (stat(NODE, &node) < 0)
        skip("no " NODE);
    mounts_become_private();
    /* On a file system that surely allows devices. */
    char *copy = format_text("%s/userfaultfd", mount_small("64k"));
    if (mknod(copy, S_IFCHR | mode, node.st_rdev) < 0 || chmod(copy, mode) < 0 ||
        mount(copy, NODE, NULL, MS_BIND, NULL) < 0)
        skip("cannot make a copy of " NODE ": %s", strerror(errno));
}
