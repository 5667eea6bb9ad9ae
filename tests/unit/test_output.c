/* Files and pipes that dumps go to: errors stay, nothing half is published. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>

#include <cmocka.h>
#include <lz4.h>

#include "kernel/thread.h"
#include "rdb/lz4_frame.h"
#include "rdb/output.h"

static char directory_name[] = "/tmp/rdb_uffd-output.XXXXXX";
static int directory;

static uint64_t sum(uint64_t crc, const unsigned char *bytes, uint64_t length)
{
    for (uint64_t i = 0; i < length; i++)
        crc = crc * 31 + bytes[i];
    return crc;
}

static const struct rdb_output_options options = {.checksum = sum, .sync_every = 65536};

static bool exists(const char *name)
{
    return faccessat(directory, name, F_OK, 0) == 0;
}

/* What the operator is told. */
static void check_failure(const struct rdb_output *output, const char *expected)
{
    char what[96];
    assert_true(rdb_output_tell_failure(output, what, sizeof(what)));
    assert_string_equal(what, expected);
}

static struct rdb_output *open_file(void)
{
    struct rdb_output *output;
    assert_int_equal(rdb_output_open_file(&output, directory, &options), 0);
    assert_false(exists("temp.rdb"));
    assert_int_equal(rdb_output_create_file(output, "temp.rdb"), 0);
    assert_true(exists("temp.rdb"));
    return output;
}

static int put(struct rdb_output *output, const void *bytes, size_t length)
{
    struct rdb_sink *sink = rdb_output_sink(output);
    return sink->write(sink, bytes, length);
}

static void publishes_a_file(void **state)
{
    (void)state;
    char text[100000];
    memset(text, 'x', sizeof(text));
    struct rdb_output *output = open_file();
    uint64_t expected = 0;
    for (int i = 0; i < 20; i++) {
        assert_int_equal(put(output, text, sizeof(text) - (size_t)i), 0);
        expected = sum(expected, (unsigned char *)text, sizeof(text) - (size_t)i);
    }
    assert_int_equal(rdb_output_checksum(output), expected);
    assert_int_equal(rdb_output_write_plain(output, "tail", 4), 0);
    assert_int_equal(rdb_output_checksum(output), expected);
    assert_int_equal(rdb_output_sync(output), 0);
    assert_false(exists("final.rdb"));
    assert_int_equal(rdb_output_publish(output, "final.rdb"), 0);
    rdb_output_close(output);
    struct stat file;
    assert_int_equal(fstatat(directory, "final.rdb", &file, 0), 0);
    assert_int_equal(file.st_size, 20 * 100000 - 190 + 4);
    assert_false(exists("temp.rdb"));
    unlinkat(directory, "final.rdb", 0);
}

static void closing_removes_what_is_not_published(void **state)
{
    (void)state;
    struct rdb_output *output = open_file();
    assert_int_equal(put(output, "half", 4), 0);
    rdb_output_close(output);
    assert_false(exists("temp.rdb"));
}

static void missing_directory_is_an_error(void **state)
{
    (void)state;
    struct rdb_output *output;
    assert_int_equal(mkdirat(directory, "gone", 0755), 0);
    int gone = openat(directory, "gone", O_RDONLY | O_DIRECTORY);
    assert_int_equal(unlinkat(directory, "gone", AT_REMOVEDIR), 0);
    assert_int_equal(rdb_output_open_file(&output, gone, &options), 0);
    assert_int_equal(rdb_output_create_file(output, "temp.rdb"), -ENOENT);
    check_failure(output, "creating temp.rdb");
    rdb_output_close(output);
    close(gone);
}

/* Renaming upon a directory. */
static void what_cannot_be_renamed(void **state)
{
    (void)state;
    struct rdb_output *output = open_file();
    assert_int_equal(mkdirat(directory, "final.rdb", 0755), 0);
    assert_int_equal(rdb_output_sync(output), 0);
    assert_int_equal(rdb_output_publish(output, "final.rdb"), -EISDIR);
    check_failure(output, "renaming temp.rdb");
    rdb_output_close(output);
    assert_false(exists("temp.rdb"));
    assert_int_equal(unlinkat(directory, "final.rdb", AT_REMOVEDIR), 0);
}

/* ---- what somebody else has put there ------------------------------------------- */

static void write_file(const char *name, const char *text)
{
    int file = openat(directory, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(file >= 0);
    assert_int_equal(write(file, text, strlen(text)), strlen(text));
    close(file);
}

static void check_file(const char *name, const char *text)
{
    char found[64] = "";
    int file = openat(directory, name, O_RDONLY);
    assert_true(file >= 0);
    assert_int_equal(read(file, found, sizeof(found)), strlen(text));
    assert_string_equal(found, text);
    close(file);
}

static void a_name_that_is_taken_is_left_alone(void **state)
{
    (void)state;
    struct rdb_output *output;
    write_file("temp.rdb", "another's");
    write_file("victim", "valuable");
    assert_int_equal(symlinkat("victim", directory, "link.rdb"), 0);
    assert_int_equal(symlinkat("nothing", directory, "dangling.rdb"), 0);
    assert_int_equal(rdb_output_open_file(&output, directory, &options), 0);
    assert_int_equal(rdb_output_create_file(output, "temp.rdb"), -EEXIST);
    assert_int_equal(rdb_output_create_file(output, "link.rdb"), -EEXIST);
    assert_int_equal(rdb_output_create_file(output, "dangling.rdb"), -EEXIST);
    check_failure(output, "creating dangling.rdb");
    assert_int_equal(rdb_output_create_file(output, "free.rdb"), 0);
    assert_false(rdb_output_tell_failure(output, (char[96]){""}, 96));
    assert_int_equal(put(output, "ours", 4), 0);
    assert_int_equal(rdb_output_sync(output), 0);
    assert_int_equal(rdb_output_publish(output, "final.rdb"), 0);
    rdb_output_close(output);
    check_file("final.rdb", "ours");
    check_file("temp.rdb", "another's");
    check_file("victim", "valuable");
    assert_false(exists("nothing"));
    const char *names[] = {"final.rdb", "temp.rdb", "victim", "link.rdb", "dangling.rdb"};
    for (size_t i = 0; i < 5; i++)
        assert_int_equal(unlinkat(directory, names[i], 0), 0);
}

/* Somebody has cleared up, somebody else came: that is neither published nor removed. */
static void another_file_under_its_name(void **state)
{
    (void)state;
    for (int publish = 0; publish < 2; publish++) {
        struct rdb_output *output = open_file();
        assert_int_equal(put(output, "ours", 4), 0);
        assert_int_equal(rdb_output_sync(output), 0);
        assert_int_equal(unlinkat(directory, "temp.rdb", 0), 0);
        write_file("temp.rdb", "another's");
        if (publish) {
            assert_int_equal(rdb_output_publish(output, "final.rdb"), -ESTALE);
            check_failure(output, "publishing what is another file by now: temp.rdb");
        }
        rdb_output_close(output);
        assert_false(exists("final.rdb"));
        check_file("temp.rdb", "another's");
        assert_int_equal(unlinkat(directory, "temp.rdb", 0), 0);
    }
}

static void it_may_keep_its_name(void **state)
{
    (void)state;
    struct rdb_output *output = open_file();
    assert_int_equal(put(output, "ours", 4), 0);
    assert_int_equal(rdb_output_sync(output), 0);
    assert_int_equal(rdb_output_publish(output, ""), 0);
    rdb_output_close(output);
    check_file("temp.rdb", "ours");
    assert_int_equal(unlinkat(directory, "temp.rdb", 0), 0);
}

/* A file that may not grow stands for a disk that is full. */
static void errors_stay(void **state)
{
    (void)state;
    struct rlimit before, small;
    char text[65536] = {0};
    int error = 0;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 300000;
    struct rdb_output *output = open_file();
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    for (int i = 0; i < 100 && !error; i++)
        error = put(output, text, sizeof(text));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(error, -EFBIG);
    assert_int_equal(put(output, text, 10), -EFBIG);
    assert_int_equal(rdb_output_sync(output), -EFBIG);
    assert_int_equal(rdb_output_publish(output, "final.rdb"), -EFBIG);
    check_failure(output, "writing temp.rdb");
    rdb_output_close(output);
    assert_false(exists("temp.rdb"));
    assert_false(exists("final.rdb"));
}

/* ---- writing back as it goes ------------------------------------------------------ */

/* In place of the system call: keeps count, and fails when told to. */
static struct {
    int calls;
    int error;
    uint64_t started; /* all before it, from 0 on */
    uint64_t waited;
    bool gaps;
} disk;

int sync_file_range(int descriptor, off_t from, off_t length, unsigned flags)
{
    (void)descriptor;
    disk.calls++;
    errno = disk.error;
    if (disk.error)
        return -1;
    uint64_t *until = flags & SYNC_FILE_RANGE_WAIT_AFTER ? &disk.waited : &disk.started;
    disk.gaps |= (uint64_t)from != *until || !(flags & SYNC_FILE_RANGE_WRITE);
    *until = (uint64_t)(from + length);
    return 0;
}

#define MEGABYTE ((size_t)1 << 20)

/* Puts 8 MB into a file; returns the first error. */
static int put_megabytes(size_t sync_every, int error)
{
    static char text[MEGABYTE];
    struct rdb_output_options asked = {.checksum = sum, .sync_every = sync_every};
    struct rdb_output *output;
    memset(&disk, 0, sizeof(disk));
    disk.error = error;
    assert_int_equal(rdb_output_open_file(&output, directory, &asked), 0);
    assert_int_equal(rdb_output_create_file(output, "temp.rdb"), 0);
    int result = 0;
    for (size_t i = 1; i <= 8 && !result; i++) {
        result = put(output, text, sizeof(text));
        /* What the last fsync would find: never much. */
        if (sync_every && !disk.error)
            assert_true(disk.waited + 2 * sync_every + 2 * MEGABYTE >= i * MEGABYTE);
    }
    if (!result)
        result = rdb_output_sync(output);
    rdb_output_close(output);
    assert_false(exists("temp.rdb"));
    return result;
}

static void writes_back_as_it_goes(void **state)
{
    (void)state;
    assert_int_equal(put_megabytes(MEGABYTE, 0), 0);
    assert_false(disk.gaps);
    assert_in_range(disk.started, 6 * MEGABYTE, 8 * MEGABYTE);
    assert_in_range(disk.waited, 5 * MEGABYTE, disk.started - 1);
    assert_in_range(disk.calls, 2 * 5, 2 * 8);
}

static void writes_back_only_if_asked(void **state)
{
    (void)state;
    assert_int_equal(put_megabytes(0, 0), 0);
    assert_int_equal(disk.calls, 0);
}

/* The disk tells of an error once: here, not at the fsync in the end. */
static void error_of_writing_back_counts(void **state)
{
    (void)state;
    assert_int_equal(put_megabytes(MEGABYTE, EIO), -EIO);
    assert_int_equal(disk.calls, 1);
}

static void file_system_that_cannot_write_back(void **state)
{
    (void)state;
    assert_int_equal(put_megabytes(MEGABYTE, ENOSYS), 0);
    assert_int_equal(disk.calls, 1);
}

/* ---- what only backups ask for --------------------------------------------------- */

static struct rdb_output *open_elsewhere(const struct rdb_output_options *wanted,
                                         bool nameless)
{
    struct rdb_output *output;
    assert_int_equal(rdb_output_open_nowhere(&output, wanted), 0);
    rdb_output_lead_to_directory(output, fcntl(directory, F_DUPFD_CLOEXEC, 3),
                                 "told.rdb");
    assert_int_equal(nameless ? rdb_output_create_nameless(output, "temp.rdb")
                              : rdb_output_create_file(output, "temp.rdb"),
                     0);
    assert_int_equal(exists("temp.rdb"), !nameless);
    return output;
}

static void a_file_of_its_name_is_kept(void **state)
{
    (void)state;
    static const struct rdb_output_options keeping = {.keep_existing = true};
    for (int i = 0; i < 4; i++) {
        bool there = i & 1, nameless = i & 2;
        struct rdb_output *output = open_elsewhere(&keeping, nameless);
        assert_int_equal(put(output, "new", 3), 0);
        if (there)
            write_file("final.rdb", "old");
        assert_int_equal(rdb_output_sync(output), 0);
        assert_int_equal(rdb_output_publish(output, "final.rdb"), there ? -EEXIST : 0);
        rdb_output_close(output);
        check_file("final.rdb", there ? "old" : "new");
        assert_false(exists("temp.rdb"));
        unlinkat(directory, "final.rdb", 0);
    }
}

static void a_file_of_its_name_is_replaced(void **state)
{
    (void)state;
    static const struct rdb_output_options replacing = {.keep_existing = false};
    for (int nameless = 0; nameless < 2; nameless++) {
        struct rdb_output *output = open_elsewhere(&replacing, nameless);
        assert_int_equal(put(output, "new", 3), 0);
        write_file("final.rdb", "old");
        assert_int_equal(rdb_output_sync(output), 0);
        check_file("final.rdb", "old");
        assert_int_equal(rdb_output_publish(output, "final.rdb"), 0);
        rdb_output_close(output);
        check_file("final.rdb", "new");
        assert_false(exists("temp.rdb"));
        unlinkat(directory, "final.rdb", 0);
    }
}

/* The name for the instant between, or the last one, cannot be had. */
static void a_name_that_cannot_be_given(void **state)
{
    (void)state;
    static const struct rdb_output_options replacing = {.keep_existing = false};
    struct rdb_output *output = open_elsewhere(&replacing, true);
    write_file("temp.rdb", "another's");
    assert_int_equal(rdb_output_sync(output), 0);
    assert_int_equal(rdb_output_publish(output, "final.rdb"), -EEXIST);
    check_failure(output, "giving a name to told.rdb");
    rdb_output_close(output);
    check_file("temp.rdb", "another's");
    assert_false(exists("final.rdb"));
    unlinkat(directory, "temp.rdb", 0);

    output = open_elsewhere(&replacing, true);
    assert_int_equal(mkdirat(directory, "final.rdb", 0755), 0);
    assert_int_equal(rdb_output_publish(output, "final.rdb"), -EISDIR);
    check_failure(output, "renaming told.rdb");
    rdb_output_close(output);
    assert_false(exists("temp.rdb"));
    unlinkat(directory, "final.rdb", AT_REMOVEDIR);
}

/* Bytes of a frame without its head: what they were, or false. */
static bool unpack(const unsigned char *frame, size_t length, unsigned char *bytes,
                   size_t wanted)
{
    const unsigned char *end = frame + length - LZ4_FRAME_END_BYTES;
    size_t got = 0;
    while (frame < end) {
        uint32_t head;
        memcpy(&head, frame, sizeof(head));
        frame += sizeof(head);
        uint32_t stored = head & 0x7fffffff;
        int more = (int)stored;
        if (head & 0x80000000)
            memcpy(bytes + got, frame, stored);
        else
            more = LZ4_decompress_safe((const char *)frame, (char *)bytes + got,
                                       (int)stored, (int)(wanted - got));
        if (more <= 0 || more > LZ4_FRAME_BLOCK_BYTES)
            return false;
        got += (size_t)more;
        frame += stored;
    }
    return got == wanted && memcmp(end, lz4_frame_end, LZ4_FRAME_END_BYTES) == 0;
}

static void writes_a_frame(void **state)
{
    (void)state;
    static const struct rdb_output_options packing = {.lz4 = true};
    static unsigned char bytes[MEGABYTE], back[MEGABYTE], frame[2 * MEGABYTE];
    /* The second half cannot be packed. */
    for (size_t i = 0; i < MEGABYTE; i++)
        bytes[i] = (unsigned char)(i < MEGABYTE / 2 ? i / 1000 : (size_t)rand());
    struct rdb_output *output = open_elsewhere(&packing, false);
    for (size_t at = 0, length = 1; at < MEGABYTE; at += length, length *= 3) {
        length = length < MEGABYTE - at ? length : MEGABYTE - at;
        assert_int_equal(put(output, bytes + at, length), 0);
    }
    assert_int_equal(rdb_output_sync(output), 0);
    assert_int_equal(rdb_output_bytes(output), MEGABYTE);
    int file = openat(directory, "temp.rdb", O_RDONLY);
    ssize_t got = read(file, frame, sizeof(frame));
    close(file);
    assert_int_equal(got, rdb_output_written(output));
    assert_in_range(got, MEGABYTE / 2, MEGABYTE * 3 / 4);
    assert_memory_equal(frame, lz4_frame_head, LZ4_FRAME_HEAD_BYTES);
    assert_true(unpack(frame + LZ4_FRAME_HEAD_BYTES, (size_t)got - LZ4_FRAME_HEAD_BYTES,
                       back, MEGABYTE));
    assert_memory_equal(bytes, back, MEGABYTE);
    rdb_output_close(output);
}

static void keeps_to_its_rate(void **state)
{
    (void)state;
    static const struct rdb_output_options slow = {.bytes_per_second = 2 * MEGABYTE};
    static unsigned char bytes[MEGABYTE];
    uint64_t began = clock_usec();
    struct rdb_output *output = open_elsewhere(&slow, false);
    assert_int_equal(put(output, bytes, MEGABYTE / 4), 0);
    assert_int_equal(put(output, bytes, MEGABYTE / 4), 0);
    assert_int_equal(rdb_output_sync(output), 0);
    assert_true(clock_usec() - began >= 240000);
    rdb_output_close(output);
}

static struct rdb_output *open_slow(uint64_t rate)
{
    return open_elsewhere(&(struct rdb_output_options){.bytes_per_second = rate}, false);
}

static void *cancel_later(void *argument);

static void cancelling_ends_the_rest(void **state)
{
    (void)state;
    static unsigned char bytes[MEGABYTE];
    struct rdb_output *output = open_slow(1);
    pthread_t canceller;
    pthread_create(&canceller, NULL, cancel_later, output);
    assert_int_equal(put(output, bytes, MEGABYTE), -ECANCELED);
    pthread_join(canceller, NULL);
    rdb_output_close(output);
}

static void patience_with_a_reader_ends(void **state)
{
    (void)state;
    static const struct rdb_output_options patient = {.patience_msec = 50};
    static unsigned char bytes[MEGABYTE];
    struct rdb_output *output;
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    assert_int_equal(rdb_output_open_nowhere(&output, &patient), 0);
    rdb_output_lead_to_fifo(output, ends[1]);
    assert_int_equal(put(output, bytes, MEGABYTE), -ETIMEDOUT);
    check_failure(output, "writing to the fifo");
    rdb_output_close(output);
    close(ends[0]);
}

/* ---- pipes ----------------------------------------------------------------------- */

struct pipe_case {
    int reader;
    struct rdb_output *output;
};

static struct pipe_case open_pipe(void)
{
    struct pipe_case made;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    made.reader = ends[0];
    assert_int_equal(rdb_output_open_descriptor(&made.output, ends[1], &options), 0);
    /* Whoever else has the pipe sees no change until it is taken over for good. */
    assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
    assert_int_equal(rdb_output_never_block(made.output), 0);
    assert_true(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
    return made;
}

static void *read_slowly(void *argument)
{
    int reader = *(int *)argument;
    char bytes[3000];
    uint64_t *total = calloc(1, sizeof(*total));
    ssize_t got;
    while ((got = read(reader, bytes, sizeof(bytes))) > 0) {
        for (ssize_t i = 0; i < got; i++)
            *total = *total * 31 + (unsigned char)bytes[i];
        if (*total % 7 == 0)
            usleep(500);
    }
    return total;
}

static void slow_reader_gets_all(void **state)
{
    (void)state;
    struct pipe_case made = open_pipe();
    pthread_t reader;
    pthread_create(&reader, NULL, read_slowly, &made.reader);
    char text[50000];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 7);
    for (int i = 0; i < 40; i++)
        assert_int_equal(put(made.output, text, sizeof(text)), 0);
    assert_int_equal(rdb_output_flush(made.output), 0);
    uint64_t sent = rdb_output_checksum(made.output);
    rdb_output_end(made.output);
    void *total;
    pthread_join(reader, &total);
    assert_int_equal(*(uint64_t *)total, sent);
    free(total);
    rdb_output_close(made.output);
    close(made.reader);
}

static void reader_that_goes_is_an_error(void **state)
{
    (void)state;
    struct pipe_case made = open_pipe();
    char text[65536] = {0};
    int error = 0;
    signal(SIGPIPE, SIG_IGN);
    close(made.reader);
    for (int i = 0; i < 20 && !error; i++)
        error = put(made.output, text, sizeof(text));
    assert_int_equal(error, -EPIPE);
    check_failure(made.output, "sending to the replicas");
    rdb_output_close(made.output);
}

static void *cancel_later(void *argument)
{
    usleep(50000);
    rdb_output_cancel(argument);
    return NULL;
}

/* Nobody reads: the writer would wait for ever. */
static void cancelling_ends_the_wait(void **state)
{
    (void)state;
    struct pipe_case made = open_pipe();
    char text[65536] = {0};
    int error = 0;
    pthread_t canceller;
    pthread_create(&canceller, NULL, cancel_later, made.output);
    for (int i = 0; i < 100 && !error; i++)
        error = put(made.output, text, sizeof(text));
    assert_int_equal(error, -ECANCELED);
    pthread_join(canceller, NULL);
    assert_int_equal(put(made.output, text, 1), -ECANCELED);
    rdb_output_close(made.output);
    close(made.reader);
}

/* ---- sockets of replicas --------------------------------------------------------- */

static struct rdb_output *open_sockets(int readers[], int count, int timeout_msec)
{
    struct rdb_output *made;
    int writers[RDB_OUTPUT_SOCKETS_MAX];
    struct timeval timeout = {timeout_msec / 1000, timeout_msec % 1000 * 1000};
    for (int i = 0; i < count; i++) {
        int ends[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
        readers[i] = ends[0];
        writers[i] = ends[1];
        setsockopt(ends[1], SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    }
    assert_int_equal(rdb_output_open_sockets(&made, writers, (size_t)count, &options), 0);
    return made;
}

/* One goes at once, one takes nothing, one gets everything. */
static void the_others_get_all(void **state)
{
    (void)state;
    int readers[3];
    struct rdb_output *output = open_sockets(readers, 3, 2000);
    close(readers[0]);
    pthread_t reader;
    pthread_create(&reader, NULL, read_slowly, &readers[2]);
    static char text[2500000];
    for (size_t i = 0; i < sizeof(text); i++)
        text[i] = (char)(i * 7 + i / 1000);
    for (int i = 0; i < 2; i++)
        assert_int_equal(put(output, text, sizeof(text)), 0);
    assert_int_equal(rdb_output_flush(output), 0);
    uint64_t sent = rdb_output_checksum(output);
    rdb_output_end(output);
    void *total;
    pthread_join(reader, &total);
    assert_int_equal(*(uint64_t *)total, sent);
    free(total);
    rdb_output_close(output);
    close(readers[1]);
    close(readers[2]);
}

static void nobody_left_is_an_error(void **state)
{
    (void)state;
    int readers[2];
    struct rdb_output *output = open_sockets(readers, 2, 100);
    char text[65536] = {0};
    int error = 0;
    close(readers[0]);
    for (int i = 0; i < 100 && !error; i++)
        error = put(output, text, sizeof(text));
    assert_int_equal(error, -ETIMEDOUT);
    check_failure(output, "sending to the replicas");
    rdb_output_close(output);
    close(readers[1]);
}

static void cancelling_ends_the_wait_for_sockets(void **state)
{
    (void)state;
    int readers[2], error = 0;
    struct rdb_output *output = open_sockets(readers, 2, 0);
    char text[65536] = {0};
    pthread_t canceller;
    pthread_create(&canceller, NULL, cancel_later, output);
    for (int i = 0; i < 100 && !error; i++)
        error = put(output, text, sizeof(text));
    assert_int_equal(error, -ECANCELED);
    pthread_join(canceller, NULL);
    rdb_output_close(output);
    close(readers[0]);
    close(readers[1]);
}

static int make_directory(void **state)
{
    (void)state;
    if (!mkdtemp(directory_name))
        return -1;
    directory = open(directory_name, O_RDONLY | O_DIRECTORY);
    return directory < 0;
}

static int remove_directory(void **state)
{
    (void)state;
    close(directory);
    return rmdir(directory_name);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(publishes_a_file),
        cmocka_unit_test(closing_removes_what_is_not_published),
        cmocka_unit_test(missing_directory_is_an_error),
        cmocka_unit_test(what_cannot_be_renamed),
        cmocka_unit_test(a_name_that_is_taken_is_left_alone),
        cmocka_unit_test(another_file_under_its_name),
        cmocka_unit_test(it_may_keep_its_name),
        cmocka_unit_test(errors_stay),
        cmocka_unit_test(writes_back_as_it_goes),
        cmocka_unit_test(writes_back_only_if_asked),
        cmocka_unit_test(error_of_writing_back_counts),
        cmocka_unit_test(file_system_that_cannot_write_back),
        cmocka_unit_test(a_file_of_its_name_is_kept),
        cmocka_unit_test(a_file_of_its_name_is_replaced),
        cmocka_unit_test(a_name_that_cannot_be_given),
        cmocka_unit_test(writes_a_frame),
        cmocka_unit_test(keeps_to_its_rate),
        cmocka_unit_test(cancelling_ends_the_rest),
        cmocka_unit_test(patience_with_a_reader_ends),
        cmocka_unit_test(slow_reader_gets_all),
        cmocka_unit_test(reader_that_goes_is_an_error),
        cmocka_unit_test(cancelling_ends_the_wait),
        cmocka_unit_test(the_others_get_all),
        cmocka_unit_test(nobody_left_is_an_error),
        cmocka_unit_test(cancelling_ends_the_wait_for_sockets),
    };
    return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
