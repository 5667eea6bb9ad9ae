/* Putting off the frees of a server, which is this program: it has functions of the names by
 * which a server allocates and frees. */
#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "host/deferred_free.h"
#include "kernel/symbols.h"

void *zmalloc(size_t bytes);
void zfree(void *memory);

/* By a function that no import leads to. */
static void (*frees_by)(void *memory);

void *zmalloc(size_t bytes)
{
    return malloc(bytes);
}

void zfree(void *memory)
{
    if (frees_by)
        frees_by(memory);
    else
        free(memory);
}

static bool frees_nothing(void *memory)
{
    (void)memory;
    return false;
}

static int start(void **state)
{
    (void)state;
    frees_by = NULL;
    deferred_free_reach((const void *)symbol_find("malloc"), "");
    return 0;
}

static void are_put_off(void **state)
{
    (void)state;
    assert_int_equal(deferred_free_install(frees_nothing, frees_nothing), 0);
    assert_string_equal(deferred_free_obstacle(), "");
    deferred_free_begin(false, NULL);
    uint64_t before = deferred_free_bytes();
    zfree(zmalloc(1000));
    assert_true(deferred_free_bytes() >= before + 1000);
    deferred_free_end();
    deferred_free_remove();
    assert_int_equal(deferred_free_bytes(), 0);
}

/* As many as are small: two for each of a million values that are overwritten. */
static void are_put_off_until_they_are_too_large(void **state)
{
    (void)state;
    const size_t count = 1200 * 1000;
    void **blocks = malloc(count * sizeof(*blocks));
    assert_int_equal(deferred_free_install(frees_nothing, frees_nothing), 0);
    for (size_t i = 0; i < count; i++)
        blocks[i] = zmalloc(24); /* which every allocator takes for 24 and no more */
    uint64_t bytes = malloc_usable_size(blocks[0]), before = deferred_free_bytes();
    deferred_free_begin(false, NULL);
    for (size_t i = 0; i < count; i++)
        zfree(blocks[i]);
    assert_int_equal(deferred_free_bytes() - before, count * bytes);
    assert_true(count * bytes > DEFERRED_FREE_BYTES_MAX / 2);
    deferred_free_end();
    while (deferred_free_some(1000))
        ;
    assert_int_equal(deferred_free_bytes(), 0);
    deferred_free_remove();
    free(blocks);
}

static void by_an_unknown_function(void **state)
{
    (void)state;
    void *function = symbol_find("free");
    frees_by = (void (*)(void *))function;
    assert_int_equal(deferred_free_install(frees_nothing, frees_nothing), -ENXIO);
    assert_false(deferred_free_is_installed());
    assert_string_equal(deferred_free_obstacle(),
                        "the server frees by a function that is not known");
    zfree(zmalloc(1000));
    assert_int_equal(deferred_free_bytes(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(are_put_off, start),
        cmocka_unit_test_setup(are_put_off_until_they_are_too_large, start),
        cmocka_unit_test_setup(by_an_unknown_function, start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
