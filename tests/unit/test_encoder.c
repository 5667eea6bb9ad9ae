/* The format of the dump, byte by byte, and the server's LZF made repeatable. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "rdb/comparison.h"
#include "rdb/encoder.h"

/* liblzf's, which is where the server's come from. */
unsigned int lzf_compress(const void *in, unsigned int in_length, void *out,
                          unsigned int out_length);
unsigned int lzf_decompress(const void *in, unsigned int in_length, void *out,
                            unsigned int out_length);

#define KEPT_MAX (4u << 20)

/* A sink that keeps what it gets and fails after so many bytes. */
struct memory_sink {
    struct rdb_sink sink;
    unsigned char *bytes;
    size_t length;
    size_t fails_after;
};
static struct memory_sink memory;

static int keep(struct rdb_sink *sink, const void *bytes, size_t length)
{
    struct memory_sink *kept = (struct memory_sink *)sink;
    if (kept->length + length > kept->fails_after)
        return -ENOSPC;
    memcpy(kept->bytes + kept->length, bytes, length);
    kept->length += length;
    return 0;
}

static size_t compress(const void *in, size_t in_length, void *out, size_t out_length)
{
    return lzf_compress(in, (unsigned)in_length, out, (unsigned)out_length);
}

static struct rdb_encoder *encoder;

static int set_up(void **state)
{
    (void)state;
    memory = (struct memory_sink){{keep}, malloc(KEPT_MAX), 0, KEPT_MAX};
    encoder = rdb_encoder_create(&memory.sink, compress);
    return !encoder || !memory.bytes;
}

static int tear_down(void **state)
{
    (void)state;
    rdb_encoder_destroy(encoder);
    free(memory.bytes);
    return 0;
}

/* That what was encoded since the last time is this. */
static void expect(const void *bytes, size_t length)
{
    assert_int_equal(rdb_encoder_flush(encoder), 0);
    assert_int_equal(memory.length, length);
    assert_memory_equal(memory.bytes, bytes, length);
    memory.length = 0;
}
#define EXPECT(...)                                                                      \
    do {                                                                                 \
        const unsigned char expected[] = {__VA_ARGS__};                                  \
        expect(expected, sizeof(expected));                                              \
    } while (0)

static void lengths(void **state)
{
    (void)state;
    rdb_encode_length(encoder, 0);
    EXPECT(0);
    rdb_encode_length(encoder, 63);
    EXPECT(63);
    rdb_encode_length(encoder, 64);
    EXPECT(0x40, 64);
    rdb_encode_length(encoder, 16383);
    EXPECT(0x7F, 0xFF);
    rdb_encode_length(encoder, 16384);
    EXPECT(0x80, 0, 0, 0x40, 0);
    rdb_encode_length(encoder, UINT32_MAX);
    EXPECT(0x80, 0xFF, 0xFF, 0xFF, 0xFF);
    rdb_encode_length(encoder, UINT64_C(1) << 32);
    EXPECT(0x81, 0, 0, 0, 1, 0, 0, 0, 0);
    rdb_encode_length(encoder, UINT64_MAX);
    EXPECT(0x81, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF);
}

static void strings(void **state)
{
    (void)state;
    rdb_encode_string(encoder, "", 0);
    EXPECT(0);
    rdb_encode_string(encoder, "abc", 3);
    EXPECT(3, 'a', 'b', 'c');
    /* What is a number in its only form is kept as one. */
    rdb_encode_string(encoder, "12", 2);
    EXPECT(0xC0, 12);
    rdb_encode_string(encoder, "-129", 4);
    EXPECT(0xC1, 0x7F, 0xFF);
    rdb_encode_string(encoder, "70000", 5);
    EXPECT(0xC2, 0x70, 0x11, 1, 0);
    rdb_encode_string(encoder, "012", 3);
    EXPECT(3, '0', '1', '2');
    rdb_encode_string(encoder, "+5", 2);
    EXPECT(2, '+', '5');
    rdb_encode_string(encoder, "-0", 2);
    EXPECT(2, '-', '0');
    rdb_encode_string(encoder, "2147483648", 10);
    EXPECT(10, '2', '1', '4', '7', '4', '8', '3', '6', '4', '8');
    rdb_encode_integer_string(encoder, -1);
    EXPECT(0xC0, 0xFF);
    rdb_encode_integer_string(encoder, INT64_C(4294967296));
    EXPECT(10, '4', '2', '9', '4', '9', '6', '7', '2', '9', '6');
}

static void numbers(void **state)
{
    (void)state;
    rdb_encode_milliseconds(encoder, INT64_C(0x0102030405060708));
    EXPECT(8, 7, 6, 5, 4, 3, 2, 1);
    rdb_encode_binary_double(encoder, 1.0);
    EXPECT(0, 0, 0, 0, 0, 0, 0xF0, 0x3F);
    rdb_encode_byte(encoder, 250);
    rdb_encode_raw(encoder, "xy", 2);
    EXPECT(250, 'x', 'y');
}

/* 20 bytes and less are not tried; what does not shrink by four stays as it is. */
static void compresses_what_shrinks(void **state)
{
    (void)state;
    char same[1000], back[1000];
    memset(same, 'a', sizeof(same));
    rdb_encode_string(encoder, same, 20);
    rdb_encoder_flush(encoder);
    assert_int_equal(memory.length, 21);
    memory.length = 0;
    rdb_encode_string(encoder, same, sizeof(same));
    rdb_encoder_flush(encoder);
    assert_int_equal(memory.bytes[0], 0xC3);
    unsigned compressed = memory.bytes[1];
    assert_int_equal(memory.bytes[2], 0x43);
    assert_int_equal(memory.bytes[3], 0xE8);
    assert_int_equal(memory.length, 4 + compressed);
    assert_int_equal(lzf_decompress(memory.bytes + 4, compressed, back, sizeof(back)),
                     sizeof(same));
    assert_memory_equal(same, back, sizeof(same));
}

/* Whatever was compressed before, the same value gives the same bytes. */
static void compression_is_repeatable(void **state)
{
    (void)state;
    uint64_t seed = (uint64_t)time(NULL);
    printf("SEED=%llu\n", (unsigned long long)seed);
    unsigned char value[4000], first[5000];
    for (size_t i = 0; i < sizeof(value); i++)
        value[i] = (unsigned char)("abcd"[i * i / 7 % 4]);
    rdb_encode_string(encoder, value, sizeof(value));
    rdb_encoder_flush(encoder);
    size_t length = memory.length;
    memcpy(first, memory.bytes, length);
    for (int i = 0; i < 3000; i++) {
        unsigned char other[3000];
        size_t other_length = 100 + seed % 2900;
        for (size_t k = 0; k < other_length; k++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            other[k] = "abcdxyz"[(seed >> 40) % (1 + i % 7)];
        }
        rdb_encode_string(encoder, other, other_length);
        rdb_encoder_flush(encoder);
        memory.length = 0;
        rdb_encode_string(encoder, value, sizeof(value));
        expect(first, length);
    }
}

static size_t decompress(const void *in, size_t in_length, void *out, size_t out_length)
{
    return lzf_decompress(in, (unsigned)in_length, out, (unsigned)out_length);
}

/* Strings, numbers and a string that looks compressed, with what shrinks. */
static size_t encode_for_comparison(rdb_compress_function function, unsigned char *bytes)
{
    static const unsigned char odd[] = {0xC3, 0xC3, 0xC3, 5, 3, 1};
    char text[300];
    struct rdb_encoder *one = rdb_encoder_create(&memory.sink, function);
    assert_non_null(one);
    for (size_t length = 0; length < sizeof(text); length += 7) {
        memset(text, 'a' + (int)(length % 3), sizeof(text));
        text[length / 2] = 'x';
        rdb_encode_string(one, text, length);
        rdb_encode_string(one, odd, sizeof(odd));
        rdb_encode_integer_string(one, (int64_t)(length * 1000));
    }
    assert_int_equal(rdb_encoder_flush(one), 0);
    rdb_encoder_destroy(one);
    size_t length = memory.length;
    memcpy(bytes, memory.bytes, length);
    memory.length = 0;
    return length;
}

static void compressed_is_the_same(void **state)
{
    (void)state;
    static unsigned char plain[65536], packed[65536], scratch[65536];
    size_t plain_length = encode_for_comparison(NULL, plain);
    size_t length = encode_for_comparison(compress, packed);
    assert_true(length < plain_length / 2);
    assert_true(
        rdb_is_same_value(plain, plain_length, packed, length, decompress, scratch));
    assert_true(
        rdb_is_same_value(plain, plain_length, plain, plain_length, decompress, scratch));
    assert_false(
        rdb_is_same_value(plain, plain_length, packed, length - 1, decompress, scratch));
    assert_false(
        rdb_is_same_value(plain, plain_length - 1, packed, length, decompress, scratch));
    for (size_t i = 0; i < plain_length; i++) {
        plain[i] ^= 1;
        assert_false(
            rdb_is_same_value(plain, plain_length, packed, length, decompress, scratch));
        plain[i] ^= 1;
    }
}

static void errors_stay(void **state)
{
    (void)state;
    unsigned char bytes[100000] = {0};
    memory.fails_after = 150000;
    int error = 0;
    for (int i = 0; i < 10 && !error; i++)
        error = rdb_encode_raw(encoder, bytes, sizeof(bytes));
    assert_int_equal(error, -ENOSPC);
    memory.fails_after = KEPT_MAX;
    assert_int_equal(rdb_encode_byte(encoder, 1), -ENOSPC);
    assert_int_equal(rdb_encoder_flush(encoder), -ENOSPC);
    assert_int_equal(rdb_encoder_error(encoder), -ENOSPC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lengths, set_up, tear_down),
        cmocka_unit_test_setup_teardown(strings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(numbers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compresses_what_shrinks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compression_is_repeatable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(compressed_is_the_same, set_up, tear_down),
        cmocka_unit_test_setup_teardown(errors_stay, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
