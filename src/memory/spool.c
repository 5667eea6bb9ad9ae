#include "memory/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/random.h"
#include "kernel/thread.h"

/* FAULT_SPOOL_SLOW: a device of 2 MB/s. */
#define SLOW_USEC   2000
#define STACK_BYTES (64 * 1024)
/* So long the freeze waits for the file, and the end of a save until it is no more, which
 * takes a while when it is large. */
#define OPENING_MSEC 1000
#define CLOSING_MSEC 4000

/* File systems without O_TMPFILE (overlayfs of old, NFS): a name for a moment. At random,
 * since another process may have the same pid, and a crash may leave the file. */
static int open_and_unlink(const char *directory)
{
    char path[4096];
    int length = snprintf(path, sizeof(path), "%s/rdb_uffd-spool-%016llx", directory,
                          (unsigned long long)random_number());
    if (length < 0 || (size_t)length >= sizeof(path))
        return -ENAMETOOLONG;
    int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -errno;
    unlink(path);
    return file;
}

/* -errno, or the descriptor. */
static int open_file(const char *directory)
{
    if (!*directory)
        directory = ".";
    int file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL))
        file = open_and_unlink(directory);
    else if (file < 0)
        file = -errno;
    return file;
}

/* ---- the clerk ------------------------------------------------------------------- */

/* A disk that does not answer lets nobody go who opens or closes a file there, so a thread
 * does it that nobody needs: others wait for it, not for ever. `errand` is stored with
 * release and loaded with acquire by both: the directory, or the file to be closed, was there
 * before it is sent, and the file that was opened before it is at rest. */
enum errand {
    AT_REST,
    OPENING,
    CLOSING,
    LEFT, /* opening, and whoever wanted it does not wait any more */
};

static void end_errand(struct spool *spool, uint32_t errand)
{
    fault_point_hang(FAULT_HUNG_OPENING);
    if (errand == CLOSING)
        close(spool->errand_file);
    else
        spool->errand_file = open_file(spool->errand_directory);
    if (!atomic_compare_exchange_strong_explicit(&spool->errand, &errand, AT_REST,
                                                 memory_order_acq_rel,
                                                 memory_order_relaxed)) {
        if (spool->errand_file >= 0)
            close(spool->errand_file);
        atomic_store_explicit(&spool->errand, AT_REST, memory_order_release);
    }
    futex_wake_all(&spool->errand);
}

static void *clerk(void *argument)
{
    struct spool *spool = argument;
    /* The freeze waits for it. */
    thread_set_urgent(true);
    while (!atomic_load_explicit(&spool->stopping, memory_order_acquire)) {
        uint32_t errand = atomic_load_explicit(&spool->errand, memory_order_acquire);
        if (errand == AT_REST)
            futex_wait(&spool->errand, AT_REST, -1);
        else
            end_errand(spool, errand);
    }
    return NULL;
}

int spool_create(struct spool *spool)
{
    return thread_start(&spool->clerk, THREAD_CLERK, STACK_BYTES, clerk, spool);
}

void spool_destroy(struct spool *spool)
{
    DEMAND(spool_is_at_rest(spool));
    atomic_store_explicit(&spool->stopping, true, memory_order_release);
    thread_join_sleeper(&spool->clerk, &spool->errand);
}

bool spool_is_at_rest(const struct spool *spool)
{
    return atomic_load_explicit(&spool->errand, memory_order_acquire) == AT_REST;
}

/* True when it was done in time. */
static bool send_clerk(struct spool *spool, uint32_t errand, uint64_t msec)
{
    uint64_t until = clock_usec() + msec * 1000;
    atomic_store_explicit(&spool->errand, errand, memory_order_release);
    futex_wake_all(&spool->errand);
    while (!spool_is_at_rest(spool) && clock_usec() < until)
        futex_wait(&spool->errand, errand, 10);
    return spool_is_at_rest(spool);
}

static int open_in_time(struct spool *spool, const char *directory)
{
    uint32_t opening = OPENING;
    if (!spool->clerk.running)
        return open_file(directory);
    if (!spool_is_at_rest(spool))
        return -ETIMEDOUT;
    if (strlen(directory) >= sizeof(spool->errand_directory))
        return -ENAMETOOLONG;
    memcpy(spool->errand_directory, directory, strlen(directory) + 1);
    if (!send_clerk(spool, OPENING, OPENING_MSEC) &&
        atomic_compare_exchange_strong_explicit(
            &spool->errand, &opening, LEFT, memory_order_acq_rel, memory_order_acquire))
        return -ETIMEDOUT;
    return spool->errand_file;
}

/* ---- the file -------------------------------------------------------------------- */

int spool_open(struct spool *spool, const char *directory)
{
    DEMAND_MAIN_THREAD();
    int file = open_in_time(spool, directory);
    if (file < 0)
        return file;
    atomic_store_explicit(&spool->usec_for_64, 0, memory_order_relaxed);
    atomic_store_explicit(&spool->bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&spool->write_error, 0, memory_order_relaxed);
    atomic_store_explicit(&spool->file, file, memory_order_release);
    return 0;
}

void spool_close(struct spool *spool)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    /* Ordered against spool_write_batch(): either it finds -1, or we find it writing. */
    int file = atomic_exchange_explicit(&spool->file, -1, memory_order_seq_cst);
    while (atomic_load_explicit(&spool->batch, memory_order_seq_cst))
        futex_wait(&spool->batch, 1, 10);
    if (file < 0)
        return;
    if (!spool->clerk.running) {
        close(file);
        return;
    }
    spool->errand_file = file;
    send_clerk(spool, CLOSING, CLOSING_MSEC);
}

bool spool_wait_for_batch(struct spool *spool, uint64_t msec)
{
    uint64_t until = clock_usec() + msec * 1000;
    while (atomic_load_explicit(&spool->batch, memory_order_seq_cst)) {
        if (clock_usec() >= until)
            return false;
        futex_wait(&spool->batch, 1, 10);
    }
    return true;
}

static int write_all(int file, const void *from, size_t length, uint64_t at)
{
    for (size_t done = 0; done < length;) {
        ssize_t wrote =
            pwrite(file, (const char *)from + done, length - done, (off_t)(at + done));
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return wrote < 0 ? -errno : -EIO;
        done += (size_t)wrote;
    }
    return 0;
}

/* Two threads append: each writes to what it has taken. */
static int write_at_end(struct spool *spool, const void *from, size_t length,
                        uint32_t *place)
{
    int file = atomic_load_explicit(&spool->file, memory_order_seq_cst);
    if (file < 0)
        return -EBADF;
    if (fault_point(FAULT_SPOOL_WRITE))
        return -EIO;
    if (fault_point(FAULT_SPOOL_SLOW))
        sleep_usec(SLOW_USEC);
    uint64_t at = atomic_fetch_add_explicit(&spool->bytes, round_up(length, SPOOL_UNIT),
                                            memory_order_relaxed);
    if ((at + length) / SPOOL_UNIT >= SPOOL_PLACES)
        return -EFBIG;
    *place = (uint32_t)(at / SPOOL_UNIT);
    return write_all(file, from, length, at);
}

static int append(struct spool *spool, const void *from, size_t length, uint32_t *place)
{
    int error = write_at_end(spool, from, length, place), none = 0;
    if (error)
        atomic_compare_exchange_strong_explicit(&spool->write_error, &none, error,
                                                memory_order_relaxed,
                                                memory_order_relaxed);
    return error;
}

int spool_write(struct spool *spool, const struct piece *piece, uint32_t *place)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    uint64_t began = clock_usec();
    int error = append(spool, piece, piece_bytes(&piece->header), place);
    if (error)
        return error;
    uint32_t mean = atomic_load_explicit(&spool->usec_for_64, memory_order_relaxed);
    mean = (uint32_t)(mean - mean / 16 + (clock_usec() - began) * 64 / 16);
    atomic_store_explicit(&spool->usec_for_64, mean, memory_order_relaxed);
    return 0;
}

void spool_batch_add(struct spool_batch *batch, uint32_t page, const void *page_bytes)
{
    DEMAND(batch->count < SPOOL_BATCH_PAGES);
    struct piece *piece = (struct piece *)(batch->bytes + batch->count * RAW_PIECE_ROOM);
    piece_of_raw(piece, page, page_bytes);
    batch->count++;
}

int spool_write_batch(struct spool *spool, struct spool_batch *batch, uint32_t *place)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    size_t bytes = batch->count * RAW_PIECE_ROOM;
    batch->count = 0;
    /* Said before write_at_end() looks for the file: see spool_close(). What is written is
     * there for whoever learns of its place from us (post_request(), release). */
    atomic_store_explicit(&spool->batch, 1, memory_order_seq_cst);
    fault_point_hang(FAULT_HUNG_UPKEEP);
    int error = append(spool, batch->bytes, bytes, place);
    atomic_store_explicit(&spool->batch, 0, memory_order_release);
    futex_wake_all(&spool->batch);
    return error;
}

long spool_read(struct spool *spool, uint32_t place, struct piece *piece)
{
    fault_point_hang(FAULT_HUNG_READER);
    if (fault_point(FAULT_SPOOL_READ))
        return -EIO;
    int file = atomic_load_explicit(&spool->file, memory_order_acquire);
    off_t at = (off_t)((uint64_t)place * SPOOL_UNIT);
    size_t have = 0;
    while (have < sizeof(*piece)) {
        ssize_t got =
            pread(file, (char *)piece + have, sizeof(*piece) - have, at + (off_t)have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -errno;
        if (!got) /* the end of the file */
            break;
        have += (size_t)got;
        if (have >= sizeof(piece->header) && have >= piece_bytes(&piece->header))
            break;
    }
    if (fault_point(FAULT_DAMAGED_SPOOL))
        piece->bytes[0] ^= 1;
    return (long)have;
}

int spool_read_raw(struct spool *spool, uint32_t place, size_t offset, void *to,
                   size_t length)
{
    int file = atomic_load_explicit(&spool->file, memory_order_acquire);
    uint64_t at = (uint64_t)place * SPOOL_UNIT + offsetof(struct piece, bytes) + offset;
    if (fault_point(FAULT_SPOOL_READ))
        return -EIO;
    for (size_t have = 0; have < length;) {
        ssize_t got = pread(file, (char *)to + have, length - have, (off_t)(at + have));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -EIO;
        have += (size_t)got;
    }
    return 0;
}
