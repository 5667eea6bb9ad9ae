/* A descriptor from one process to another, through a socket of the Unix domain. */
#ifndef RDB_UFFD_KERNEL_HANDOVER_H
#define RDB_UFFD_KERNEL_HANDOVER_H

/* 0 or -errno. Async-signal-safe. */
int handover_send(int socket, int descriptor);
/* The descriptor, close-on-exec; or -errno, -EPIPE when there is nobody at the other end. */
int handover_receive(int socket);

#endif
