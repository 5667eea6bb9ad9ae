/* What a server says of the slots that it is importing. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "host/imports.h"

static bool imported[KEYSPACE_SLOTS];

static int parse(const void *bytes, size_t length)
{
    memset(imported, 0, sizeof(imported));
    return imports_parse(bytes, length, imported);
}

static unsigned count(void)
{
    unsigned found = 0;
    for (int slot = 0; slot < KEYSPACE_SLOTS; slot++)
        found += imported[slot];
    return found;
}

/* Two imports: 0 to 2 and 63 to 64; 16383, its name compressed. */
static const unsigned char two[] = {243, 4,   'n', 'a', 'm', 'e',  2,   0,
                                    2,   63,  64,  64,  243, 0xC3, 3,   40,
                                    'x', 'y', 'z', 1,   127, 255,  127, 255};
#define FIRST 12

static void no_import(void **state)
{
    (void)state;
    assert_int_equal(parse(two, 0), 0);
    assert_int_equal(count(), 0);
}

static void several(void **state)
{
    (void)state;
    static const int slots[] = {0, 1, 2, 63, 64, KEYSPACE_SLOTS - 1};
    assert_int_equal(parse(two, sizeof(two)), 0);
    assert_int_equal(count(), 6);
    for (int i = 0; i < 6; i++)
        assert_true(imported[slots[i]]);
}

/* Nothing but whole imports is taken for such. */
static void cut_off(void **state)
{
    (void)state;
    for (size_t length = 1; length < sizeof(two); length++)
        assert_int_equal(parse(two, length), length == FIRST ? 0 : -EBADMSG);
}

static void something_else(void **state)
{
    (void)state;
    static const unsigned char opcode[] = {242, 0, 0},
                               wide[] = {243, 0, 0x80, 0, 0, 0, 0};
    assert_int_equal(parse(opcode, sizeof(opcode)), -EBADMSG);
    assert_int_equal(parse(wide, sizeof(wide)), -EBADMSG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_import),
        cmocka_unit_test(several),
        cmocka_unit_test(cut_off),
        cmocka_unit_test(something_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
