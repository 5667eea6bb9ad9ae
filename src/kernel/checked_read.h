/* Reads of this process's own live memory, from addresses that may be wrong: the bytes
 * go through a pipe, where the kernel answers a bad address with an error. */
#ifndef RDB_UFFD_KERNEL_CHECKED_READ_H
#define RDB_UFFD_KERNEL_CHECKED_READ_H

#include <stddef.h>
#include <stdint.h>

struct checked_reader {
    int pipe[2];
    uint64_t allowed; /* bytes that may still be read */
};

/* 0 or -errno. Any thread; a reader belongs to one. */
int checked_reader_open(struct checked_reader *reader);
void checked_reader_close(struct checked_reader *reader);
/* Copies `length` bytes at `from`. 0; -EFAULT if they are not all readable, -E2BIG if
 * `allowed` does not suffice, -errno. */
int checked_read(struct checked_reader *reader, void *to, uint64_t from, size_t length);

#endif
