#include "privacy.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
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

void devices_become_few(void)
{
    static const char *const kept[] = {"null", "zero", "random", "urandom"};
    mounts_become_private();
    const char *directory = mount_small("64k");
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        struct stat node;
        const char *copy = format_text("%s/%s", directory, kept[i]);
        if (stat(format_text("/dev/%s", kept[i]), &node) < 0 ||
            mknod(copy, S_IFCHR | 0666, node.st_rdev) < 0 || chmod(copy, 0666) < 0)
            skip("cannot make a copy of /dev/%s: %s", kept[i], strerror(errno));
    }
    if (mount(directory, "/dev", NULL, MS_BIND, NULL) < 0)
        skip("cannot hide /dev: %s", strerror(errno));
}

void file_pretends(const char *path, const char *content)
{
    const char *copy = format_text("%s/pretended", mount_small("64k"));
    FILE *file = fopen(copy, "w");
    CHECK(file && fputs(content, file) >= 0 && fclose(file) == 0, "cannot write %s",
          copy);
    if (mount(copy, path, NULL, MS_BIND, NULL) < 0)
        skip("cannot mount over %s: %s", path, strerror(errno));
}
