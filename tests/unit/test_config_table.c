/* The server's table of settings, imitated by this program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "host/config_table.h"

#define ENTRY_WORDS 20
#define NAMES       3

/* As in the servers, of another size than any of theirs. */
struct entry {
    const void *words[ENTRY_WORDS];
};

static int first = 1, second = 2;
static const char *third = "dump.rdb";
static int limit; /* something else that an entry may point to, further behind */

#define ENTRY(name, alias, variable)                                                     \
    {                                                                                    \
        {                                                                                \
            name, alias, (void *)(uintptr_t)4, (void *)(uintptr_t)main_function, NULL,   \
                variable, (void *)(uintptr_t)1, &limit,                                  \
        }                                                                                \
    }

static void main_function(void)
{
}

__attribute__((visibility("default"))) struct entry static_configs[NAMES + 2];

static void fill(void)
{
    struct entry entries[] = {
        ENTRY("first", NULL, &first),
        ENTRY("second", "zweite", &second),
        ENTRY("third", NULL, &third),
    };
    for (size_t i = 0; i < NAMES; i++)
        static_configs[i] = entries[i];
}

static void variables_are_found(void **state)
{
    (void)state;
    const int *one = NULL, *two = NULL;
    const char *const *text = NULL;
    const struct config_variable wanted[] = {
        {"third", &text}, {"first", &one}, {"second", &two}};
    fill();
    assert_null(config_table_find(wanted, NAMES));
    assert_ptr_equal(one, &first);
    assert_ptr_equal(two, &second);
    assert_ptr_equal(text, &third);
}

static void unknown_setting(void **state)
{
    (void)state;
    const int *one = NULL, *two = NULL;
    const struct config_variable wanted[] = {{"first", &one}, {"fourth", &two}};
    fill();
    assert_non_null(config_table_find(wanted, 2));
    assert_null(one);
}

/* One entry that does not point to a variable where the others do. */
static void other_form(void **state)
{
    (void)state;
    const int *one = NULL, *two = NULL;
    const struct config_variable wanted[] = {{"first", &one}, {"second", &two}};
    fill();
    for (size_t word = 5; word < ENTRY_WORDS; word++)
        static_configs[1].words[word] = "no variable";
    assert_non_null(config_table_find(wanted, 2));
    assert_null(two);
}

/* What is no address at all is not followed. */
static void wild_words(void **state)
{
    (void)state;
    const int *one = NULL;
    const struct config_variable wanted[] = {{"third", &one}};
    fill();
    for (size_t word = 0; word < ENTRY_WORDS; word++)
        static_configs[0].words[word] = (void *)(uintptr_t)(word * 0x123456789);
    assert_null(config_table_find(wanted, 1));
    assert_ptr_equal(one, &third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variables_are_found),
        cmocka_unit_test(unknown_setting),
        cmocka_unit_test(other_form),
        cmocka_unit_test(wild_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
