/* The tests' own eyes: what they must see, they see. */
#include "fill.h"
#include "rdbfile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct server *start_filled(void)
{
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .without_module = true});
    fill(server->connection, FILL_ALL, 20, test_seed());
    return server;
}

static void flip_byte(const char *path, long offset)
{
    FILE *file = fopen(path, "r+");
    CHECK(file && fseek(file, offset, SEEK_SET) == 0, "%s", path);
    int byte = fgetc(file);
    CHECK(byte != EOF && fseek(file, offset, SEEK_SET) == 0, "offset %ld", offset);
    fputc(byte ^ 1, file);
    fclose(file);
}

/* Runs a body that ends its process; true if it failed. */
static bool fails(void (*body)(const char *path), const char *path)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen("/dev/null", "w", stdout))
            _exit(2);
        body(path);
        _exit(0);
    }
    int status;
    CHECK(waitpid(pid, &status, 0) == pid, "waitpid");
    return status != 0;
}

static void check_with_checksum(const char *path)
{
    check_dump(path, true);
}

/* Every byte counts, except those of the two volatile fields and the checksum. */
static void every_byte_is_compared(void)
{
    struct server *server = start_filled();
    const char *dump = server_path(server, "dump.rdb");
    const char *first = server_path(server, "first.rdb");
    const char *second = server_path(server, "second.rdb");
    server_ok(server, "SAVE");
    copy_file(dump, first);
    copy_file(dump, second);
    sleep_msec(1100); /* another ctime */
    server_ok(server, "SAVE");
    CHECK(!files_are_equal(first, dump), "ctime stands still");
    CHECK(!rdb_difference(first, dump), "%s", rdb_difference(first, dump));
    struct stat status;
    CHECK(stat(first, &status) == 0, "no file");
    uint64_t random = test_seed();
    for (int i = 0; i < 300; i++) {
        long body = status.st_size - 200 - 8;
        long offset = i < 8 ? i : 200 + (long)(random_next(&random) % (uint64_t)body);
        flip_byte(second, offset);
        CHECK(rdb_difference(first, second), "a change at offset %ld is not seen",
              offset);
        flip_byte(second, offset);
    }
    CHECK(truncate(second, status.st_size - 1) == 0 && rdb_difference(first, second),
          "a lost byte is not seen");
    server_stop(server);
}

static void damage_is_found(void)
{
    struct server *server = start_filled();
    const char *dump = server_path(server, "dump.rdb");
    server_ok(server, "SAVE");
    CHECK(!fails(check_with_checksum, dump), "a good file is refused");
    struct stat status;
    CHECK(stat(dump, &status) == 0, "no file");
    flip_byte(dump, status.st_size - 3);
    CHECK(fails(check_with_checksum, dump), "a wrong checksum is not found");
    flip_byte(dump, status.st_size - 3);
    CHECK(truncate(dump, status.st_size - 8) == 0 && truncate(dump, status.st_size) == 0,
          "truncate");
    CHECK(fails(check_with_checksum, dump), "a missing checksum is not found");
    server_stop(server);
}

/* The same seed makes the same data, another seed others. */
static void filling_is_repeatable(void)
{
    const char *digest[3];
    for (int i = 0; i < 3; i++) {
        struct server *server = server_start(
            &(struct server_options){.config = FILL_CONFIG, .without_module = true});
        fill(server->connection, FILL_ALL - FILL_EXPIRIES, 30, i < 2 ? 1 : 2);
        digest[i] = server_digest(server);
        server_stop(server);
    }
    CHECK(strcmp(digest[0], digest[1]) == 0, "the same seed made other data");
    CHECK(strcmp(digest[0], digest[2]) != 0, "another seed made the same data");
}

/* All that the tests say they cover is in the data: every encoding of every type. */
struct encoding {
    const char *type;
    const char *name;
    bool newer; /* of servers that keep small lists and sets in a listpack */
    int seen;
};

static void note_encodings(struct server *server, struct encoding *wanted, int count)
{
    redisReply *keys = server_ok(server, "KEYS *");
    for (size_t i = 0; i < keys->elements; i++) {
        redisReply *key = keys->element[i];
        redisReply *encoding =
            server_ok(server, "OBJECT ENCODING %b", key->str, (size_t)key->len);
        redisReply *type = server_ok(server, "TYPE %b", key->str, (size_t)key->len);
        for (int j = 0; j < count; j++)
            wanted[j].seen += strcmp(encoding->str, wanted[j].name) == 0 &&
                              strcmp(type->str, wanted[j].type) == 0;
        freeReplyObject(encoding);
        freeReplyObject(type);
    }
}

static void every_encoding_is_there(void)
{
    struct encoding wanted[] = {
        {"string", "int", false, 0},    {"string", "embstr", false, 0},
        {"string", "raw", false, 0},    {"list", "quicklist", false, 0},
        {"list", "listpack", true, 0},  {"set", "intset", false, 0},
        {"set", "hashtable", false, 0}, {"set", "listpack", true, 0},
        {"hash", "listpack", false, 0}, {"hash", "hashtable", false, 0},
        {"zset", "listpack", false, 0}, {"zset", "skiplist", false, 0},
        {"stream", "stream", false, 0},
    };
    const int count = sizeof wanted / sizeof wanted[0];
    struct server *server = start_filled();
    bool newer = server_ok(server, "CONFIG GET set-max-listpack-entries")->elements;
    note_encodings(server, wanted, count);
    for (int i = 0; i < count; i++)
        CHECK(wanted[i].seen || (wanted[i].newer && !newer), "no %s is encoded as %s",
              wanted[i].type, wanted[i].name);
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"every_byte_is_compared", every_byte_is_compared, 20},
        {"damage_is_found", damage_is_found, 20},
        {"filling_is_repeatable", filling_is_repeatable, 20},
        {"every_encoding_is_there", every_encoding_is_there, 20},
        {0},
    };
    return test_run("harness", cases, argc, argv);
}
