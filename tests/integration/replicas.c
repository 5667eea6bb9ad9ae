#include "replicas.h"

#include "rdbfile.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POLL_MSEC    5
#define LINK_SECONDS 60

void wait_for_info(struct server *server, const char *field, const char *value,
                   double seconds)
{
    double end = patient_seconds() + seconds;
    for (;;) {
        const char *now = server_info(server, field);
        if (now && strcmp(now, value) == 0)
            return;
        CHECK(patient_seconds() < end, "%s is %s, not %s, after %g seconds", field,
              now ? now : "not there", value, seconds);
        sleep_msec(POLL_MSEC);
    }
}

void wait_for_info_above(struct server *server, const char *field, double least,
                         double seconds)
{
    double end = patient_seconds() + seconds;
    for (;;) {
        double now = server_info_number(server, field);
        if (now > least)
            return;
        CHECK(patient_seconds() < end, "%s is %g after %g seconds", field, now, seconds);
        sleep_msec(POLL_MSEC);
    }
}

void wait_until_no_child(struct server *server, double seconds)
{
    static const char *const fields[] = {
        "rdb_bgsave_in_progress", "aof_rewrite_in_progress", "aof_rewrite_scheduled"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        wait_for_info(server, fields[i], "0", seconds);
}

void check_no_temporary_file(struct server *server)
{
    const char *left;
    /* A thread of the server may be about to remove it. */
    WAIT_UNTIL(!(left = server_temporary_file(server)), 1, "left behind: %s", left);
}

void replica_follow(struct server *replica, struct server *master)
{
    server_ok(replica, "REPLICAOF 127.0.0.1 %d", master->port);
}

struct server *replica_start(struct server *master, const struct server_options *options)
{
    struct server *replica = server_start(options);
    replica_follow(replica, master);
    return replica;
}

void replica_wait_link(struct server *replica)
{
    wait_for_info(replica, "master_link_status", "up", LINK_SECONDS);
}

void check_same_data(struct server *master, struct server *replica)
{
    const char *offset = server_info(master, "master_repl_offset");
    wait_for_info(replica, "slave_repl_offset", offset, LINK_SECONDS);
    wait_for_info(replica, "master_repl_offset", offset, 1);
    const char *replid = server_info(replica, "master_replid");
    CHECK(strcmp(server_info(master, "master_replid"), replid) == 0,
          "the replica follows another history");
    const char *digest = server_digest(master), *copy = server_digest(replica);
    CHECK(strcmp(digest, copy) == 0,
          "DEBUG DIGEST is %s at the master, %s at the replica", digest, copy);
}

/* ---- without a file ---- */

bool straight_to_sockets;

/* Whether a replica gets the dump through a connection of its own: what the setting is
 * called, NULL where there is no choice. */
static const char *own_connection_setting(void)
{
    static const char *const names[] = {"repl-rdb-channel",
                                        "dual-channel-replication-enabled"};
    struct server *server =
        server_start(&(struct server_options){.without_module = true});
    const char *found = NULL;
    for (int i = 0; i < 2; i++)
        if (server_ok(server, "CONFIG GET %s", names[i])->elements)
            found = names[i];
    server_stop(server);
    return found;
}

void each_diskless_way(void (*body)(const char *config), const char *config)
{
    const char *setting = own_connection_setting();
    straight_to_sockets = false;
    if (setting)
        server_common_config = format_text("%s no\n", setting);
    body(config);
    if (!setting)
        return;
    test_note("the same with %s", setting);
    straight_to_sockets = true;
    server_common_config = format_text("%s yes\n", setting);
    body(config);
}

/* ---- a replica that only listens ---- */

#define MARK_BYTES 40
#define DUMP_BYTES (8 << 20)

/* Between the mark that begins a dump and the same mark; NULL: not all of it is there. */
static char *dump_in(char *bytes, size_t length, size_t *dump_length)
{
    char *mark = memmem(bytes, length, "$EOF:", 5);
    if (!mark || bytes + length < mark + 5 + MARK_BYTES + 2)
        return NULL;
    mark += 5;
    char *dump = mark + MARK_BYTES + 2;
    char *end = memmem(dump, (size_t)(bytes + length - dump), mark, MARK_BYTES);
    *dump_length = end ? (size_t)(end - dump) : 0;
    return end ? dump : NULL;
}

void receive_dump(struct server *server, const char *wish, const char *path)
{
    static const char request[] = "PSYNC ? -1\r\n";
    redisContext *replica = server_connect(server);
    char *bytes = malloc(DUMP_BYTES), *dump = NULL;
    size_t length = 0, dump_length;
    freeReplyObject(redisCommand(replica, "REPLCONF capa eof capa psync2"));
    /* Valkey 9.1 writes an older format for who does not say; others know no such thing. */
    freeReplyObject(redisCommand(replica, "REPLCONF version %s", server_version(server)));
    if (wish)
        freeReplyObject(redisCommand(replica, format_text("REPLCONF %s", wish)));
    redisSetTimeout(replica, (struct timeval){.tv_sec = 20});
    CHECK(write(replica->fd, request, strlen(request)) == (ssize_t)strlen(request), "%s",
          strerror(errno));
    while (!dump) {
        ssize_t got = read(replica->fd, bytes + length, DUMP_BYTES - length);
        CHECK(got > 0, "the transfer ends after %zu bytes: %s", length, strerror(errno));
        length += (size_t)got;
        dump = dump_in(bytes, length, &dump_length);
    }
    FILE *file = fopen(path, "w");
    CHECK(file && fwrite(dump, 1, dump_length, file) == dump_length && fclose(file) == 0,
          "%s: %s", path, strerror(errno));
    redisFree(replica);
    free(bytes);
    wait_until_no_child(server, 10);
}

#define UNCOMPRESSED "rdb-no-compress 1"

void receive_uncompressed(struct server *server, const char *path)
{
    if (server_command(server, "REPLCONF rdb-no-compress 0")->type == REDIS_REPLY_ERROR)
        not_applicable("no replica can ask for that");
    receive_dump(server, UNCOMPRESSED, path);
}

void check_uncompressed_by_fork(struct server *server, const char *path)
{
    const char *forked = format_text("%s/forked.rdb", test_directory());
    server_config_set(server, "uffd.enabled", "no");
    receive_dump(server, UNCOMPRESSED, forked);
    const char *difference = rdb_keys_difference(forked, path);
    CHECK(!difference, "%s", difference);
}
