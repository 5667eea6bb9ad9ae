/* Where an RDB goes: a file that becomes the dump, a pipe that somebody reads at
 * the other end, or the sockets of some replicas. Buffers, checksums, writes,
 * synchronises and renames; knows nothing of what the bytes mean.
 *
 * Errors are sticky: after the first failed write or fsync, nothing more is
 * written, every call returns that negative errno, and the file is not
 * published.
 *
 * Thread: one output belongs to the thread that saves. rdb_output_cancel() may
 * come from any thread at any time.
 */
#ifndef RDB_UFFD_RDB_OUTPUT_H
#define RDB_UFFD_RDB_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rdb/encoder.h"

/* The server's crc64(): continues `crc` over `length` bytes. */
typedef uint64_t (*rdb_checksum_function)(uint64_t crc, const unsigned char *bytes,
                                          uint64_t length);

struct rdb_output;

#define RDB_OUTPUT_SOCKETS_MAX 16

struct rdb_output_options {
    rdb_checksum_function checksum; /* NULL: eight zero bytes (rdbchecksum no) */
    size_t sync_every;              /* bytes between two background fsyncs, 0: never */
    bool lz4;                       /* an LZ4 frame with what is written in it */
    uint64_t bytes_per_second;      /* that are written at most, 0: any number */
    int patience_msec;  /* a pipe's reader may take nothing for so long, 0: for ever */
    bool keep_existing; /* a file that has the final name: this one is not published */
};

/* Makes ready to write a file in the directory `directory` (a descriptor opened for
 * reading, dup'ed). Touches no disk: a file system may keep its caller waiting for
 * seconds, and this is the pause. 0 or -errno. Main thread, in prepare. */
int rdb_output_open_file(struct rdb_output **output, int directory,
                         const struct rdb_output_options *options);
/* File only, before anything is written: creates it. 0 or -errno; -EEXIST when the name
 * is taken, also by a symbolic link: try another one. */
int rdb_output_create_file(struct rdb_output *output, const char *temporary_name);
/* Instead of that: a file that no name leads to before it is published, so that nothing
 * is left of it however this process ends. `temporary_name`: what it is called for the
 * instant in which it replaces another. What will be needed then is tried now. 0; -errno:
 * not here, by this file system or without /proc: it needs a name. */
int rdb_output_create_nameless(struct rdb_output *output, const char *temporary_name);
/* Takes over `descriptor`, a pipe's write end. On failure it is still the caller's. 0
 * or -errno. */
int rdb_output_open_descriptor(struct rdb_output **output, int descriptor,
                               const struct rdb_output_options *options);
/* Not for files, before anything is written: makes the pipe non-blocking, for everyone
 * who has it, so it must be certain by now that nobody else will write to it. From then
 * on a write waits in poll() for room, or for rdb_output_cancel(). Sockets need no such
 * thing. 0 or -errno. */
int rdb_output_never_block(struct rdb_output *output);

/* Makes ready to write somewhere that is told later: a name may lie on a disk that does not
 * answer, and this is the pause. 0 or -errno. Main thread, in prepare. */
int rdb_output_open_nowhere(struct rdb_output **output,
                            const struct rdb_output_options *options);
/* … by one of these, which take the descriptor over: a directory, for
 * rdb_output_create_file() or its neighbour, with what failures call the file; or a fifo's
 * write end that does not block. */
void rdb_output_lead_to_directory(struct rdb_output *output, int directory,
                                  const char *told_name);
void rdb_output_lead_to_fifo(struct rdb_output *output, int fifo);

/* Takes over sockets, which stay in the mode they are in: a copy goes to each. One
 * that fails, or takes nothing for as long as its own SO_SNDTIMEO, is left out from
 * then on; only when none is left the output has failed. On failure the sockets are
 * still the caller's. 0 or -errno. */
int rdb_output_open_sockets(struct rdb_output **output, const int *sockets, size_t count,
                            const struct rdb_output_options *options);

/* The sink for an encoder. Valid as long as the output. */
struct rdb_sink *rdb_output_sink(struct rdb_output *output);
/* Writes bytes that are not part of the checksum (the EOF marks around a
 * diskless transfer). 0 or -errno. */
int rdb_output_write_plain(struct rdb_output *output, const void *bytes, size_t length);
/* Checksum of all that went through the sink so far, 0 when there is none. */
uint64_t rdb_output_checksum(const struct rdb_output *output);
/* Bytes accepted so far; and those written, of which there may be fewer: packed. */
uint64_t rdb_output_bytes(const struct rdb_output *output);
uint64_t rdb_output_written(const struct rdb_output *output);

/* Writes what is buffered. 0 or -errno. */
int rdb_output_flush(struct rdb_output *output);
/* After the last byte: flush, and the end of the frame if it is one. 0 or -errno. */
int rdb_output_finish(struct rdb_output *output);
/* File only: finish and fsync. After it, rdb_output_publish() can only fail for
 * reasons of the directory. 0 or -errno. */
int rdb_output_sync(struct rdb_output *output);
/* File only, after rdb_output_sync(): renames the temporary file to
 * `final_name` in the same directory ("": it keeps its name) and synchronises the
 * directory. 0 or -errno; on failure the temporary file is gone: removed, or already
 * renamed when it was the directory that could not be synchronised. -ESTALE: its name
 * is another file's by now, which is left alone. -EEXIST: there is a file of the final
 * name, which is to be kept. */
int rdb_output_publish(struct rdb_output *output, const char *final_name);
/* What could not be done, as in "writing temp-1.rdb"; false if nothing has failed. Not
 * while it is being written. */
bool rdb_output_tell_failure(const struct rdb_output *output, char *what, size_t size);
/* Makes any present and future call that writes or waits return -ECANCELED; a
 * call that waits for a disk still ends with it. Any thread; async-signal-safe. */
void rdb_output_cancel(struct rdb_output *output);
/* Not for files: closes, so that the reader sees the end. */
void rdb_output_end(struct rdb_output *output);
/* Waits until the writers of the pipe `descriptor` have closed it. 0, or
 * -ECANCELED. */
int rdb_output_wait_closed(struct rdb_output *output, int descriptor);
/* Closes and frees; an unpublished temporary file is removed, if it still is ours. */
void rdb_output_close(struct rdb_output *output);

#endif
