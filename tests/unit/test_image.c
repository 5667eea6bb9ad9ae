/* Words in the variables of a loaded object. */
#include <gnu/libc-version.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernel/image.h"

/* Not spelt out in any constant: this program has it where it is put. */
static uintptr_t sought(void)
{
    return (uintptr_t)strlen("twelve bytes") * UINT64_C(0x0123456789abcd);
}

static uintptr_t zeroed, filled[3] = {1, 2, 3};
static char unaligned[2 * sizeof(uintptr_t)] __attribute__((aligned(8)));

struct finds {
    uintptr_t *words[8];
    size_t count, most;
};

static bool keep(uintptr_t *word, void *context)
{
    struct finds *finds = context;
    finds->words[finds->count++] = word;
    return finds->count < finds->most;
}

static bool has(const struct finds *finds, const void *word)
{
    for (size_t i = 0; i < finds->count; i++)
        if (finds->words[i] == word)
            return true;
    return false;
}

static struct finds find(const void *inside, size_t most)
{
    struct finds finds = {.most = most};
    image_find(inside, sought(), keep, &finds);
    return finds;
}

static void finds_variables_with_and_without_content(void **state)
{
    (void)state;
    zeroed = filled[1] = sought();
    struct finds finds = find(&zeroed, 8);
    assert_int_equal(finds.count, 2);
    assert_true(has(&finds, &zeroed));
    assert_true(has(&finds, &filled[1]));
    /* From a function of the same object as well. */
    finds = find((const void *)find, 8);
    assert_int_equal(finds.count, 2);
    finds = find(&zeroed, 1);
    assert_int_equal(finds.count, 1);
    zeroed = filled[1] = 0;
    assert_int_equal(find(&zeroed, 8).count, 0);
}

/* What is not where a pointer would be, is on the heap, or in another object. */
static void finds_nothing_else(void **state)
{
    (void)state;
    uintptr_t value = sought();
    uintptr_t *allocated = malloc(sizeof(*allocated));
    *allocated = value;
    memcpy(unaligned + 3, &value, sizeof(value));
    assert_int_equal(find(&zeroed, 8).count, 0);
    assert_int_equal(find(allocated, 8).count, 0);
    zeroed = value;
    assert_int_equal(find((const void *)strlen, 8).count, 0);
    zeroed = 0;
    memset(unaligned, 0, sizeof(unaligned));
    free(allocated);
}

static void tells_objects_apart(void **state)
{
    (void)state;
    assert_true(image_is_same(&zeroed, (const void *)find));
    assert_false(image_is_same(&zeroed, (const void *)free));
    assert_false(image_is_same(&zeroed, NULL));
}

/* Whoever is linked with a variable has its address in a part that is read-only by now. A
 * function that no sanitizer has one of its own for: strlen() would be the sanitizer's. */
static void finds_who_refers(void **state)
{
    (void)state;
    assert_true(image_refers((const void *)gnu_get_libc_version, &stdout));
    assert_false(image_refers((const void *)gnu_get_libc_version, &zeroed));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_variables_with_and_without_content),
        cmocka_unit_test(finds_nothing_else),
        cmocka_unit_test(tells_objects_apart),
        cmocka_unit_test(finds_who_refers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
