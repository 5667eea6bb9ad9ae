#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "rdb/output_internal.h"

/* FAULT_STUCK_CREATE: how often to look whether it still is. */
#define STUCK_USEC 1000

/* ---- opening --------------------------------------------------------------------- */

static int create(const struct rdb_output_options *options, const char *doing,
                  struct rdb_output **output)
{
    struct rdb_output *made = memory_map(sizeof(*made));
    int cancel_event = made ? eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK) : -1;
    if (cancel_event < 0) {
        int error = made ? -errno : -ENOMEM;
        memory_unmap(made, sizeof(*made));
        return error;
    }
    made->sink.write = output_sink_write;
    made->options = *options;
    made->doing = doing;
    made->descriptor = -1;
    made->directory = -1;
    made->cancel_event = cancel_event;
    *output = made;
    return 0;
}

/* What was created and cannot be used. */
static int fail_opening(struct rdb_output **output, int error)
{
    rdb_output_close(*output);
    *output = NULL;
    return error;
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
    output_begin_to(output, "creating");
    while (fault_point(FAULT_STUCK_CREATE))
        sleep_usec(STUCK_USEC);
    output->descriptor =
        openat(output->directory, temporary_name,
               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (output->descriptor < 0)
        return output_fail(output, -errno);
    output_begin_to(output, "writing");
    output->created = true;
    /* There are file systems that number their files anew at every look. */
    output->recognised =
        fstat(output->descriptor, &output->ident) == 0 && name_is_ours(output);
    return 0;
}

/* A descriptor of a file that has none, or -errno: -EOPNOTSUPP. */
static int open_nameless(const struct rdb_output *output)
{
    if (fault_point(FAULT_NO_NAMELESS))
        return -EOPNOTSUPP;
    int file = openat(output->directory, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    return file < 0 ? -errno : file;
}

static int link_nameless(const struct rdb_output *output, int file, const char *name)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    return linkat(AT_FDCWD, path, output->directory, name, AT_SYMLINK_FOLLOW) == 0
               ? 0
               : -errno;
}

/* With a file of no use: a file that once had a name gets none again. */
static int try_naming(const struct rdb_output *output)
{
    int file = open_nameless(output);
    if (file < 0)
        return file;
    int error = link_nameless(output, file, output->temporary_name);
    if (!error)
        unlinkat(output->directory, output->temporary_name, 0);
    close(file);
    return error;
}

int rdb_output_create_nameless(struct rdb_output *output, const char *temporary_name)
{
    if (strlen(temporary_name) >= NAME_BYTES)
        return -ENAMETOOLONG;
    memcpy(output->temporary_name, temporary_name, strlen(temporary_name) + 1);
    int error = try_naming(output);
    int file = error ? error : open_nameless(output);
    if (file < 0)
        return file;
    output->descriptor = file;
    output->nameless = true;
    output_begin_to(output, "writing");
    return 0;
}

int rdb_output_open_file(struct rdb_output **output, int directory,
                         const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    int error = create(options, NULL, output);
    if (error)
        return error;
    (*output)->directory = fcntl(directory, F_DUPFD_CLOEXEC, 3);
    return (*output)->directory < 0 ? fail_opening(output, -errno) : 0;
}

int rdb_output_open_nowhere(struct rdb_output **output,
                            const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    int error = create(options, "opening", output);
    if (error || !options->lz4)
        return error;
    (*output)->frame = lz4_frame_create();
    return (*output)->frame ? 0 : fail_opening(output, -ENOMEM);
}

void rdb_output_lead_to_directory(struct rdb_output *output, int directory,
                                  const char *told_name)
{
    output->directory = directory;
    snprintf(output->told_name, sizeof(output->told_name), "%s", told_name);
}

void rdb_output_lead_to_fifo(struct rdb_output *output, int fifo)
{
    output->descriptor = fifo;
    output_begin_to(output, "writing to the fifo");
}

int rdb_output_open_descriptor(struct rdb_output **output, int descriptor,
                               const struct rdb_output_options *options)
{
    DEMAND_MAIN_THREAD();
    int error = create(options, "sending to the replicas", output);
    if (!error)
        (*output)->descriptor = descriptor;
    return error;
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
    int error = create(options, "sending to the replicas", output);
    for (size_t i = 0; i < count && !error; i++)
        (*output)->sockets[i] = (struct socket){sockets[i], send_timeout(sockets[i])};
    if (error)
        return error;
    (*output)->socket_count = count;
    (*output)->to_sockets = true;
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
    output_begin_to(output, "synchronising");
    if (!error && fsync(output->descriptor) != 0)
        error = output_fail(output, -errno);
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
    output_begin_to(output, "giving its name to");
    if (output->nameless)
        return link_nameless(output, output->descriptor, final_name);
    if (linkat(output->directory, output->temporary_name, output->directory, final_name,
               0) != 0)
        return -errno;
    unlinkat(output->directory, output->temporary_name, 0);
    return 0;
}

static int rename_temporary(struct rdb_output *output, const char *final_name)
{
    output_begin_to(output, "publishing what is another file by now:");
    if (output->recognised && !name_is_ours(output))
        return -ESTALE;
    if (output->options.keep_existing)
        return link_temporary(output, final_name);
    if (output->nameless) {
        output_begin_to(output, "giving a name to");
        int error = link_nameless(output, output->descriptor, output->temporary_name);
        if (error)
            return error;
        output->created = true;
    }
    output_begin_to(output, "renaming");
    if (*final_name && renameat(output->directory, output->temporary_name,
                                output->directory, final_name) != 0)
        return -errno;
    return 0;
}

int rdb_output_publish(struct rdb_output *output, const char *final_name)
{
    fault_point_hang(FAULT_HUNG_RENAME);
    /* Whoever did not wait for us any more may have written a newer one since. */
    if (output_is_cancelled(output))
        output_fail(output, -ECANCELED);
    int error = output->error ? 0 : rename_temporary(output, final_name);
    if (error)
        output_fail(output, error);
    if (output->error) {
        remove_temporary(output);
        return output->error;
    }
    output->published = true;
    output_begin_to(output, "synchronising the directory of");
    /* EINVAL: a file system whose directories cannot be synchronised. */
    if (fsync(output->directory) != 0 && errno != EINVAL)
        return output_fail(output, -errno);
    return 0;
}

bool rdb_output_tell_failure(const struct rdb_output *output, char *what, size_t size)
{
    const char *name = output->told_name[0] ? output->told_name : output->temporary_name;
    if (output->directory < 0)
        snprintf(what, size, "%s", output->doing);
    else
        snprintf(what, size, "%s %s", output->doing, name);
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
        int ready = output_wait_for(output, descriptor, POLLIN, -1);
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
