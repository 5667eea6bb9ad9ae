#include "wake.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rdb_uffd.h"
#include "server_api.h"

static int event = -1;

static void on_wake(int descriptor, void *data, int mask)
{
    uint64_t ignored;
    (void)data, (void)mask;
    if (read(descriptor, &ignored, sizeof(ignored)) > 0)
        rdb_uffd_tick();
}

void wake_begin(void)
{
    event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event >= 0 &&
        api.EventLoopAdd(event, API_EVENT_LOOP_READABLE, on_wake, NULL) == API_OK)
        return;
    if (event >= 0)
        close(event);
    event = -1;
}

void wake_end(void)
{
    if (event < 0)
        return;
    api.EventLoopDel(event, API_EVENT_LOOP_READABLE);
    close(event);
    event = -1;
}

void wake_server(void)
{
    uint64_t one = 1;
    if (event >= 0)
        (void)!write(event, &one, sizeof(one));
}
