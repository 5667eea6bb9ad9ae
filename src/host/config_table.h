/* The server's own table of settings, `static_configs`: where the variable of a setting
 * lies, whatever the version and the build.
 *
 *   entry   0 name · alias · flags · functions … · N the variable · default …
 *
 * The size of an entry and N differ between versions, and are not taken from anywhere: N
 * is the first word that points into the server's own variables behind each of the names
 * that are asked for. Nothing else in an entry does, up to there.
 */
#ifndef RDB_UFFD_HOST_CONFIG_TABLE_H
#define RDB_UFFD_HOST_CONFIG_TABLE_H

#include <stddef.h>

/* A setting by the server's name for it, and where the address of its variable goes. */
struct config_variable {
    const char *name;
    void *where;
};

/* Finds all of them. NULL, or a sentence about what is not as it should be (static text):
 * then nothing was stored. Main thread. */
const char *config_table_find(const struct config_variable *wanted, size_t count);

#endif
