#include "rdb/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/memory.h"

#define BUFFER_BYTES (256 * 1024)
#define NAME_BYTES   256

struct rdb_output {
    struct rdb_sink sink; /* first: a sink is turned back into its output */
    struct rdb_output_options options;
    int descriptor;
    int directory; /* -1: not a file */
    int cancel_event;
    _Atomic bool cancelled;
    bool published;
    char temporary_name[NAME_BYTES];
    uint64_t checksum;
    uint64_t accepted;
    uint64_t written;
    uint64_t synced; /* background write-back was started up to here */
    size_t used;
    unsigned char buffer[BUFFER_BYTES];
};

/* ---- writing --------------------------------------------------------------------- */

static bool is_cancelled(const struct rdb_output *output)
{
    return atomic_load_explicit(&output->cancelled, memory_order_acquire);
}

/* Waits for the descriptor, or for the wish to stop. */
static int wait_for(struct rdb_output *output, int descriptor, short wanted)
{
    struct pollfd events[2] = {
        {.fd = descriptor, .events = wanted},
        {.fd = output->cancel_event, .events = POLLIN},
    };
    if (poll(events, 2, -1) < 0 && errno != EINTR)
        return -errno;
    return is_cancelled(output) ? -ECANCELED : 0;
}

static ssize_t write_some(struct rdb_output *output, const unsigned char *bytes,
                          size_t length)
{
    ssize_t wrote = fault_point(FAULT_OUTPUT_WRITE)
                        ? (errno = EIO, -1)
                        : write(output->descriptor, bytes, length);
    if (wrote >= 0)
        return wrote;
    if (errno == EAGAIN)
        return wait_for(output, output->descriptor, POLLOUT);
    return errno == EINTR ? 0 : -errno;
}

/* Starts write-back of what is there and waits for what was started before, as
 * the server's incremental fsync does: the last fsync then has little to do. */
static int write_back(struct rdb_output *output)
{
    size_t every = output->options.sync_every;
    if (!every || output->directory < 0 || output->written - output->synced < every)
        return 0;
    off_t from = (off_t)output->synced;
    off_t length = (off_t)(output->written - output->synced);
    if (output->synced >= every)
        sync_file_range(output->descriptor, from - (off_t)every, (off_t)every,
                        SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                            SYNC_FILE_RANGE_WAIT_AFTER);
    sync_file_range(output->descriptor, from, length, SYNC_FILE_RANGE_WRITE);
    output->synced = output->written;
    return 0;
}

static int write_all(struct rdb_output *output, const unsigned char *bytes, size_t length)
{
    while (length) {
        if (is_cancelled(output))
            return -ECANCELED;
        ssize_t wrote = write_some(output, bytes, length);
        if (wrote < 0)
            return (int)wrote;
        bytes += wrote;
        length -= (size_t)wrote;
        output->written += (uint64_t)wrote;
    }
    return write_back(output);
}

int rdb_output_flush(struct rdb_output *output)
{
    size_t used = output->used;
    output->used = 0;
    return write_all(output, output->buffer, used);
}

static int accept_bytes(struct rdb_output *output, const void *bytes, size_t length)
{
    if (length > BUFFER_BYTES - output->used) {
        int error = rdb_output_flush(output);
        if (error)
            return error;
    }
    output->accepted += length;
    if (length > BUFFER_BYTES)
        return write_all(output, bytes, length);
    memcpy(output->buffer + output->used, bytes, length);
    output->used += length;
    return 0;
}

static int sink_write(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct rdb_output *output = (struct rdb_output *)sink;
    if (output->options.checksum)
        output->checksum = output->options.checksum(output->checksum, bytes, length);
    return accept_bytes(output, bytes, length);
}

int rdb_output_write_plain(struct rdb_output *output, const void *bytes, size_t length)
{
    return accept_bytes(output, bytes, length);
}

/* ---- opening --------------------------------------------------------------------- */

static struct rdb_output *create(const struct rdb_output_options *options)
{
    struct rdb_output *output = memory_map(sizeof(*output));
    if (!output)
        return NULL;
    output->sink.write = sink_write;
    output->options = *options;
    output->descriptor = -1;
    output->directory = -1;
    output->cancel_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (output->cancel_event < 0) {
        memory_unmap(output, sizeof(*output));
        return NULL;
    }
    return output;
}

static int open_temporary(struct rdb_output *output, int directory, const char *name)
{
    if (strlen(name) >= NAME_BYTES)
        return -ENAMETOOLONG;
    output->directory = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    if (output->directory < 0)
        return -errno;
    output->descriptor =
        openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (output->descriptor < 0)
        return -errno;
    memcpy(output->temporary_name, name, strlen(name) + 1);
    return 0;
}

int rdb_output_open_file(struct rdb_output **output, int directory,
                         const char *temporary_name,
                         const struct rdb_output_options *options)
{
    struct rdb_output *made = create(options);
    if (!made)
        return -ENOMEM;
    int error = open_temporary(made, directory, temporary_name);
    if (error) {
        rdb_output_close(made);
        return error;
    }
    *output = made;
    return 0;
}

int rdb_output_open_descriptor(struct rdb_output **output, int descriptor,
                               const struct rdb_output_options *options)
{
    struct rdb_output *made = create(options);
    if (!made)
        return -ENOMEM;
    int flags = fcntl(descriptor, F_GETFL);
    if (flags < 0 || fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) != 0) {
        int error = -errno;
        rdb_output_close(made);
        return error;
    }
    made->descriptor = descriptor;
    *output = made;
    return 0;
}

struct rdb_sink *rdb_output_sink(struct rdb_output *output)
{
    return &output->sink;
}

uint64_t rdb_output_checksum(const struct rdb_output *output)
{
    return output->checksum;
}

uint64_t rdb_output_bytes(const struct rdb_output *output)
{
    return output->accepted;
}

/* ---- the end --------------------------------------------------------------------- */

int rdb_output_sync(struct rdb_output *output)
{
    int error = rdb_output_flush(output);
    if (!error && fsync(output->descriptor) != 0)
        error = -errno;
    return error;
}

static void remove_temporary(struct rdb_output *output)
{
    if (output->directory >= 0 && output->temporary_name[0] && !output->published)
        unlinkat(output->directory, output->temporary_name, 0);
    output->temporary_name[0] = '\0';
}

int rdb_output_publish(struct rdb_output *output, const char *final_name)
{
    if (renameat(output->directory, output->temporary_name, output->directory,
                 final_name) != 0) {
        int error = -errno;
        remove_temporary(output);
        return error;
    }
    output->published = true;
    if (fsync(output->directory) != 0 && errno != EINVAL && errno != EBADF)
        return -errno;
    return 0;
}

void rdb_output_end(struct rdb_output *output)
{
    if (output->descriptor >= 0)
        close(output->descriptor);
    output->descriptor = -1;
}

int rdb_output_wait_closed(struct rdb_output *output, int descriptor)
{
    for (;;) {
        char byte;
        int error = wait_for(output, descriptor, POLLIN);
        if (error)
            return error;
        ssize_t got = read(descriptor, &byte, 1);
        if (got == 0 || (got < 0 && errno != EINTR && errno != EAGAIN))
            return 0;
    }
}

void rdb_output_cancel(struct rdb_output *output)
{
    uint64_t one = 1;
    atomic_store_explicit(&output->cancelled, true, memory_order_release);
    (void)!write(output->cancel_event, &one, sizeof(one));
}

void rdb_output_close(struct rdb_output *output)
{
    remove_temporary(output);
    if (output->descriptor >= 0)
        close(output->descriptor);
    if (output->directory >= 0)
        close(output->directory);
    close(output->cancel_event);
    memory_unmap(output, sizeof(*output));
}
