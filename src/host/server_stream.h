/* Bytes made by the server's own functions: they write to a stream ("rio") that grows in
 * memory. Main thread, after server_identify() has found the functions. */
#ifndef RDB_UFFD_HOST_SERVER_STREAM_H
#define RDB_UFFD_HOST_SERVER_STREAM_H

#include <stddef.h>
#include <stdint.h>

#define RIO_BYTES_MAX 512

struct server_stream {
    unsigned char rio[RIO_BYTES_MAX];
};

void server_stream_begin(struct server_stream *stream);
/* What has been written so far, and how much. */
char *server_stream_sds(struct server_stream *stream);
uint64_t server_stream_length(struct server_stream *stream);
/* Copies prefix and stream into memory that the saver may read and free, and
 * frees the stream. 0 or -ENOMEM. */
int server_stream_end(struct server_stream *stream, const char *prefix,
                      unsigned char **bytes, size_t *length);

/* A stream that hands what is written to `write`, which returns 0 on failure; nothing is
 * kept, and nothing to be freed. Also in a forked child. */
void server_stream_redirect(struct server_stream *stream,
                            size_t (*write)(void *rio, const void *bytes, size_t length));

/* NULL, or that such streams do not look as the layout says. */
const char *server_stream_misplaced(void);

#endif
