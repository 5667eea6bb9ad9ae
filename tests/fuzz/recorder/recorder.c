/* A module that turns a server's keys into an input for fuzz_keyspace: what a walk of them
 * reads, moved to the few addresses that the input has, pointers and all.
 *
 *   FUZZ.RECORD            the input
 *
 * Its arguments are the server's name and version. tests/fuzz/recorder/record fills a server
 * with one value of each encoding after the other and asks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/server.h"
#include "kernel/checked_read.h"
#include "keyspace/keyspace.h"
#include "tests/fuzz/heap.h"

#define READS_MAX 100000
#define ALIGNMENT 16
/* Members at the beginning of a structure that walkers have no use for. */
#define UNREAD_MAX 256
/* … and between two: they stay together. */
#define GAP_MAX 64
#define SEEDS   (1u << (8 - HEAP_HASH_SHIFT))

typedef struct context context;
typedef struct string string;

static int (*reply_bytes)(context *, const char *bytes, size_t length);
static int (*reply_error)(context *, const char *text);

/* What was read, then what of it lies together, and where that goes. */
struct range {
    uint64_t start, end, moved;
};
static struct range ranges[READS_MAX];
static size_t range_count;
static bool recording;
static uint8_t constant;
static struct checked_reader live;

/* ---- the walk -------------------------------------------------------------------- */

/* The linker puts it in the place of view_read(). */
int __wrap_view_read(struct view_reader *reader, void *to, frozen_address from,
                     size_t length)
{
    if (recording && length && range_count < READS_MAX)
        ranges[range_count++] = (struct range){from, from + length, 0};
    return __real_view_read(reader, to, from, length);
}

static int ignore(struct rdb_sink *sink, const void *bytes, size_t length)
{
    (void)sink, (void)bytes, (void)length;
    return 0;
}

static int go_on(struct keyspace_observer *observer, uint64_t keys)
{
    (void)observer, (void)keys;
    return 0;
}

/* As the fuzzing program has it. */
static uint64_t hash(const uint8_t *in, size_t length, const uint8_t *seed)
{
    (void)in, (void)length, (void)seed;
    return constant;
}

static int walk(const struct keyspace_roots *roots, const char **where)
{
    struct rdb_sink sink = {ignore};
    struct keyspace_observer observer = {.progress = go_on};
    struct rdb_encoder *encoder = rdb_encoder_create(&sink, NULL);
    struct view_reader reader;
    live.allowed = UINT64_MAX;
    range_count = 0;
    recording = true;
    view_reader_init_live(&reader, &live);
    int error = keyspace_save(roots, &reader, encoder, &observer, NULL, where);
    recording = false;
    rdb_encoder_destroy(encoder);
    return error;
}

/* ---- where it goes --------------------------------------------------------------- */

static int by_start(const void *one, const void *other)
{
    const struct range *a = one, *b = other;
    return a->start < b->start ? -1 : a->start > b->start;
}

static void merge(uint64_t databases)
{
    size_t count = 0;
    qsort(ranges, range_count, sizeof(ranges[0]), by_start);
    for (size_t i = 0; i < range_count; i++) {
        struct range *last = count ? &ranges[count - 1] : NULL;
        /* What is read before the databases would move them. */
        bool begins = ranges[i].start == databases;
        if (last && begins && last->end > databases)
            last->end = databases;
        if (last && !begins && ranges[i].start <= last->end + GAP_MAX) {
            if (ranges[i].end > last->end)
                last->end = ranges[i].end;
        } else {
            ranges[count++] = ranges[i];
        }
    }
    range_count = count;
}

/* False if there is no room for all. */
static bool place(uint64_t databases, uint64_t *end)
{
    uint64_t at = HEAP;
    for (int first = 1; first >= 0; first--)
        for (size_t i = 0; i < range_count; i++) {
            struct range *range = &ranges[i];
            if ((range->start == databases) != first)
                continue;
            if (!first)
                at += (range->start - at) % ALIGNMENT;
            range->moved = at;
            at += range->end - range->start;
        }
    *end = at;
    return at <= HEAP + HEAP_BYTES;
}

static const struct range *range_of(uint64_t address)
{
    for (size_t i = 0; i < range_count; i++)
        if (address >= ranges[i].start && address < ranges[i].end)
            return &ranges[i];
    return NULL;
}

/* Of a structure whose first members nobody reads. */
static const struct range *range_behind(uint64_t address)
{
    for (size_t i = 0; i < range_count; i++)
        if (ranges[i].start > address)
            return ranges[i].start - address <= UNREAD_MAX ? &ranges[i] : NULL;
    return NULL;
}

/* What only looks like an address, as it lies across two members, is in no range. */
static void copy(const struct range *range, const struct keyspace_roots *roots,
                 unsigned char *to)
{
    const unsigned char *from = (const unsigned char *)(uintptr_t)range->start;
    size_t length = range->end - range->start;
    memcpy(to, from, length);
    for (size_t at = 0; at + sizeof(uint64_t) <= length; at++) {
        uint64_t word;
        memcpy(&word, from + at, sizeof(word));
        const struct range *target = range_of(word);
        if (!target && (uintptr_t)(from + at) % sizeof(word) == 0)
            target = range_behind(word);
        if (word && word == roots->expiring_hash_type)
            word = HEAP_EXPIRING_TYPE;
        else if (target)
            word += target->moved - target->start;
        else
            continue;
        memcpy(to + at, &word, sizeof(word));
        at += sizeof(word) - 1;
    }
}

/* ---- the command ----------------------------------------------------------------- */

static int record(context *caller, string **arguments, int count)
{
    (void)arguments, (void)count;
    static unsigned char input[HEAP_HEAD + HEAP_BYTES];
    struct keyspace_roots roots;
    const char *where = "nothing";
    uint64_t end;
    int error = -1;
    server_roots(&roots);
    roots.database_count = 1;
    roots.hash = hash;
    roots.save_idle_time = roots.save_frequency = false;
    for (unsigned i = 0; i < SEEDS && error; i++) {
        constant = (uint8_t)i;
        error = walk(&roots, &where);
    }
    if (error)
        return reply_error(caller, where);
    merge(roots.databases);
    if (!place(roots.databases, &end))
        return reply_error(caller, "too much");
    memset(input, 0, sizeof(input));
    input[0] = (uint8_t)roots.layout;
    input[1] = (uint8_t)(constant << HEAP_HASH_SHIFT | HEAP_LOOK);
    for (size_t i = 0; i < range_count; i++)
        copy(&ranges[i], &roots, input + HEAP_HEAD + (ranges[i].moved - HEAP));
    return reply_bytes(caller, (const char *)input, HEAP_HEAD + (end - HEAP));
}

int __attribute__((visibility("default")))
RedisModule_OnLoad(context *loader, string **arguments, int count);

int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    int (*get_api)(const char *name, void *function);
    void (*set_attributes)(context *, const char *name, int version, int api);
    int (*create_command)(context *, const char *name, int (*)(context *, string **, int),
                          const char *flags, int, int, int);
    const char *(*text_of)(const string *, size_t *length);
    char reason[160] = "two arguments are wanted";
    memcpy(&get_api, loader, sizeof(get_api));
    get_api("RedisModule_SetModuleAttribs", &set_attributes);
    get_api("RedisModule_CreateCommand", &create_command);
    get_api("RedisModule_StringPtrLen", &text_of);
    get_api("RedisModule_ReplyWithStringBuffer", &reply_bytes);
    get_api("RedisModule_ReplyWithError", &reply_error);
    set_attributes(loader, "recorder", 1, 1);
    if (count != 2 ||
        server_identify(text_of(arguments[0], NULL), text_of(arguments[1], NULL), "",
                        reason, sizeof(reason)) != 0 ||
        checked_reader_open(&live) != 0) {
        fprintf(stderr, "recorder: %s\n", reason);
        return 1;
    }
    return create_command(loader, "fuzz.record", record, "readonly", 0, 0, 0);
}
