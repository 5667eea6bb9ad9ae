/* The spool: preserved pages that found no room in memory, as pieces in a file
 * that has no name. Written by the fault server, a piece at a time, and by the upkeep thread,
 * many together; read back by anybody. Each writer takes its place in the file first.
 *
 * The file is unlinked the moment it exists, so that a crash leaves nothing.
 */
#ifndef RDB_UFFD_MEMORY_SPOOL_H
#define RDB_UFFD_MEMORY_SPOOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "memory/packing.h"

/* Pieces start at multiples of this: 30 bits tell a place in 256 GB. */
#define SPOOL_UNIT   256u
#define SPOOL_PLACES (1u << 30)

/* What a page that is not packed takes of the file, and so many places. */
#define RAW_PIECE_PLACES ((uint32_t)((sizeof(struct piece) - 1) / SPOOL_UNIT + 1))
#define RAW_PIECE_ROOM   (RAW_PIECE_PLACES * SPOOL_UNIT)

/* Raw pieces that are written in one go. */
#define SPOOL_BATCH_PAGES 32
struct spool_batch {
    unsigned char bytes[SPOOL_BATCH_PAGES * RAW_PIECE_ROOM];
    size_t count;
};

struct spool {
    struct thread clerk;
    _Atomic bool stopping;
    _Atomic uint32_t errand; /* futex word: what the clerk does */
    int errand_file;         /* that shall be closed, or was opened, or -errno */
    char errand_directory[1024];
    _Atomic int file;        /* -1: not open */
    _Atomic uint32_t batch;  /* futex word: 1 while a batch is being written */
    _Atomic uint64_t bytes;  /* taken since spool_open() */
    _Atomic int write_error; /* the first since then, 0: none */
    /* What 64 writes take, a running mean. 0: none yet. The fault server writes it. */
    _Atomic uint32_t usec_for_64;
};

/* Starts the thread that opens and closes the file; without it, callers do. 0 or -errno. */
int spool_create(struct spool *spool);
/* At rest. */
void spool_destroy(struct spool *spool);
/* That thread has nothing to do; or else a disk may not answer. Any thread. */
bool spool_is_at_rest(const struct spool *spool);

/* Opens the file in `directory` ("" for the current one). Main thread, in
 * prepare. 0 or -errno; -ETIMEDOUT when that takes longer than a second. */
int spool_open(struct spool *spool, const char *directory);
/* Waits for a batch that is being written: the descriptor's number may be another file's
 * the next moment; and a while until the file is no more, which goes on without. */
void spool_close(struct spool *spool);
/* Appends one piece; returns its place in the file through `place`. 0 or -errno
 * (-EBADF when not open). Fault server only. */
int spool_write(struct spool *spool, const struct piece *piece, uint32_t *place);
/* Adds the 4096 bytes of a page, as they are. Batch of less than SPOOL_BATCH_PAGES. */
void spool_batch_add(struct spool_batch *batch, uint32_t page, const void *page_bytes);
/* Appends all of the batch, which is empty then; its pieces follow each other from `place`
 * on, RAW_PIECE_PLACES apart. 0 or -errno. The upkeep thread: who waits for the disk here
 * is not the one that serves faults. */
int spool_write_batch(struct spool *spool, struct spool_batch *batch, uint32_t *place);
/* False if a batch is still being written after so long. */
bool spool_wait_for_batch(struct spool *spool, uint64_t msec);
/* Reads the piece at `place`. Returns how many bytes of it were there (what
 * piece_unpack() wants to know), or -errno. Any thread. */
long spool_read(struct spool *spool, uint32_t place, struct piece *piece);
/* Reads bytes of the page whose raw piece is at `place`, without looking at its sum: for
 * who knows that it was right. 0, or -EIO. Any thread. */
int spool_read_raw(struct spool *spool, uint32_t place, size_t offset, void *to,
                   size_t length);

#endif
