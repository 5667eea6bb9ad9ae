#include "kernel/advice.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Names the calling process without a descriptor; kernels before 6.14 answer
 * EBADF, and then a pidfd of our own is opened for the call. */
#define OWN_PROCESS     (-10000)
#define RANGES_PER_CALL 512

enum vectored { UNKNOWN, BY_OWN_PROCESS, BY_DESCRIPTOR, REFUSED };
static _Atomic int vectored;
static _Atomic bool forced_loop;

/* Asks the kernel for something harmless, if nobody has asked it yet. */
static void find_out(void)
{
    struct iovec page = {NULL, 4096};
    if (atomic_load_explicit(&vectored, memory_order_relaxed) != UNKNOWN)
        return;
    page.iov_base = mmap(NULL, page.iov_len, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page.iov_base == MAP_FAILED)
        return;
    advice_give_many(&page, 1, MADV_DONTNEED);
    munmap(page.iov_base, page.iov_len);
}

bool advice_is_vectored(void)
{
    if (atomic_load_explicit(&forced_loop, memory_order_relaxed))
        return false;
    find_out();
    int how = atomic_load_explicit(&vectored, memory_order_relaxed);
    return how == BY_OWN_PROCESS || how == BY_DESCRIPTOR;
}

void advice_force_loop(bool loop)
{
    atomic_store_explicit(&forced_loop, loop, memory_order_relaxed);
}

int advice_give(void *start, size_t length, int advice)
{
    return madvise(start, length, advice) == 0 ? 0 : -errno;
}

static size_t ranges_bytes(const struct iovec *ranges, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += ranges[i].iov_len;
    return bytes;
}

static int loop(const struct iovec *ranges, size_t count, int advice)
{
    int first_error = 0;
    for (size_t i = 0; i < count; i++) {
        int error = advice_give(ranges[i].iov_base, ranges[i].iov_len, advice);
        if (error && !first_error)
            first_error = error;
    }
    return first_error;
}

static ssize_t call_by(int how, const struct iovec *ranges, size_t count, int advice)
{
    if (how == BY_OWN_PROCESS)
        return syscall(SYS_process_madvise, OWN_PROCESS, ranges, count, advice, 0);
    int descriptor = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (descriptor < 0)
        return -1;
    ssize_t advised = syscall(SYS_process_madvise, descriptor, ranges, count, advice, 0);
    int error = errno;
    close(descriptor);
    errno = error;
    return advised;
}

/* The number of bytes advised; -1 when no form of the call is taken. */
static ssize_t call(const struct iovec *ranges, size_t count, int advice)
{
    int how = atomic_load_explicit(&vectored, memory_order_relaxed);
    if (how == REFUSED)
        return -1;
    for (int form = how == UNKNOWN ? BY_OWN_PROCESS : how; form < REFUSED; form++) {
        ssize_t advised = call_by(form, ranges, count, advice);
        if (advised >= 0 ||
            (errno != EBADF && errno != EINVAL && errno != ENOSYS && errno != EPERM)) {
            atomic_store_explicit(&vectored, form, memory_order_relaxed);
            return advised < 0 ? 0 : advised;
        }
    }
    atomic_store_explicit(&vectored, REFUSED, memory_order_relaxed);
    return -1;
}

/* One batch. The call stops at the first range it cannot advise and reports the
 * bytes before it: the rest, with the failing range first, goes by the loop. */
static int batch(const struct iovec *ranges, size_t count, int advice)
{
    ssize_t advised = call(ranges, count, advice);
    if (advised < 0)
        return loop(ranges, count, advice);
    if ((size_t)advised == ranges_bytes(ranges, count))
        return 0;
    size_t done = 0;
    while (done < count && (size_t)advised >= ranges[done].iov_len)
        advised -= (ssize_t)ranges[done++].iov_len;
    return loop(ranges + done, count - done, advice);
}

int advice_give_many(const struct iovec *ranges, size_t count, int advice)
{
    if (atomic_load_explicit(&forced_loop, memory_order_relaxed))
        return loop(ranges, count, advice);
    int first_error = 0;
    for (size_t i = 0; i < count; i += RANGES_PER_CALL) {
        size_t n = count - i < RANGES_PER_CALL ? count - i : RANGES_PER_CALL;
        int error = batch(ranges + i, n, advice);
        if (error && !first_error)
            first_error = error;
    }
    return first_error;
}
