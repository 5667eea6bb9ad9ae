/* Shared by the files of an output: output.c (its life) and output_writing.c (its bytes). */
#ifndef RDB_UFFD_RDB_OUTPUT_INTERNAL_H
#define RDB_UFFD_RDB_OUTPUT_INTERNAL_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "rdb/lz4_frame.h"
#include "rdb/output.h"

#define BUFFER_BYTES (256 * 1024)
#define NAME_BYTES   256

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
    char told_name[NAME_BYTES]; /* "": what failures name is the temporary file */
    bool nameless;              /* no name leads to it yet */
    bool created;               /* the temporary file is there, ours to remove */
    bool recognised;            /* … as long as its name leads to: */
    struct stat ident;          /* of what we have open */
    int error;                  /* the first; nothing is written after it */
    const char *doing;          /* what has failed, if something has */
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

bool output_is_cancelled(const struct rdb_output *output);
/* Notes the error, if it is the first; the first. */
int output_fail(struct rdb_output *output, int error);
/* What is done from here on, for whoever asks what has failed. */
void output_begin_to(struct rdb_output *output, const char *doing);
/* Waits for the descriptor (-1: none), or for the wish to stop. 1 when there is something
 * to do with the descriptor, 0 when there may not be, or -errno: -ETIMEDOUT. */
int output_wait_for(struct rdb_output *output, int descriptor, short wanted,
                    int timeout_msec);
/* What the sink does. */
int output_sink_write(struct rdb_sink *sink, const void *bytes, size_t length);

#endif
