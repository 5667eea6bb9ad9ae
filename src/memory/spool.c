#include "memory/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "memory/pages.h"

/* File systems without O_TMPFILE (overlayfs of old, NFS): a name for a moment. */
static int open_and_unlink(const char *directory)
{
    char path[4096];
    int length =
        snprintf(path, sizeof(path), "%s/rdb_uffd-spool-%ld", directory, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof(path))
        return -ENAMETOOLONG;
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return -errno;
    unlink(path);
    return file;
}

int spool_open(struct spool *spool, const char *directory)
{
    if (!*directory)
        directory = ".";
    int file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        file = open_and_unlink(directory);
    else if (file < 0)
        file = -errno;
    if (file < 0)
        return file;
    atomic_store_explicit(&spool->pages, 0, memory_order_relaxed);
    atomic_store_explicit(&spool->file, file, memory_order_release);
    return 0;
}

void spool_close(struct spool *spool)
{
    int file = atomic_exchange_explicit(&spool->file, -1, memory_order_acq_rel);
    if (file >= 0)
        close(file);
}

int spool_write(struct spool *spool, const void *page, uint32_t *number)
{
    int file = atomic_load_explicit(&spool->file, memory_order_acquire);
    if (file < 0)
        return -EBADF;
    if (fault_point(FAULT_SPOOL_WRITE))
        return -EIO;
    uint64_t at = atomic_load_explicit(&spool->pages, memory_order_relaxed);
    size_t done = 0;
    while (done < PAGE_BYTES) {
        ssize_t wrote = pwrite(file, (const char *)page + done, PAGE_BYTES - done,
                               (off_t)(at * PAGE_BYTES + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? -errno : -EIO;
        done += (size_t)wrote;
    }
    atomic_store_explicit(&spool->pages, at + 1, memory_order_relaxed);
    *number = (uint32_t)at;
    return 0;
}

int spool_read(struct spool *spool, uint32_t number, size_t offset, void *to,
               size_t length)
{
    if (fault_point(FAULT_SPOOL_READ))
        return -EIO;
    int file = atomic_load_explicit(&spool->file, memory_order_acquire);
    off_t at = (off_t)((uint64_t)number * PAGE_BYTES + offset);
    while (length) {
        ssize_t got = pread(file, to, length, at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        to = (char *)to + got;
        at += got;
        length -= (size_t)got;
    }
    return 0;
}
