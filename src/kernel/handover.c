#include "kernel/handover.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

union control {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr aligned;
};

static struct msghdr message(struct iovec *byte, union control *control)
{
    memset(control, 0, sizeof(*control));
    return (struct msghdr){
        .msg_iov = byte,
        .msg_iovlen = 1,
        .msg_control = control->bytes,
        .msg_controllen = sizeof(control->bytes),
    };
}

int handover_send(int socket, int descriptor)
{
    char byte = 0;
    union control control;
    struct iovec vector = {&byte, 1};
    struct msghdr header = message(&vector, &control);
    struct cmsghdr *rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &descriptor, sizeof(descriptor));
    return sendmsg(socket, &header, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

int handover_receive(int socket)
{
    char byte;
    union control control;
    struct iovec vector = {&byte, 1};
    struct msghdr header = message(&vector, &control);
    ssize_t got = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);
    if (got < 0)
        return -errno;
    struct cmsghdr *rights = got ? CMSG_FIRSTHDR(&header) : NULL;
    if (!rights || rights->cmsg_type != SCM_RIGHTS)
        return -EPIPE;
    int descriptor;
    memcpy(&descriptor, CMSG_DATA(rights), sizeof(descriptor));
    return descriptor;
}
