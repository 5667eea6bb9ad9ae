#include "host/server_stream.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "host/server_internal.h"
#include "kernel/memory.h"

#define STREAM_FILLER 0xA5

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
    return right ? NULL : "its streams have another form";
}
