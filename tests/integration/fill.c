#include "fill.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIPELINE  256
#define VALUE_MAX 70000
#define LONG_TTL  1000000

struct filler {
    redisContext *connection;
    uint64_t random;
    int pending;
    int count;
    char value[VALUE_MAX];
};

void random_bytes(uint64_t *random, char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i += 8) {
        uint64_t word = random_next(random);
        memcpy(bytes + i, &word, length - i < 8 ? length - i : 8);
    }
}

void random_text(uint64_t *random, char *text, size_t length)
{
    static const char *const words[] = {"alpha ",    "\"name\": ",      "value, ",
                                        "snapshot ", "0000000 ",        "page ",
                                        "{}, ",      "the quick brown "};
    size_t at = 0;
    while (at < length) {
        const char *word = words[random_next(random) & 7];
        size_t size = strlen(word), left = length - at;
        memcpy(text + at, word, size < left ? size : left);
        at += size < left ? size : left;
    }
}

static unsigned below(struct filler *filler, unsigned limit)
{
    return (unsigned)(random_next(&filler->random) % limit);
}

/* ---- a pipeline of commands, none of which may fail ---- */

static void drain(struct filler *filler)
{
    for (; filler->pending; filler->pending--) {
        redisReply *reply;
        CHECK(redisGetReply(filler->connection, (void **)&reply) == REDIS_OK,
              "filling: %s", filler->connection->errstr);
        CHECK(reply->type != REDIS_REPLY_ERROR, "filling: %s", reply->str);
        freeReplyObject(reply);
    }
}

static void send(struct filler *filler, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    redisvAppendCommand(filler->connection, format, list);
    va_end(list);
    if (++filler->pending == PIPELINE)
        drain(filler);
}

/* The next value: of this length, text or noise. */
static const char *value_of(struct filler *filler, size_t length)
{
    if (below(filler, 2))
        random_text(&filler->random, filler->value, length);
    else
        random_bytes(&filler->random, filler->value, length);
    return filler->value;
}

/* Mostly short, sometimes long. */
static size_t any_length(struct filler *filler)
{
    unsigned dice = below(filler, 100);
    return dice < 60   ? below(filler, 40)
           : dice < 95 ? below(filler, 2000)
                       : below(filler, 12000);
}

/* ---- kinds ---- */

static void fill_string_edges(struct filler *filler)
{
    static const char *const numbers[] = {"0",
                                          "-1",
                                          "127",
                                          "128",
                                          "-128",
                                          "-129",
                                          "32767",
                                          "32768",
                                          "-32769",
                                          "2147483647",
                                          "2147483648",
                                          "-2147483649",
                                          "9223372036854775807",
                                          "-9223372036854775808",
                                          "9223372036854775808",
                                          "007",
                                          "+1",
                                          " 1",
                                          "-0",
                                          "1.0",
                                          "10000",
                                          "9999",
                                          "12345678901",
                                          "99999999999",
                                          "123456789012"};
    static const int lengths[] = {0,   1,   10,  11,   12,    19,    20,    21,
                                  31,  32,  43,  44,   45,    63,    64,    255,
                                  256, 257, 511, 4096, 16383, 16384, 65535, 65536};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        send(filler, "SET number:%d %s", (int)i, numbers[i]);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        size_t length = (size_t)lengths[i];
        memset(filler->value, 'a', length);
        send(filler, "SET same:%d %b", (int)i, filler->value, length);
        random_bytes(&filler->random, filler->value, length);
        send(filler, "SET noise:%d %b", (int)i, filler->value, length);
        random_text(&filler->random, filler->value, length);
        send(filler, "SET text:%d %b", (int)i, filler->value, length);
        /* A raw string, with room behind it, whatever its length. */
        send(filler, "APPEND appended:%d %b", (int)i, filler->value, length / 2);
        send(filler, "APPEND appended:%d %b", (int)i, filler->value, length - length / 2);
    }
    /* Numbers kept as text. */
    send(filler, "APPEND number-text:0 12");
    send(filler, "APPEND number-text:0 345");
    send(filler, "SETRANGE number-text:1 0 2147483648");
    send(filler, "SETBIT bits:0 100000 1");
}

static void fill_strings(struct filler *filler)
{
    fill_string_edges(filler);
    for (int i = 0; i < filler->count; i++) {
        size_t length = any_length(filler);
        if (below(filler, 4) == 0)
            send(filler, "SET string:%d %d", i, (int)below(filler, INT_MAX));
        else
            send(filler, "SET string:%d %b", i, value_of(filler, length), length);
        send(filler, "SET counter:%d %d", i, (int)below(filler, 20000));
    }
}

static void fill_lists(struct filler *filler)
{
    for (int i = 0; i < filler->count; i++) {
        int elements =
            i % 8 == 0 ? 140 + (int)below(filler, 60) : 1 + (int)below(filler, 12);
        for (int j = 0; j < elements; j++) {
            const char *side = below(filler, 4) ? "RPUSH" : "LPUSH";
            size_t length = below(filler, 40);
            if (below(filler, 3) == 0)
                send(filler, "%s list:%d %d", side, i,
                     (int)below(filler, INT_MAX) - 9999);
            else
                send(filler, "%s list:%d %b", side, i, value_of(filler, length), length);
        }
        if (i % 16 == 1) { /* a plain node, where that is not for gigabytes only */
            size_t length = 8200 + below(filler, 12000);
            send(filler, "RPUSH list:%d %b", i, value_of(filler, length), length);
            send(filler, "RPUSH list:%d end", i);
        }
    }
}

static void fill_sets(struct filler *filler)
{
    for (int i = 0; i < filler->count; i++) {
        int members = 1 + (int)below(filler, 40);
        if (i % 8 == 0 || i % 8 == 3) /* a table, of integers and of text */
            members += 200 + (int)below(filler, 200);
        /* Three widths of integers, and members that are none. */
        for (int j = 0; j < members; j++) {
            uint64_t number = random_next(&filler->random);
            if (i % 4 == 3)
                send(filler, "SADD set:%d member-%d", i, (int)below(filler, 1000));
            else
                send(filler, "SADD set:%d %lld", i,
                     (long long)number >> (i % 4 == 0   ? 50
                                           : i % 4 == 1 ? 34
                                                        : 4));
        }
    }
}

static void fill_hashes(struct filler *filler)
{
    for (int i = 0; i < filler->count; i++) {
        int fields = 1 + (int)below(filler, i % 8 == 0 ? 300 : 20);
        for (int j = 0; j < fields; j++) {
            size_t length = below(filler, i % 8 == 1 ? 200 : 24);
            if (below(filler, 3) == 0)
                send(filler, "HSET hash:%d field-%d %d", i, j, (int)below(filler, 70000));
            else
                send(filler, "HSET hash:%d field-%d %b", i, j, value_of(filler, length),
                     length);
        }
    }
}

static void fill_sorted_sets(struct filler *filler)
{
    static const char *const scores[] = {
        "+inf",    "-inf",   "0", "0.1",         "1e300",
        "-1e-310", "5e-324", "3", "17179869184", "1.7976931348623157e308"};
    const int edge_count = (int)(sizeof scores / sizeof *scores);
    for (int i = 0; i < filler->count; i++) {
        int members = 1 + (int)below(filler, i % 8 == 0 ? 300 : 30);
        for (int j = 0; j < members; j++)
            send(filler, "ZADD zset:%d %.17g member-%d", i,
                 ((double)random_next(&filler->random) - 9e18) / 1e15, j);
        for (int j = 0; i % 4 == 0 && j < edge_count; j++)
            send(filler, "ZADD zset:%d %s edge-%d", i, scores[j], j);
    }
    /* A listpack loses the sign of -0 (a server's own habit), so that DEBUG
     * DIGEST depends on the encoding: only where it stays a skiplist. */
    for (int j = 0; j < 200; j++)
        send(filler, "ZADD zset-zero:0 %s member-%d", j % 2 ? "-0" : "0", j);
}

static void fill_stream_groups(struct filler *filler, int i, int entries)
{
    for (int g = 0; g < 1 + i % 3; g++) {
        send(filler, "XGROUP CREATE stream:%d group-%d %s", i, g, g == 1 ? "$" : "0");
        for (int c = 0; c < 3; c++)
            send(filler,
                 "XREADGROUP GROUP group-%d consumer-%d COUNT %d STREAMS stream:%d >", g,
                 c, 1 + (int)below(filler, 20), i);
        send(filler, "XGROUP CREATECONSUMER stream:%d group-%d idle-consumer", i, g);
        for (int n = 0; n < entries / 8; n++)
            send(filler, "XACK stream:%d group-%d %d-1", i, g,
                 1 + (int)below(filler, (unsigned)entries));
    }
}

static bool knows(struct filler *filler, const char *command)
{
    drain(filler);
    redisReply *reply = redisCommand(filler->connection, command);
    CHECK(reply, "filling: %s", filler->connection->errstr);
    bool is_known = reply->type != REDIS_REPLY_ERROR;
    freeReplyObject(reply);
    return is_known;
}

/* What consumers have given back: of one group nothing, of others all. */
static void fill_given_back(struct filler *filler)
{
    for (int i = 0; i < 3; i++)
        for (int n = 1; n <= 100; n++)
            send(filler, "XADD stream-given-back:%d %d-%d f v", i, n, i);
    for (int g = 0; g < 9; g++) {
        send(filler, "XGROUP CREATE stream-given-back:%d group-%d 0", g % 3, g);
        send(filler,
             "XREADGROUP GROUP group-%d consumer COUNT %d STREAMS stream-given-back:%d >",
             g, 10 * g, g % 3);
        for (int n = 0; n < 10 * g; n++)
            if (g == 8 || below(filler, 3) == 0)
                send(filler, "XNACK stream-given-back:%d group-%d %s IDS 1 %d-%d", g % 3,
                     g, n % 3 ? "FAIL" : "FATAL", n + 1, g % 3);
    }
}

static void fill_producers(struct filler *filler)
{
    for (int i = 0; i < filler->count; i++)
        send(filler, "XADD stream-produced:%d IDMP producer-%d %d-name * f v", i % 5,
             i % 7, i % 40);
}

static void fill_streams(struct filler *filler)
{
    for (int i = 0; i < filler->count; i++) {
        int entries = 1 + (int)below(filler, i % 8 == 0 ? 200 : 25);
        for (int n = 1; n <= entries; n++) {
            size_t length = below(filler, 60);
            if (n % 7 == 0) /* other fields than the node's first entry has */
                send(filler, "XADD stream:%d %d-1 other %d more %b", i, n, n,
                     value_of(filler, length), length);
            else
                send(filler, "XADD stream:%d %d-1 f %b", i, n, value_of(filler, length),
                     length);
        }
        fill_stream_groups(filler, i, entries);
        for (int n = 0; n < entries / 4; n++)
            send(filler, "XDEL stream:%d %d-1", i,
                 1 + (int)below(filler, (unsigned)entries));
    }
    send(filler, "XGROUP CREATE stream-empty:0 group-0 $ MKSTREAM");
    send(filler, "XADD stream-emptied:0 5-5 f v");
    send(filler, "XDEL stream-emptied:0 5-5");
    send(filler, "XADD stream-set:0 1-1 f v");
    send(filler, "XSETID stream-set:0 99-0 ENTRIESADDED 77 MAXDELETEDID 50-0");
    send(filler, "XGROUP CREATE stream-set:0 group-0 0 ENTRIESREAD 1");
    /* Redis 8.6 tells entries that are sent twice, 8.8 takes them back. */
    if (knows(filler, "XADD stream-produced:0 IDMP p-0 i-0 * f v"))
        fill_producers(filler);
    if (knows(filler, "XNACK stream:0 group-0 FAIL IDS 1 1-1"))
        fill_given_back(filler);
}

static void fill_expiries(struct filler *filler)
{
    static const char *const kinds[] = {"string", "list", "set",
                                        "hash",   "zset", "stream"};
    for (int i = 0; i < filler->count; i++) {
        const char *kind = kinds[below(filler, 6)];
        send(filler, "PEXPIRE %s:%d %lld", kind, i,
             1000LL * (LONG_TTL + (int)below(filler, LONG_TTL)));
        send(filler, "SET expiring:%d value EX %d", i, LONG_TTL + i);
    }
}

static void fill_binary_keys(struct filler *filler)
{
    send(filler, "SET %b empty-key", "", (size_t)0);
    for (int byte = 0; byte < 256; byte++) {
        char key = (char)byte;
        send(filler, "SET %b %b", &key, (size_t)1, &key, (size_t)1);
    }
    for (int i = 0; i < filler->count; i++) {
        size_t length = 1 + below(filler, i % 50 == 0 ? 65000 : 60);
        random_bytes(&filler->random, filler->value, length);
        send(filler, "SET %b %d", filler->value, length, i);
    }
    /* Keys that look like numbers are written as numbers. */
    for (int i = 0; i < 20; i++)
        send(filler, "SET %d key-is-number", (int)below(filler, INT_MAX));
}

static void fill_functions(struct filler *filler)
{
    for (int i = 0; i < 3; i++)
        send(filler, "FUNCTION LOAD REPLACE %s",
             format_text("#!lua name=library%d\n"
                         "redis.register_function('function%d', "
                         "function(keys, args) return args[1] end) -- %d",
                         i, i, (int)below(filler, 1000)));
}

void fill(redisContext *connection, unsigned kinds, int count, uint64_t seed)
{
    static const struct {
        enum fill_kind kind;
        void (*body)(struct filler *filler);
    } parts[] = {{FILL_STRINGS, fill_strings},
                 {FILL_LISTS, fill_lists},
                 {FILL_SETS, fill_sets},
                 {FILL_HASHES, fill_hashes},
                 {FILL_SORTED_SETS, fill_sorted_sets},
                 {FILL_STREAMS, fill_streams},
                 {FILL_EXPIRIES, fill_expiries},
                 {FILL_BINARY_KEYS, fill_binary_keys},
                 {FILL_FUNCTIONS, fill_functions}};
    struct filler *filler = calloc(1, sizeof *filler);
    *filler = (struct filler){.connection = connection, .random = seed, .count = count};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (kinds & parts[i].kind)
            parts[i].body(filler);
    drain(filler);
    free(filler);
}

void fill_large(redisContext *connection, const char *key, size_t length,
                bool compressible, uint64_t seed)
{
    char *value = malloc(length);
    CHECK(value, "no memory");
    if (compressible)
        random_text(&seed, value, length);
    else
        random_bytes(&seed, value, length);
    redisReply *reply = redisCommand(connection, "SET %s %b", key, value, length);
    CHECK(reply && reply->type == REDIS_REPLY_STATUS, "SET %s: %s", key,
          reply ? reply->str : connection->errstr);
    freeReplyObject(reply);
    free(value);
}
