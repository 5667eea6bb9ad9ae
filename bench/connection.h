/* One client connection: non-blocking, any number of commands under way, replies only counted (they are top-level
 * strings, integers and bulks; arrays are not asked for). An error reply or a closed socket ends the program. */
#ifndef BENCH_CONNECTION_H
#define BENCH_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct connection {
    int fd;
    uint64_t issued;  /* commands put into the output buffer */
    uint64_t replies; /* replies complete */
    char *out;        /* bytes not yet taken by the socket: [out_start, out_end) */
    size_t out_start, out_end, out_capacity;
    char *in;
    size_t in_length;
    size_t skip; /* bytes left of the bulk being skipped */
};

/* Connects to 127.0.0.1; dies when that fails. Closed by connection_close(). */
void connection_open(struct connection *connection, uint16_t port);
void connection_close(struct connection *connection);

/* Room for at least `size` more bytes of output; the caller writes there and then calls connection_issue(). */
char *connection_room(struct connection *connection, size_t size);
void connection_issue(struct connection *connection, size_t length);

/* Hands the output to the socket as far as it goes; true when all is gone. */
bool connection_flush(struct connection *connection);

/* Reads what is there and returns the number of replies it completed. `arrived` (CLOCK_MONOTONIC) is when the kernel
 * received the last of them, so that a reader may come late; the time now when the kernel does not tell. */
uint64_t connection_read(struct connection *connection, uint64_t *arrived);

#endif
