/* UFFD.BACKUP into a fifo: its reader has a whole dump or none, and may come late, take
 * nothing, or go. */
#include "backups.h"
#include "fill.h"
#include "overwriter.h"
#include "rdbfile.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Twice what the least buffer can hold. */
#define SLOW_KEYS 9000

static const char *make_fifo(struct server *server, const char *name)
{
    const char *path = server_path(server, name);
    CHECK(mkfifo(path, 0666) == 0, "mkfifo: %s", strerror(errno));
    return path;
}

/* `delay`: seconds before it opens the fifo, and before it reads the first byte. */
static pid_t reader_start(const char *fifo, const char *copy, const char *delay)
{
    pid_t reader = fork();
    CHECK(reader >= 0, "fork");
    if (reader)
        return reader;
    execlp("sh", "sh", "-c", "sleep $3; exec <\"$1\"; sleep $3; exec cat >\"$2\"", "sh",
           fifo, copy, delay, NULL);
    _exit(127);
}

static void into_fifo(void)
{
    struct server *server = backup_start();
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy");
    pid_t reader = reader_start(fifo, copy, "0.2");
    const char *reference = backup_with_save(server, "fifo WAIT");
    waitpid(reader, NULL, 0);
    backup_check_same(reference, copy);
    reader = reader_start(fifo, copy, "0");
    reference = backup_with_save(server, "fifo COMPRESS lz4 WAIT");
    waitpid(reader, NULL, 0);
    backup_check_same(reference, backup_unpacked(copy));
    server_stop(server);
}

/* What it does not take is held within the limit, the rest is in the spool. */
static void slow_reader(void)
{
    struct server *server = backup_start_with("buffer-limit 4mb compression no");
    uint64_t seed = test_seed();
    json_fill(server->connection, SLOW_KEYS, 1000, seed);
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy");
    pid_t reader = reader_start(fifo, copy, "0.5");
    const char *reference = backup_with_save(server, "fifo");
    struct overwriter *overwriter =
        overwriter_start(server, SLOW_KEYS, 1000, OVERWRITE_IN_PLACE, seed);
    backup_wait_for(server, "ok");
    overwriter_stop(overwriter, NULL);
    waitpid(reader, NULL, 0);
    backup_check_same(reference, copy);
    CHECK(server_info_number(server, "uffd_buffer_peak_bytes") <= 4 << 20, "the limit");
    CHECK(server_info_number(server, "uffd_last_spool_peak_bytes") > 0, "no spool");
    server_stop(server);
}

static void reader_goes(void)
{
    struct server *server = backup_start();
    fill_large(server->connection, "large", 4 << 20, false, 1);
    int reader = open(make_fifo(server, "fifo"), O_RDONLY | O_NONBLOCK);
    server_ok(server, "UFFD.BACKUP fifo");
    backup_check_state(server, "running");
    close(reader);
    backup_check_failed(server, "Broken pipe, writing to the fifo");
    server_ok(server, "UFFD.BACKUP after.rdb WAIT");
    server_stop(server);
}

static void reader_does_not_come(void)
{
    struct server *server = backup_start();
    make_fifo(server, "fifo");
    server_ok(server, "UFFD.FAULT no_patience on");
    const char *error = server_error(server, "UFFD.BACKUP fifo");
    CHECK(strstr(error, "nobody has opened the fifo"), "%s", error);
    server_ok(server, "UFFD.FAULT no_patience off");
    /* Nor is a CANCEL kept waiting for it. */
    struct server other = server_beside(server);
    redisAppendCommand(server->connection, "UFFD.BACKUP fifo");
    int done = 0;
    while (!done)
        redisBufferWrite(server->connection, &done);
    WAIT_UNTIL(strcmp(backup_status(&other, "state"), "running") == 0, 5, "not begun");
    backup_cancel(&other);
    redisReply *reply;
    CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK &&
              reply->type == REDIS_REPLY_ERROR && strstr(reply->str, "cancelled"),
          "the client that waits");
    server_stop(server);
}

static void reader_stands_still(void)
{
    struct server *server = backup_start();
    fill_large(server->connection, "large", 1 << 20, false, 1);
    int reader = open(make_fifo(server, "fifo"), O_RDONLY | O_NONBLOCK);
    server_ok(server, "UFFD.FAULT no_patience on");
    server_ok(server, "UFFD.BACKUP fifo");
    backup_check_failed(server, "writing to the fifo");
    close(reader);
    server_stop(server);
}

/* A fifo's reader has nothing that a server would take for whole. */
static void lost_pages_are_found(void)
{
    struct server *server = backup_start();
    const char *fifo = make_fifo(server, "fifo"), *copy = server_path(server, "copy.rdb");
    pid_t reader = reader_start(fifo, copy, "0");
    server_ok(server, "UFFD.FAULT skip_protect on");
    const char *error = server_error(server, "UFFD.BACKUP fifo WAIT");
    CHECK(strstr(error, "lost their write protection"), "%s", error);
    waitpid(reader, NULL, 0);
    CHECK(!dump_digest(copy, FILL_CONFIG), "a server has loaded it");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"into_fifo", into_fifo, 30},
        {"slow_reader", slow_reader, 60},
        {"reader_goes", reader_goes, 20},
        {"reader_does_not_come", reader_does_not_come, 20},
        {"reader_stands_still", reader_stands_still, 20},
        {"lost_pages_are_found", lost_pages_are_found, 20},
        {0},
    };
    return test_run("backup_fifo", cases, argc, argv);
}
