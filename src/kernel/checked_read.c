#include "kernel/checked_read.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

/* What an empty pipe takes at once, whatever its size. */
#define PIECE_BYTES 4096

int checked_reader_open(struct checked_reader *reader)
{
    reader->allowed = UINT64_MAX;
    return pipe2(reader->pipe, O_CLOEXEC | O_NONBLOCK) == 0 ? 0 : -errno;
}

void checked_reader_close(struct checked_reader *reader)
{
    close(reader->pipe[0]);
    close(reader->pipe[1]);
}

/* What is written before a bad address is read too, so that the pipe is empty again. */
static int read_piece(const struct checked_reader *reader, void *to, uint64_t from,
                      size_t length)
{
    ssize_t written = write(reader->pipe[1], (const void *)(uintptr_t)from, length);
    if (written < 0)
        return -errno;
    ssize_t got = read(reader->pipe[0], to, (size_t)written);
    if (got < 0)
        return -errno;
    return (size_t)got == length ? 0 : -EFAULT;
}

int checked_read(struct checked_reader *reader, void *to, uint64_t from, size_t length)
{
    int error = 0;
    if (length > reader->allowed)
        return -E2BIG;
    reader->allowed -= length;
    while (length && !error) {
        size_t piece = length < PIECE_BYTES ? length : PIECE_BYTES;
        error = read_piece(reader, to, from, piece);
        to = (char *)to + piece;
        from += piece;
        length -= piece;
    }
    return error;
}
