#include "kernel/ability.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/pagemap.h"
#include "kernel/userfaultfd.h"

#define SUPPORTED_PAGE_BYTES 4096

static int missing(struct ability *ability, int error, const char *reason)
{
    ability->error = error;
    snprintf(ability->reason, sizeof(ability->reason), "%s", reason);
    return error;
}

static int cannot_open(struct ability *ability, int error)
{
    if (error == -EPERM || error == -EACCES)
        return missing(ability, error,
                       "no permission for userfaultfd: give the server's user "
                       "/dev/userfaultfd (chgrp redis /dev/userfaultfd; chmod 0660), "
                       "CAP_SYS_PTRACE, or set vm.unprivileged_userfaultfd=1");
    if (error == -ENOSYS)
        return missing(ability, error,
                       "this kernel has no userfaultfd (CONFIG_USERFAULTFD), or a "
                       "seccomp filter hides it");
    snprintf(ability->reason, sizeof(ability->reason), "userfaultfd: %s",
             strerror(-error));
    ability->error = error;
    return error;
}

int ability_probe(struct ability *ability)
{
    memset(ability, 0, sizeof(*ability));
    ability->page_bytes = fault_point(FAULT_OTHER_PAGES) ? 65536 : sysconf(_SC_PAGESIZE);
    if (ability->page_bytes != SUPPORTED_PAGE_BYTES) {
        snprintf(ability->reason, sizeof(ability->reason),
                 "this kernel's pages have %ld bytes, and only those of 4096 are served: "
                 "run a kernel that is built with them (CONFIG_ARM64_4K_PAGES)",
                 ability->page_bytes);
        return ability->error = -ENOTSUP;
    }
    int descriptor = userfaultfd_open();
    if (descriptor < 0)
        return cannot_open(ability, descriptor);
    int error = userfaultfd_handshake(descriptor, 0, &ability->features);
    close(descriptor);
    if (error)
        return cannot_open(ability, error);

    ability->protects_unpopulated = ability->features & UFFD_FEATURE_WP_UNPOPULATED;
    ability->reports_thread = ability->features & UFFD_FEATURE_THREAD_ID;
    ability->tracks_asynchronously = ability->features & UFFD_FEATURE_WP_ASYNC;
    if (!(ability->features & UFFD_FEATURE_PAGEFAULT_FLAG_WP))
        return missing(ability, -ENOTSUP,
                       "this kernel cannot write-protect with userfaultfd (needs "
                       "Linux 5.7 on x86-64, 6.10 on arm64)");
    if (!ability->protects_unpopulated)
        return missing(ability, -ENOTSUP,
                       "this kernel does not protect memory that was never touched "
                       "(UFFD_FEATURE_WP_UNPOPULATED, Linux 6.4): a snapshot could "
                       "hold later data");
    descriptor = pagemap_open();
    if (descriptor < 0)
        return missing(ability, descriptor,
                       "/proc/self/pagemap cannot be read: no snapshot could be checked");
    close(descriptor);
    return 0;
}

uint64_t ability_features(const struct ability *ability)
{
    return UFFD_FEATURE_PAGEFAULT_FLAG_WP |
           (fault_point(FAULT_NO_UNPOPULATED) ? 0 : UFFD_FEATURE_WP_UNPOPULATED) |
           (ability->reports_thread ? UFFD_FEATURE_THREAD_ID : 0);
}
