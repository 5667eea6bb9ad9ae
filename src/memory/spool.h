/* The spool: preserved pages that found no room in memory, in a file that has
 * no name. Written in order by the fault server, read back by anybody.
 *
 * The file is unlinked the moment it exists, so that a crash leaves nothing.
 */
#ifndef RDB_UFFD_MEMORY_SPOOL_H
#define RDB_UFFD_MEMORY_SPOOL_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct spool {
    _Atomic int file;       /* -1: not open */
    _Atomic uint64_t pages; /* written since spool_open() */
};

/* Opens the file in `directory` ("" for the current one). Main thread, in
 * prepare. 0 or -errno. */
int spool_open(struct spool *spool, const char *directory);
void spool_close(struct spool *spool);
/* Appends one page; returns its number in the file through `number`. 0 or
 * -errno (-EBADF when not open). Fault server only. */
int spool_write(struct spool *spool, const void *page, uint32_t *number);
/* Reads `length` bytes at `offset` of a page. 0 or -errno. Any thread. */
int spool_read(struct spool *spool, uint32_t number, size_t offset, void *to,
               size_t length);

#endif
