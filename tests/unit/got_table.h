/* What the executable's table has for some functions: to see that it was changed, and
 * that it is again what it was. Call each function once before: a slot changes when it
 * is bound. After cmocka.h. */
#ifndef RDB_UFFD_TESTS_UNIT_GOT_TABLE_H
#define RDB_UFFD_TESTS_UNIT_GOT_TABLE_H

#include <stdbool.h>

#include "host/got.h"

#define GOT_TABLE_NAMES 5

struct got_table {
    void *functions[GOT_TABLE_NAMES];
};

static inline struct got_table got_table_read(const char *const names[GOT_TABLE_NAMES])
{
    struct got_table table;
    struct got_object executable;
    struct got_patch patch;
    assert_int_equal(got_find_executable(&executable), 0);
    for (int i = 0; i < GOT_TABLE_NAMES; i++) {
        assert_int_equal(got_replace(&executable, names[i], NULL, &patch), 0);
        assert_int_equal(got_restore(&patch), 0);
        table.functions[i] = patch.previous[0];
    }
    return table;
}

/* Every one of them is what it was then, or none is. */
static inline void got_table_check(const struct got_table *then,
                                   const char *const names[GOT_TABLE_NAMES],
                                   bool as_before)
{
    struct got_table now = got_table_read(names);
    for (int i = 0; i < GOT_TABLE_NAMES; i++)
        assert_int_equal(now.functions[i] == then->functions[i], as_before);
}

#endif
