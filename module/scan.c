#include "scan.h"

#include <stdbool.h>
#include <time.h>

#include "rdb_uffd.h"

#define LIMIT_MSEC    100
#define STEPS_BETWEEN 256
#define DATABASES_MAX 1000000

static double clock_msec(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void look_at(api_context *context, api_string *name, api_key *key, void *found)
{
    (void)context, (void)name;
    if (api.KeyType(key) == API_KEY_TYPE_MODULE)
        *(bool *)found = true;
}

/* What is found out about the selected database; NULL: nothing is there. */
static const char *look_through_database(api_context *context, double until)
{
    api_scan_cursor *cursor = api.ScanCursorCreate();
    bool found = false, more = true;
    const char *why = NULL;
    for (unsigned step = 1; more && !why; step++) {
        more = api.Scan(context, cursor, look_at, &found);
        if (found)
            why = "values of its types exist";
        else if (more && step % STEPS_BETWEEN == 0 && clock_msec() > until)
            why = "too many keys were there before this module was loaded to look "
                  "through them; load it from the configuration file";
    }
    api.ScanCursorDestroy(cursor);
    return why;
}

void scan_for_module_values(api_context *context)
{
    double until = clock_msec() + LIMIT_MSEC;
    const char *why = NULL;
    if (!rdb_uffd_watches_values())
        return;
    for (int i = 0; !why && i < DATABASES_MAX; i++) {
        if (api.SelectDb(context, i) != API_OK)
            break;
        if (api.DbSize(context))
            why = look_through_database(context, until);
    }
    api.SelectDb(context, 0);
    if (why)
        rdb_uffd_note_values(why);
}
