#include "host/server_stream.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "host/server_internal.h"
#include "kernel/image.h"
#include "kernel/memory.h"

#define STREAM_FILLER 0xA5
/* The second of its functions. */
#define STREAM_WRITE sizeof(void *)

void server_stream_begin(struct server_stream *stream)
{
    memset(stream, 0, sizeof(*stream));
    server_symbols.rio_with_buffer(stream->rio, server_symbols.sds_empty());
}

char *server_stream_sds(struct server_stream *stream)
{
    char *sds;
    memcpy(&sds, stream->rio + server_layout->rio_buffer, sizeof(sds));
    return sds;
}

uint64_t server_stream_length(struct server_stream *stream)
{
    uint64_t position; /* where the next byte would go: right behind the pointer */
    memcpy(&position, stream->rio + server_layout->rio_buffer + 8, sizeof(position));
    return position;
}

int server_stream_end(struct server_stream *stream, const char *prefix,
                      unsigned char **bytes, size_t *length)
{
    size_t prefix_length = strlen(prefix);
    size_t streamed = server_stream_length(stream);
    *length = prefix_length + streamed;
    *bytes = memory_map(*length ? *length : 1);
    if (*bytes) {
        memcpy(*bytes, prefix, prefix_length);
        memcpy(*bytes + prefix_length, server_stream_sds(stream), streamed);
    }
    server_symbols.sds_free(server_stream_sds(stream));
    return *bytes ? 0 : -ENOMEM;
}

void server_stream_redirect(struct server_stream *stream,
                            size_t (*write)(void *rio, const void *bytes, size_t length))
{
    memset(stream, 0, sizeof(*stream));
    server_symbols.rio_with_buffer(stream->rio, NULL);
    memcpy(stream->rio + STREAM_WRITE, &write, sizeof(write));
}

/* What is thought to be it is the server's code, and writes. */
static bool is_write_found(void)
{
    struct server_stream stream;
    size_t (*write)(void *rio, const void *bytes, size_t length);
    server_stream_begin(&stream);
    memcpy(&write, stream.rio + STREAM_WRITE, sizeof(write));
    bool found = image_is_same((const void *)write, server_symbols.image) &&
                 write(stream.rio, "value", 5) == 1 && server_stream_length(&stream) == 5;
    server_symbols.sds_free(server_stream_sds(&stream));
    return found;
}

/* A buffer is found where it was put, and nothing was written behind the longest stream. */
const char *server_stream_misplaced(void)
{
    struct server_stream stream;
    char *sds = server_symbols.sds_empty();
    memset(&stream, STREAM_FILLER, sizeof(stream));
    server_symbols.rio_with_buffer(stream.rio, sds);
    bool right = server_stream_sds(&stream) == sds &&
                 server_stream_length(&stream) == 0 &&
                 stream.rio[RIO_BYTES_MAX - 1] == STREAM_FILLER;
    server_symbols.sds_free(sds);
    return right && is_write_found() ? NULL : "its streams have another form";
}
