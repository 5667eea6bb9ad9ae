/* Where a server is, as it is given on the command line. */
#ifndef UFFD_WATCH_ADDRESS_H
#define UFFD_WATCH_ADDRESS_H

struct address {
    const char *path; /* of a unix socket, part of the given name; NULL: host and port */
    char host[256];
    int port;
};

/* Takes apart "host", "host:port", "::1", "[::1]:port", or the path of a socket, which
 * has a slash in it. Returns NULL, or what is wrong: static text. */
const char *address_parse(struct address *address, const char *name);

#endif
