#include "connection.h"

#include "common.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { IN_SIZE = 256 * 1024 };

void connection_open(struct connection *connection, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(connection, 0, sizeof *connection);
    connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connection->fd < 0 ||
        connect(connection->fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("cannot connect to 127.0.0.1:%u: %s", port, strerror(errno));
    int on = 1;
    setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(connection->fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    fcntl(connection->fd, F_SETFL, O_NONBLOCK);
    connection->out_capacity = 64 * 1024;
    connection->out = malloc(connection->out_capacity);
    connection->in = malloc(IN_SIZE);
    if (!connection->out || !connection->in)
        die("out of memory");
}

void connection_close(struct connection *connection)
{
    close(connection->fd);
    free(connection->out);
    free(connection->in);
}

char *connection_room(struct connection *connection, size_t size)
{
    if (connection->out_end + size > connection->out_capacity &&
        connection->out_start > 0) {
        memmove(connection->out, connection->out + connection->out_start,
                connection->out_end - connection->out_start);
        connection->out_end -= connection->out_start;
        connection->out_start = 0;
    }
    if (connection->out_end + size > connection->out_capacity) {
        connection->out_capacity = (connection->out_end + size) * 2;
        connection->out = realloc(connection->out, connection->out_capacity);
        if (!connection->out)
            die("out of memory");
    }
    return connection->out + connection->out_end;
}

void connection_issue(struct connection *connection, size_t length)
{
    connection->out_end += length;
    connection->issued++;
}

bool connection_flush(struct connection *connection)
{
    while (connection->out_start < connection->out_end) {
        ssize_t sent = send(connection->fd, connection->out + connection->out_start,
                            connection->out_end - connection->out_start, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN)
            return false;
        if (sent < 0)
            die("the server is gone (send: %s)", strerror(errno));
        connection->out_start += (size_t)sent;
    }
    connection->out_start = connection->out_end = 0;
    return true;
}

/* Looks at one reply line; true when the reply is complete with it. */
static bool take_line(struct connection *connection, const char *line, size_t length)
{
    if (line[0] == '-')
        die("error reply: %.*s", (int)length, line);
    if (line[0] != '$')
        return true;
    long bulk = strtol(line + 1, NULL, 10);
    if (bulk < 0)
        return true;
    connection->skip = (size_t)bulk + 2;
    return false;
}

static uint64_t count_replies(struct connection *connection)
{
    uint64_t complete = 0;
    char *at = connection->in, *end = connection->in + connection->in_length;
    while (at < end) {
        if (connection->skip > 0) {
            size_t step = (size_t)(end - at) < connection->skip ? (size_t)(end - at)
                                                                : connection->skip;
            at += step;
            connection->skip -= step;
            if (connection->skip == 0)
                complete++;
            continue;
        }
        char *newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            break;
        if (take_line(connection, at, (size_t)(newline - at)))
            complete++;
        at = newline + 1;
    }
    connection->in_length = (size_t)(end - at);
    memmove(connection->in, at, connection->in_length);
    return complete;
}

/* What a wall-clock time, as the kernel stamps packets, is on the monotonic clock. The two clocks must be read at the same
 * moment: a reading that was interrupted in between is taken again. */
static uint64_t monotonic_of(const struct timespec *stamp)
{
    struct timespec wall;
    uint64_t before, after;
    int attempts = 0;
    do {
        before = clock_nsec();
        clock_gettime(CLOCK_REALTIME, &wall);
        after = clock_nsec();
    } while (after - before > 5 * NSEC_PER_USEC && ++attempts < 10);
    int64_t age = (wall.tv_sec - stamp->tv_sec) * (int64_t)NSEC_PER_SEC + wall.tv_nsec -
                  stamp->tv_nsec;
    return age > 0 ? after - (uint64_t)age : after;
}

static uint64_t arrival_time(struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part;
         part = CMSG_NXTHDR(message, part)) {
        struct timespec stamp;
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        memcpy(&stamp, CMSG_DATA(part), sizeof stamp);
        return monotonic_of(&stamp);
    }
    return clock_nsec();
}

uint64_t connection_read(struct connection *connection, uint64_t *arrived)
{
    char stamp[128] __attribute__((aligned(8)));
    struct iovec room = {connection->in + connection->in_length,
                         IN_SIZE - connection->in_length};
    struct msghdr message = {.msg_iov = &room,
                             .msg_iovlen = 1,
                             .msg_control = stamp,
                             .msg_controllen = sizeof stamp};
    ssize_t got;
    do
        got = recvmsg(connection->fd, &message, 0);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EAGAIN)
        return 0;
    if (got <= 0)
        die("the server is gone (%s)", got == 0 ? "connection closed" : strerror(errno));
    *arrived = arrival_time(&message);
    connection->in_length += (size_t)got;
    uint64_t complete = count_replies(connection);
    connection->replies += complete;
    return complete;
}
