#include "kernel/userfaultfd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

static int open_through_device(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0)
        return -errno;
    int descriptor = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    int result = descriptor < 0 ? -errno : descriptor;
    close(device);
    return result;
}

int userfaultfd_open(void)
{
    long descriptor = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (descriptor >= 0)
        return (int)descriptor;
    if (errno != EPERM)
        return -errno;
    int through_device = open_through_device();
    /* A kernel without the device says ENOENT; what the operator lacks is
     * still the permission. */
    return through_device == -ENOENT ? -EPERM : through_device;
}

int userfaultfd_handshake(int descriptor, uint64_t features, uint64_t *granted)
{
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (ioctl(descriptor, UFFDIO_API, &api) != 0)
        return -errno;
    if (granted)
        *granted = api.features;
    return 0;
}

static int register_for(int descriptor, uint64_t start, uint64_t length, uint64_t mode)
{
    struct uffdio_register request = {
        .range = {.start = start, .len = length},
        .mode = mode,
    };
    return ioctl(descriptor, UFFDIO_REGISTER, &request) == 0 ? 0 : -errno;
}

int userfaultfd_register(int descriptor, uint64_t start, uint64_t length)
{
    return register_for(descriptor, start, length, UFFDIO_REGISTER_MODE_WP);
}

int userfaultfd_register_missing(int descriptor, uint64_t start, uint64_t length)
{
    return register_for(descriptor, start, length,
                        UFFDIO_REGISTER_MODE_WP | UFFDIO_REGISTER_MODE_MISSING);
}

int userfaultfd_unregister(int descriptor, uint64_t start, uint64_t length)
{
    struct uffdio_range range = {.start = start, .len = length};
    return ioctl(descriptor, UFFDIO_UNREGISTER, &range) == 0 ? 0 : -errno;
}

static int write_protect(int descriptor, uint64_t start, uint64_t length, uint64_t mode)
{
    struct uffdio_writeprotect request = {
        .range = {.start = start, .len = length},
        .mode = mode,
    };
    return ioctl(descriptor, UFFDIO_WRITEPROTECT, &request) == 0 ? 0 : -errno;
}

int userfaultfd_protect(int descriptor, uint64_t start, uint64_t length)
{
    return write_protect(descriptor, start, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

int userfaultfd_unprotect(int descriptor, uint64_t start, uint64_t length)
{
    /* What the caller has published (a copy, or that the view has failed) before the page
     * can be written to: whoever reads new bytes finds it. The kernel's own barriers are
     * not documented as one. Pairs with the acquire fence in view.c, copy_live(). */
    atomic_thread_fence(memory_order_seq_cst);
    return write_protect(descriptor, start, length, 0);
}

int userfaultfd_wake(int descriptor, uint64_t start, uint64_t length)
{
    struct uffdio_range range = {.start = start, .len = length};
    return ioctl(descriptor, UFFDIO_WAKE, &range) == 0 ? 0 : -errno;
}

int userfaultfd_give(int descriptor, uint64_t to, const void *from, uint64_t length,
                     uint64_t *done)
{
    struct uffdio_copy copy = {
        .dst = to,
        .src = (uint64_t)(uintptr_t)from,
        .len = length,
        .mode = UFFDIO_COPY_MODE_WP,
    };
    int error = ioctl(descriptor, UFFDIO_COPY, &copy) == 0 ? 0 : -errno;
    *done = copy.copy > 0 ? (uint64_t)copy.copy : 0;
    return error;
}

int userfaultfd_read(int descriptor, struct uffd_msg *messages, size_t count)
{
    ssize_t got = read(descriptor, messages, count * sizeof(*messages));
    if (got < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    return (int)((size_t)got / sizeof(*messages));
}
