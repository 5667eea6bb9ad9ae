#include "kernel/cached_lookup.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

int cached_lookup(int directory, const char *path, int flags)
{
    struct open_how how = {
        .flags = (uint64_t)(flags | O_PATH | O_NOFOLLOW | O_CLOEXEC),
        .resolve = RESOLVE_CACHED,
    };
    long found = syscall(SYS_openat2, directory, path, &how, sizeof(how));
    return found < 0 ? -errno : (int)found;
}

int cached_look_at(int found, struct statx *what)
{
    return statx(found, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE | STATX_INO,
                 what) == 0
               ? 0
               : -errno;
}
