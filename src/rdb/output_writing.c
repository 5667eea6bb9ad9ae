#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel/fault_points.h"
#include "kernel/thread.h"
#include "rdb/output_internal.h"

/* One write() at most: so that a cancel, and the writing back, need not wait
 * for half a gigabyte of one value. */
#define WRITE_BYTES (1024 * 1024)

bool output_is_cancelled(const struct rdb_output *output)
{
    return atomic_load_explicit(&output->cancelled, memory_order_acquire);
}

int output_fail(struct rdb_output *output, int error)
{
    if (!output->error)
        output->error = error;
    return output->error;
}

void output_begin_to(struct rdb_output *output, const char *doing)
{
    if (!output->error)
        output->doing = doing;
}

int output_wait_for(struct rdb_output *output, int descriptor, short wanted,
                    int timeout_msec)
{
    struct pollfd events[2] = {
        {.fd = descriptor, .events = wanted},
        {.fd = output->cancel_event, .events = POLLIN},
    };
    int ready = poll(events, 2, timeout_msec);
    if (output_is_cancelled(output))
        return -ECANCELED;
    if (ready == 0)
        return -ETIMEDOUT;
    if (ready < 0)
        return errno == EINTR ? 0 : -errno;
    return events[0].revents != 0;
}

/* As much as goes into a tenth of a second, if there is a rate. */
static size_t at_once(const struct rdb_output *output, size_t length)
{
    uint64_t rate = output->options.bytes_per_second;
    size_t most = rate && rate / 10 < WRITE_BYTES ? rate / 10 + 1 : WRITE_BYTES;
    return length < most ? length : most;
}

/* Sleeps until what was written is within the rate. 0 or -ECANCELED. */
static int keep_to_rate(struct rdb_output *output, size_t wrote)
{
    uint64_t rate = output->options.bytes_per_second, now = clock_usec();
    if (!rate)
        return 0;
    if (output->due_usec < now)
        output->due_usec = now;
    output->due_usec += wrote * 1000000 / rate;
    while (now < output->due_usec) {
        int waited =
            output_wait_for(output, -1, 0, (int)(output->due_usec - now + 999) / 1000);
        if (waited < 0 && waited != -ETIMEDOUT)
            return waited;
        now = clock_usec();
    }
    return 0;
}

static int patience(const struct rdb_output *output)
{
    int msec = output->options.patience_msec;
    if (!msec)
        return -1;
    return fault_point(FAULT_NO_PATIENCE) ? 100 : msec;
}

/* How much was written, which may be nothing, or -errno. */
static ssize_t write_some(struct rdb_output *output, const unsigned char *bytes,
                          size_t length)
{
    length = at_once(output, length);
    ssize_t wrote = fault_point(FAULT_OUTPUT_WRITE)
                        ? (errno = EIO, -1)
                        : write(output->descriptor, bytes, length);
    if (wrote >= 0)
        return wrote;
    if (errno == EAGAIN) {
        int ready =
            output_wait_for(output, output->descriptor, POLLOUT, patience(output));
        return ready < 0 ? ready : 0;
    }
    return errno == EINTR ? 0 : -errno;
}

static int write_back_range(struct rdb_output *output, uint64_t from, uint64_t to,
                            unsigned flags)
{
    if (from == to ||
        sync_file_range(output->descriptor, (off_t)from, (off_t)(to - from), flags) == 0)
        return 0;
    /* An error of the disk is told once: here, and then not by fsync(). */
    if (errno == EIO || errno == ENOSPC || errno == EDQUOT)
        return -errno;
    output->options.sync_every = 0; /* this file system cannot */
    return 0;
}

/* Starts write-back of what is there and waits for what was started before, as
 * the server's incremental fsync does: the last fsync then has little to do. */
static int write_back(struct rdb_output *output)
{
    size_t every = output->options.sync_every;
    if (!every || output->directory < 0 || output->written - output->started < every)
        return 0;
    int error = write_back_range(output, output->waited, output->started,
                                 SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE |
                                     SYNC_FILE_RANGE_WAIT_AFTER);
    if (!error)
        error = write_back_range(output, output->started, output->written,
                                 SYNC_FILE_RANGE_WRITE);
    output->waited = output->started;
    output->started = output->written;
    return error;
}

/* All of it, whatever the socket's mode. 0 or -errno. */
static int send_all(struct rdb_output *output, const struct socket *to,
                    const unsigned char *bytes, size_t length)
{
    while (length) {
        if (output_is_cancelled(output))
            return -ECANCELED;
        ssize_t sent =
            fault_point(FAULT_OUTPUT_WRITE)
                ? (errno = EIO, -1)
                : send(to->descriptor, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);
        int ready = 1;
        if (sent > 0) {
            bytes += sent;
            length -= (size_t)sent;
        } else if (sent < 0 && errno == EAGAIN) {
            ready = output_wait_for(output, to->descriptor, POLLOUT, to->timeout_msec);
        } else if (sent < 0 && errno != EINTR) {
            return -errno;
        }
        if (ready < 0)
            return ready;
    }
    return 0;
}

static int send_to_each(struct rdb_output *output, const unsigned char *bytes,
                        size_t length)
{
    for (size_t i = 0; i < output->socket_count && !output->error;) {
        int error = send_all(output, &output->sockets[i], bytes, length);
        if (!error) {
            i++;
            continue;
        }
        close(output->sockets[i].descriptor);
        output->sockets[i] = output->sockets[--output->socket_count];
        if (error == -ECANCELED || !output->socket_count)
            output_fail(output, error);
    }
    return output->error;
}

/* In pieces, so that all replicas get on. */
static int send_pieces(struct rdb_output *output, const unsigned char *bytes,
                       size_t length)
{
    while (length && !output->error) {
        size_t piece = length < WRITE_BYTES ? length : WRITE_BYTES;
        send_to_each(output, bytes, piece);
        bytes += piece;
        length -= piece;
    }
    return output->error;
}

static int write_all(struct rdb_output *output, const unsigned char *bytes, size_t length)
{
    if (output->to_sockets)
        return send_pieces(output, bytes, length);
    while (length && !output->error) {
        ssize_t wrote =
            output_is_cancelled(output) ? -ECANCELED : write_some(output, bytes, length);
        if (wrote < 0)
            return output_fail(output, (int)wrote);
        bytes += wrote;
        length -= (size_t)wrote;
        output->written += (uint64_t)wrote;
        int error = write_back(output);
        if (!error)
            error = keep_to_rate(output, (size_t)wrote);
        if (error)
            return output_fail(output, error);
    }
    return output->error;
}

static void write_packed(struct rdb_output *output, const unsigned char *bytes,
                         size_t length)
{
    if (!output->frame_begun)
        write_all(output, lz4_frame_head, sizeof(lz4_frame_head));
    output->frame_begun = true;
    while (length && !output->error) {
        const unsigned char *block;
        size_t piece = length < LZ4_FRAME_BLOCK_BYTES ? length : LZ4_FRAME_BLOCK_BYTES;
        size_t packed = lz4_frame_pack(output->frame, bytes, piece, &block);
        write_all(output, block, packed);
        bytes += piece;
        length -= piece;
    }
}

static int put_out(struct rdb_output *output, const unsigned char *bytes, size_t length)
{
    if (!output->frame)
        return write_all(output, bytes, length);
    write_packed(output, bytes, length);
    return output->error;
}

int rdb_output_flush(struct rdb_output *output)
{
    size_t used = output->used;
    output->used = 0;
    return put_out(output, output->buffer, used);
}

int rdb_output_finish(struct rdb_output *output)
{
    int error = rdb_output_flush(output);
    if (!error && output->frame)
        error = write_all(output, lz4_frame_end, sizeof(lz4_frame_end));
    return error;
}

int rdb_output_write_plain(struct rdb_output *output, const void *bytes, size_t length)
{
    if (length > BUFFER_BYTES - output->used)
        rdb_output_flush(output);
    if (output->error)
        return output->error;
    output->accepted += length;
    if (length > BUFFER_BYTES)
        return put_out(output, bytes, length);
    memcpy(output->buffer + output->used, bytes, length);
    output->used += length;
    return 0;
}

int output_sink_write(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct rdb_output *output = (struct rdb_output *)sink;
    if (output->options.checksum)
        output->checksum = output->options.checksum(output->checksum, bytes, length);
    return rdb_output_write_plain(output, bytes, length);
}
