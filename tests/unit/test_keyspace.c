/* Walkers over memory that is nonsense: words that look like pointers, lengths, small
 * numbers. Every walk must end, with an error or with what it believed to find, and
 * must never leave the frozen region. Worth most under AddressSanitizer (make asan).
 * And a small keyspace that makes sense, but for one thing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <cmocka.h>

#include "address_space.h"
#include "keyspace/keyspace.h"
#include "memory/preserved.h"
#include "memory/regions.h"

unsigned int lzf_compress(const void *in, unsigned int in_length, void *out,
                          unsigned int out_length);

#define HEAP_BYTES  (UINT64_C(256) << 10)
#define WORDS       (HEAP_BYTES / sizeof(uint64_t))
#define WALKS       1500
#define OUTPUT_MOST (4u << 20)
#define KEYS_MOST   100000

static uint64_t *heap;
static struct preserved preserved;
static struct view view;

/* Counts, and refuses more than a walk of so little memory may say. */
struct counting_sink {
    struct rdb_sink sink;
    size_t bytes;
};

static int count(struct rdb_sink *sink, const void *bytes, size_t length)
{
    (void)bytes;
    struct counting_sink *counting = (struct counting_sink *)sink;
    counting->bytes += length;
    return counting->bytes > OUTPUT_MOST ? -EFBIG : 0;
}

static int limit_keys(struct keyspace_observer *observer, uint64_t keys)
{
    (void)observer;
    return keys > KEYS_MOST ? -E2BIG : 0;
}

/* Who is asked for values of modules' types: keeps what was wanted, and writes one byte
 * for each. */
static struct asked {
    struct value_source source;
    struct wanted_value wanted[64];
    size_t count, taken;
} asked;

static int ask(struct value_source *source, const struct wanted_value *wanted)
{
    struct asked *of = (struct asked *)source;
    if (of->count - of->taken == 64)
        return -EAGAIN;
    of->wanted[of->count++ % 64] = *wanted;
    return 0;
}

static int take(struct value_source *source, struct rdb_encoder *encoder)
{
    struct asked *of = (struct asked *)source;
    if (of->taken == of->count)
        return -ENOENT;
    return rdb_encode_byte(encoder, (uint8_t)(0xa0 + of->taken++));
}

static struct value_source *asked_anew(void)
{
    asked = (struct asked){.source = {ask, take}};
    return &asked.source;
}

static size_t compress(const void *in, size_t in_length, void *out, size_t out_length)
{
    return lzf_compress(in, (unsigned)in_length, out, (unsigned)out_length);
}

static uint64_t hash(const uint8_t *in, size_t length, const uint8_t *seed)
{
    uint64_t value = seed[0];
    for (size_t i = 0; i < length; i++)
        value = value * 31 + in[i];
    return value;
}

static uint64_t next_random(uint64_t *state)
{
    *state += 0x9E3779B97F4A7C15u;
    uint64_t mixed = (*state ^ (*state >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return mixed ^ (mixed >> 31);
}

/* `wild`: per mille of the words that are anything at all. */
static uint64_t random_word(uint64_t *state, unsigned wild)
{
    uint64_t random = next_random(state), kind = random % 1000;
    uint64_t address = (uint64_t)(uintptr_t)heap + (random >> 16) % (HEAP_BYTES - 64);
    if (kind < wild)
        return next_random(state);
    if (kind < 450)
        return address & ~UINT64_C(7);
    if (kind < 550)
        return address;
    if (kind < 750)
        return (random >> 16) % 9;
    if (kind < 800)
        return (random >> 16) % 300;
    if (kind < 900)
        return next_random(state) & UINT64_C(0x0707070707070707);
    return 0;
}

static uint64_t set_up_seed(void)
{
    const char *given = getenv("SEED");
    uint64_t seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static int set_up(void **state)
{
    (void)state;
    static struct region storage[4];
    struct region_set regions;
    heap = mmap(NULL, HEAP_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                0);
    regions_init(&regions, storage, 4);
    if (heap == MAP_FAILED ||
        regions_add(&regions, (uintptr_t)heap, (uintptr_t)heap + HEAP_BYTES) != 0 ||
        preserved_create(&preserved) != 0 || view_create(&view, &preserved) != 0 ||
        view_set_regions(&view, &regions) != 0)
        return -1;
    struct preserved_settings settings = {
        .limit = preserved_least_limit(view.chunk_count) + (1 << 20),
        .policy = BUFFER_BLOCK,
        .spool_directory = ""};
    return preserved_begin(&preserved, view.chunk_count, &settings);
}

static int tear_down(void **state)
{
    (void)state;
    preserved_end(&preserved);
    view_destroy(&view);
    preserved_destroy(&preserved);
    munmap(heap, HEAP_BYTES);
    return 0;
}

/* Returns what the walk wrote. */
static size_t walk(enum keyspace_layout layout, uint64_t seed, unsigned wild, int *error)
{
    uint64_t random = seed;
    for (size_t i = 0; i < WORDS; i++)
        heap[i] = random_word(&random, wild);
    struct keyspace_roots roots = {
        .layout = layout,
        .databases = (uintptr_t)heap + next_random(&random) % 1024 * 8,
        .database_count = 16,
        .hash = hash,
        .expiring_hash_type = (uintptr_t)heap + 64,
        .save_idle_time = next_random(&random) % 4 == 0,
        .cluster = next_random(&random) % 4 == 0,
    };
    struct counting_sink sink = {{count}, 0};
    struct keyspace_observer observer = {
        .progress = limit_keys,
        .values = seed % 2 ? asked_anew() : NULL,
    };
    struct rdb_encoder *encoder = rdb_encoder_create(&sink.sink, compress);
    assert_non_null(encoder);
    struct view_reader reader;
    view_reader_init(&reader, &view);
    const char *where = NULL;
    *error = keyspace_save(&roots, &reader, encoder, &observer, NULL, &where);
    if (!*error)
        *error = rdb_encoder_flush(encoder);
    else
        assert_true(where != NULL);
    size_t bytes = (size_t)rdb_encoder_bytes(encoder);
    rdb_encoder_destroy(encoder);
    uint64_t keys, imported;
    keyspace_count(&roots, &reader, &keys, &imported);
    return bytes;
}

static void nonsense(enum keyspace_layout layout)
{
    uint64_t seed = set_up_seed() * 1000 + layout;
    size_t refused = 0, deep = 0;
    for (unsigned i = 0; i < WALKS; i++) {
        int error;
        size_t bytes = walk(layout, seed + i, i % 3 * 30, &error);
        refused += error != 0;
        deep += bytes > 20;
    }
    fprintf(stderr, "%zu of %u walks were refused, %zu went deeper\n", refused, WALKS,
            deep);
    /* The test of the test: it is nonsense, and walks do not end at the first word. */
    assert_true(refused > WALKS / 2);
}

static void redis_7_0(void **state)
{
    (void)state;
    nonsense(KEYSPACE_REDIS_7_0);
}

static void redis_8_0(void **state)
{
    (void)state;
    nonsense(KEYSPACE_REDIS_8_0);
}

static void valkey_8_0(void **state)
{
    (void)state;
    nonsense(KEYSPACE_VALKEY_8_0);
}

static void valkey_8_1(void **state)
{
    (void)state;
    nonsense(KEYSPACE_VALKEY_8_1);
}

static void valkey_9_1(void **state)
{
    (void)state;
    nonsense(KEYSPACE_VALKEY_9_1);
}

/* ---- a keyspace that makes sense ------------------------------------------------- */

/* Redis 7.0's, one database of four keys in one chain each, of which so many expire.
 * Where it lies: database 0 at 0, its dicts behind it, then buckets, entries … */
#define PLACES      512
#define DICT_KEYS   256
#define DICT_EXPIRE 320
#define BUCKETS_AT  1024
#define ENTRY_AT(n) (2048 + 32 * (n))
#define OBJECT_AT   4096
#define NAME_AT(n)  (8192 + 64 * (n))
#define KEYS        4u

static uint64_t place(size_t offset)
{
    return (uint64_t)(uintptr_t)heap + offset;
}

static void put(size_t offset, uint64_t word)
{
    memcpy((char *)heap + offset, &word, sizeof(word));
}

static void put_dict(size_t offset, size_t buckets, uint64_t used)
{
    put(offset + 8, place(buckets));
    put(offset + 24, used);
    put(offset + 40, UINT64_MAX);    /* not being rehashed */
    ((char *)heap)[offset + 50] = 2; /* four buckets */
    ((char *)heap)[offset + 51] = -1;
}

static void put_entry(size_t at, size_t bucket, uint64_t key, uint64_t value)
{
    put(at, key);
    put(at + 8, value);
    uint64_t next;
    memcpy(&next, (char *)heap + bucket, sizeof(next));
    put(at + 16, next);
    put(bucket, place(at));
}

/* Those that expire are in the bucket their hash says, or `astray` ones are not. */
static void build(unsigned expiring, unsigned astray)
{
    static const uint8_t seed[16];
    memset(heap, 0, HEAP_BYTES);
    put(0, place(DICT_KEYS));
    put(8, place(DICT_EXPIRE));
    put_dict(DICT_KEYS, BUCKETS_AT, KEYS);
    put_dict(DICT_EXPIRE, BUCKETS_AT + PLACES, expiring);
    put(OBJECT_AT, 1 << 4); /* a string that is an integer */
    put(OBJECT_AT + 8, 42);
    for (unsigned i = 0; i < KEYS; i++) {
        char *name = (char *)heap + NAME_AT(i);
        name[-1] = 1 << 3; /* one character */
        name[0] = (char)('a' + i);
        put_entry(ENTRY_AT(i), BUCKETS_AT + 8 * i, place(NAME_AT(i)), place(OBJECT_AT));
        uint64_t bucket = hash((uint8_t *)name, 1, seed) + (i < astray);
        if (i < expiring)
            put_entry(ENTRY_AT(KEYS + i), BUCKETS_AT + PLACES + 8 * (bucket & 3),
                      place(NAME_AT(i)), 1000000000000 + i);
    }
}

static int save_built_asking(struct value_source *values)
{
    struct keyspace_roots roots = {
        .layout = KEYSPACE_REDIS_7_0,
        .databases = place(0),
        .database_count = 1,
        .hash = hash,
    };
    struct counting_sink sink = {{count}, 0};
    struct keyspace_observer observer = {.progress = limit_keys, .values = values};
    struct rdb_encoder *encoder = rdb_encoder_create(&sink.sink, compress);
    struct view_reader reader;
    const char *where = NULL;
    assert_non_null(encoder);
    view_reader_init(&reader, &view);
    int error = keyspace_save(&roots, &reader, encoder, &observer, NULL, &where);
    rdb_encoder_destroy(encoder);
    return error;
}

static int save_built(void)
{
    return save_built_asking(NULL);
}

/* Where it expires is looked up by name: one that is not found must not be written as
 * if it lasted. */
static void every_expiry_is_found(void **state)
{
    (void)state;
    for (unsigned expiring = 0; expiring <= KEYS; expiring++)
        for (unsigned astray = 0; astray <= expiring; astray++) {
            build(expiring, astray);
            assert_int_equal(save_built(), astray ? -EBADMSG : 0);
        }
}

/* ---- claims ---------------------------------------------------------------------- */

/* Of one key, whose value is an object of this type and encoding at VALUE_AT. */
#define VALUE_AT (OBJECT_AT + 512)
#define REST_AT  (OBJECT_AT + 1024)

static void build_value(unsigned type, unsigned encoding)
{
    build(0, 0);
    put(OBJECT_AT, type | encoding << 4);
    put(OBJECT_AT + 8, place(VALUE_AT));
}

static int save_within(uint64_t bytes)
{
    struct rlimit before = leave_address_space(bytes);
    int error = save_built();
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    return error;
}

/* Half a terabyte, of which the first bytes are there. */
static void a_length_is_not_allocated(void **state)
{
    (void)state;
    build_value(0, 0);
    put(VALUE_AT - 17, UINT64_C(1) << 39);
    put(VALUE_AT - 9, UINT64_C(1) << 39);
    ((char *)heap)[VALUE_AT - 1] = 4;
    assert_int_equal(save_within(64 << 20), -EFAULT);
}

/* One node that comes after itself, as often as the list says. */
static void a_list_without_end_ends(void **state)
{
    (void)state;
    build_value(1, 9);
    put(VALUE_AT, place(REST_AT));
    put(VALUE_AT + 24, UINT64_C(1) << 60);
    put(REST_AT + 8, place(REST_AT));
    put(REST_AT + 16, place(REST_AT + 64));
    put(REST_AT + 24, 7);
    put(REST_AT + 32, 1 | 1 << 16 | 2 << 18);
    assert_int_equal(save_within(64 << 20), -EBADMSG);
}

/* Nodes that are below the last of them, in circles of several lengths. */
static void a_tree_without_leaves_ends(void **state)
{
    (void)state;
    for (unsigned nodes = 1; nodes < 8; nodes++) {
        build_value(6, 10);
        put(VALUE_AT, place(REST_AT));
        put(REST_AT, place(REST_AT + 64));
        put(REST_AT + 8, UINT64_C(1) << 60);
        for (unsigned i = 0; i < nodes; i++) {
            put(REST_AT + 64 + 16 * i, 4 | 1 << 3);
            put(REST_AT + 72 + 16 * i, place(REST_AT + 64 + 16 * ((i + 1) % nodes)));
        }
        assert_int_equal(save_within(4 << 20), -EBADMSG);
    }
}

/* What is hinted at there wrapped around, and did not come to its end. */
static void pointers_at_the_end_of_the_addresses_end(void **state)
{
    (void)state;
    for (uint64_t before = 1; before <= 256; before++) {
        build_value(before % 6, before % 2 ? 9 : 2);
        put(OBJECT_AT + 8, UINT64_MAX - before + 1);
        assert_int_not_equal(save_built(), 0);
    }
}

/* All four keys have the same module's value: each is asked for, ahead of the first that
 * is written, and what they need to be found is told. */
static void values_of_modules_are_asked_for(void **state)
{
    (void)state;
    build_value(5, 0);
    put(VALUE_AT, place(REST_AT));
    assert_int_equal(save_built(), -ENOTSUP);
    assert_int_equal(save_built_asking(asked_anew()), 0);
    assert_int_equal(asked.count, KEYS);
    assert_int_equal(asked.taken, KEYS);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(asked.wanted[i].object, place(OBJECT_AT));
        assert_int_equal(asked.wanted[i].type, place(REST_AT));
        assert_int_equal(asked.wanted[i].key, place(NAME_AT(i)));
        assert_int_equal(asked.wanted[i].key_length, 1);
        assert_int_equal(asked.wanted[i].database, 0);
    }
    build_value(5, 8);
    assert_int_equal(save_built_asking(asked_anew()), -EBADMSG);
    assert_int_equal(asked.count, 0);
}

/* ---- what no walker knows --------------------------------------------------------- */

/* Redis 8.8's: one database of one key, which is in its object. */
#define STORE_AT 512

static void build_newer(unsigned type, unsigned encoding)
{
    memset(heap, 0, HEAP_BYTES);
    for (size_t i = 0; i < 2; i++) {
        size_t store = STORE_AT * (1 + i), dict = store + 256, tables = store + 384;
        put(8 * i, place(store));
        put(store + 152, place(tables));
        put(store + 160, 1);
        put(tables, place(dict));
        put(dict + 8, place(BUCKETS_AT + PLACES + 8 * i));
        put(dict + 24, !i);
        put(dict + 40, UINT64_MAX);
        put(dict + 48, UINT64_C(0xff00) << 32);
    }
    put(BUCKETS_AT + PLACES, place(OBJECT_AT) | 2);
    put(OBJECT_AT, type | encoding << 4 | 1u << 31);
    put(OBJECT_AT + 8, place(VALUE_AT));
    put(OBJECT_AT + 16, 1 | 1 << 3 << 8 | 'k' << 16);
}

static int save_of(enum keyspace_layout layout, const char **where,
                   frozen_address *object)
{
    struct keyspace_roots roots = {
        .layout = layout, .databases = place(0), .database_count = 1};
    struct counting_sink sink = {{count}, 0};
    struct keyspace_observer observer = {.progress = limit_keys};
    struct rdb_encoder *encoder = rdb_encoder_create(&sink.sink, compress);
    struct view_reader reader;
    view_reader_init(&reader, &view);
    int error = keyspace_save(&roots, &reader, encoder, &observer, NULL, where);
    *object = observer.stranger;
    rdb_encoder_destroy(encoder);
    return error;
}

/* By the number that its server gives it; any other is what cannot be. */
static void newer_types_are_named(void **state)
{
    (void)state;
    for (unsigned type = 0; type < 16; type++)
        for (unsigned encoding = 0; encoding < 16; encoding++) {
            bool is_array = type == 7 && encoding == 13;
            bool is_rate = type == 8 && encoding == 1;
            const char *where = "";
            frozen_address object;
            build_newer(type, encoding);
            int error = save_of(KEYSPACE_REDIS_8_8, &where, &object);
            assert_int_equal(error == KEYSPACE_STRANGER, is_array || is_rate);
            assert_int_equal(strstr(where, "ARRAY") != NULL, is_array);
            assert_int_equal(strstr(where, "GCRA") != NULL, is_rate);
            if (is_array || is_rate)
                assert_int_equal(object, place(OBJECT_AT));
            else if (type > 6)
                assert_int_equal(error, -EBADMSG);
        }
    build_value(7, 13);
    assert_int_equal(save_built(), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(redis_7_0),
        cmocka_unit_test(redis_8_0),
        cmocka_unit_test(valkey_8_0),
        cmocka_unit_test(valkey_8_1),
        cmocka_unit_test(valkey_9_1),
        cmocka_unit_test(every_expiry_is_found),
        cmocka_unit_test(a_length_is_not_allocated),
        cmocka_unit_test(a_list_without_end_ends),
        cmocka_unit_test(a_tree_without_leaves_ends),
        cmocka_unit_test(pointers_at_the_end_of_the_addresses_end),
        cmocka_unit_test(values_of_modules_are_asked_for),
        cmocka_unit_test(newer_types_are_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
