#include "rdb/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "rdb/lz4_frame.h"

#define BUFFER_BYTES (256 * 1024)
/* One write() at most: so that a cancel, and the writing back, need not wait
 * for half a gigabyte of one value. */
#define WRITE_BYTES (1024 * 1024)
#define NAME_BYTES  256
/* FAULT_STUCK_CREATE: how often to look whether it still is. */
#define STUCK_USEC 1000

struct socket {
    int descriptor;
    int timeout_msec; /* -1: none */
};

struct rdb_output {
    struct rdb_sink sink; /* first: a sink is turned back into its output */
    struct rdb_output_options options;
    int descriptor;
    struct socket sockets[RDB_OUTPUT_SOCKETS_MAX]; /* those that still take it */
    size_t socket_count;
    bool to_sockets;
    int directory; /* -1: not a file */
    int cancel_event;
    _Atomic bool cancelled;
    bool published;
    char temporary_name[NAME_BYTES];
    bool created;      /* the temporary file is there, ours to remove */
    bool recognised;   /* … as long as its name leads to: */
    struct stat ident; /* of what we have open */
    int error;         /* the first; nothing is written after it */
    const char *doing; /* what has failed, if something has */
    uint64_t checksum;
    uint64_t accepted;
    uint64_t written;
    uint64_t started;        /* write-back was started up to here */
    uint64_t waited;         /* and waited for up to here */
    uint64_t due_usec;       /* when what was written is within the rate */
    struct lz4_frame *frame; /* NULL: bytes go out as they are */
    bool frame_begun;
    size_t used;
    unsigned char buffer[BUFFER_BYTES];
};

/* ---- writing --------------------------------------------------------------------- */

static bool is_cancelled(const struct rdb_output *output)
{
    return atomic_load_explicit(&output->cancelled, memory_order_acquire);
}

static int fail(struct rdb_output *output, int error)
{
    if (!output->error)
        output->error = error;
    return output->error;
}

/* What is done from here on, for whoever asks what has failed. */
static void begin_to(struct rdb_output *output, const char *doing)
{
    if (!output->error)
        output->doing = doing;
}

/* Waits for the descriptor, or for the wish to stop. 1 when there is something
 * to do with the descriptor, 0 when there may not be, or -errno. */
static int wait_for(struct rdb_output *output, int descriptor, short wanted,
                    int timeout_msec)
{
    struct pollfd events[2] = {
        {.fd = descriptor, .events = wanted},
        {.fd = output->cancel_event, .events = POLLIN},
    };
    int ready = poll(events, 2, timeout_msec);
    if (is_cancelled(output))
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
        int waited = wait_for(output, -1, 0, (int)(output->due_usec - now + 999) / 1000);
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
        int ready = wait_for(output, output->descriptor, POLLOUT, patience(output));
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
        if (is_cancelled(output))
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
            ready = wait_for(output, to->descriptor, POLLOUT, to->timeout_msec);
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
            fail(output, error);
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
            is_cancelled(output) ? -ECANCELED : write_some(output, bytes, length);
        if (wrote < 0)
            return fail(output, (int)wrote);
        bytes += wrote;
        length -= (size_t)wrote;
        output->written += (uint64_t)wrote;
        int error = write_back(output);
        if (!error)
            error = keep_to_rate(output, (size_t)wrote);
        if (error)
            return fail(output, error);
    }
    return output->error;
}

static void pack(struct rdb_output *output, const unsigned char *bytes, size_t length)
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
    pack(output, bytes, length);
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

static int accept_bytes(struct rdb_output *output, const void *bytes, size_t length)
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

/* NULL: errno says why. */
static struct rdb_output *create(const struct rdb_output_options *options)
{
    struct rdb_output *made = memory_map(sizeof(*made));
    if (!made) {
        errno = ENOMEM;
        return NULL;
    }
    made->sink.write = sink_write;
    made->options = *options;
    made->descriptor = -1;
    made->directory = -1;
    made->cancel_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (made->cancel_event < 0) {
        int error = errno;
        memory_unmap(made, sizeof(*made));
        errno = error;
        return NULL;
    }
    return made;
}

/* Whether the name still leads to what we have open. Whoever has unlinked it may have
 * put something else in its place. Between this look and what follows upon it somebody
 * could do so again, which no call of the kernel's rules out: it is for mistakes, and who
 * means harm and may write to the directory can put what he likes in place of the dump. */
static bool name_is_ours(const struct rdb_output *output)
{
    struct stat found;
    return fstatat(output->directory, output->temporary_name, &found,
                   AT_SYMLINK_NOFOLLOW) == 0 &&
           found.st_dev == output->ident.st_dev && found.st_ino == output->ident.st_ino;
}

int rdb_output_create_file(struct rdb_output *output, const char *temporary_name)
{
    if (strlen(temporary_name) >= NAME_BYTES)
        return -ENAMETOOLONG;
    memcpy(output->temporary_name, temporary_name, strlen(temporary_name) + 1);
    output->error = 0; /* of the name before it */
    begin_to(output, "creating");
    while (fault_point(FAULT_STUCK_CREATE))
        sleep_usec(STUCK_USEC);
    output->descriptor =
        openat(output->directory, temporary_name,
               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (output->descriptor < 0)
        return fail(output, -errno);
    begin_to(output, "writing");
    output->created = true;
    /* There are file systems that number their files anew at every look. */
    output->recognised =
        fstat(output->descriptor, &output->ident) == 0 && name_is_ours(output);
    return 0;
}

int rdb_output_open_file(struct rdb_output **output, int directory,
                         const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    struct rdb_output *made = create(options);
    if (!made)
        return -errno;
    made->directory = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    if (made->directory < 0) {
        int error = -errno;
        rdb_output_close(made);
        return error;
    }
    *output = made;
    return 0;
}

int rdb_output_open_nowhere(struct rdb_output **output,
                            const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    struct rdb_output *made = create(options);
    if (!made)
        return -errno;
    made->doing = "opening";
    if (options->lz4 && !(made->frame = lz4_frame_create())) {
        rdb_output_close(made);
        return -ENOMEM;
    }
    *output = made;
    return 0;
}

void rdb_output_lead_to_directory(struct rdb_output *output, int directory)
{
    output->directory = directory;
}

void rdb_output_lead_to_fifo(struct rdb_output *output, int fifo)
{
    output->descriptor = fifo;
    begin_to(output, "writing to the fifo");
}

int rdb_output_open_descriptor(struct rdb_output **output, int descriptor,
                               const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    struct rdb_output *made = create(options);
    if (!made)
        return -errno;
    made->descriptor = descriptor;
    made->doing = "sending to the replicas";
    *output = made;
    return 0;
}

int rdb_output_never_block(struct rdb_output *output)
{
    if (output->to_sockets)
        return 0;
    int flags = fcntl(output->descriptor, F_GETFL);
    if (flags < 0 || fcntl(output->descriptor, F_SETFL, flags | O_NONBLOCK) != 0)
        return -errno;
    return 0;
}

static int send_timeout(int socket)
{
    struct timeval limit = {0};
    socklen_t length = sizeof(limit);
    if (getsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, &length) != 0 ||
        (!limit.tv_sec && !limit.tv_usec) || limit.tv_sec > INT_MAX / 2000)
        return -1;
    return (int)(limit.tv_sec * 1000 + limit.tv_usec / 1000);
}

int rdb_output_open_sockets(struct rdb_output **output, const int *sockets, size_t count,
                            const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    if (!count || count > RDB_OUTPUT_SOCKETS_MAX)
        return -EINVAL;
    struct rdb_output *made = create(options);
    if (!made)
        return -errno;
    for (size_t i = 0; i < count; i++)
        made->sockets[i] = (struct socket){sockets[i], send_timeout(sockets[i])};
    made->socket_count = count;
    made->to_sockets = true;
    made->doing = "sending to the replicas";
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

uint64_t rdb_output_written(const struct rdb_output *output)
{
    return output->written;
}

/* ---- the end --------------------------------------------------------------------- */

int rdb_output_sync(struct rdb_output *output)
{
    int error = rdb_output_finish(output);
    begin_to(output, "synchronising");
    if (!error && fsync(output->descriptor) != 0)
        error = fail(output, -errno);
    return error;
}

static void remove_temporary(struct rdb_output *output)
{
    if (output->created && !output->published &&
        (!output->recognised || name_is_ours(output)))
        unlinkat(output->directory, output->temporary_name, 0);
    output->created = false;
}

/* renameat2() could do it at once, but not on every file system that is used for such
 * files: NFS. */
static int link_temporary(struct rdb_output *output, const char *final_name)
{
    begin_to(output, "giving its name to");
    if (linkat(output->directory, output->temporary_name, output->directory, final_name,
               0) != 0)
        return -errno;
    unlinkat(output->directory, output->temporary_name, 0);
    return 0;
}

static int rename_temporary(struct rdb_output *output, const char *final_name)
{
    begin_to(output, "publishing what is another file by now:");
    if (output->recognised && !name_is_ours(output))
        return -ESTALE;
    if (output->options.keep_existing)
        return link_temporary(output, final_name);
    begin_to(output, "renaming");
    if (*final_name && renameat(output->directory, output->temporary_name,
                                output->directory, final_name) != 0)
        return -errno;
    return 0;
}

int rdb_output_publish(struct rdb_output *output, const char *final_name)
{
    fault_point_hang(FAULT_HUNG_RENAME);
    /* Whoever did not wait for us any more may have written a newer one since. */
    if (is_cancelled(output))
        fail(output, -ECANCELED);
    int error = output->error ? 0 : rename_temporary(output, final_name);
    if (error)
        fail(output, error);
    if (output->error) {
        remove_temporary(output);
        return output->error;
    }
    output->published = true;
    begin_to(output, "synchronising the directory of");
    /* EINVAL: a file system whose directories cannot be synchronised. */
    if (fsync(output->directory) != 0 && errno != EINVAL)
        return fail(output, -errno);
    return 0;
}

bool rdb_output_tell_failure(const struct rdb_output *output, char *what, size_t size)
{
    if (output->directory < 0)
        snprintf(what, size, "%s", output->doing);
    else
        snprintf(what, size, "%s %s", output->doing, output->temporary_name);
    return output->error != 0;
}

void rdb_output_end(struct rdb_output *output)
{
    while (output->socket_count)
        close(output->sockets[--output->socket_count].descriptor);
    if (output->descriptor >= 0)
        close(output->descriptor);
    output->descriptor = -1;
}

int rdb_output_wait_closed(struct rdb_output *output, int descriptor)
{
    for (;;) {
        char byte;
        int ready = wait_for(output, descriptor, POLLIN, -1);
        if (ready < 0)
            return ready;
        if (!ready)
            continue; /* `descriptor` may be one that read() would wait on */
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
    rdb_output_end(output);
    if (output->directory >= 0)
        close(output->directory);
    close(output->cancel_event);
    lz4_frame_destroy(output->frame);
    memory_unmap(output, sizeof(*output));
}
