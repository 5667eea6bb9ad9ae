#include "kernel/bare_thread.h"

#include <errno.h>
#include <sched.h>

int bare_thread_start(void *stack, size_t stack_bytes, int (*body)(void *),
                      void *argument)
{
    int started = clone(body, (char *)stack + stack_bytes,
                        CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                            CLONE_SYSVSEM,
                        argument);
    return started < 0 ? -errno : 0;
}
