#include "scan.h"

#include <stdbool.h>

#include "kernel/thread.h"
#include "rdb_uffd.h"

#define AT_LOAD_USEC  100000
#define A_TICK_USEC   2000
#define STEPS_BETWEEN 32
#define DATABASES_MAX 1000000

/* What is under way. A value that is renamed, moved or swapped to where was looked
 * already is not found: then the walk of a save meets it, and gives that save up. */
static struct {
    bool under_way;
    int database;
    api_scan_cursor *cursor; /* NULL: the database is not begun */
    const void *found;       /* the type of a value */
} scan;

static void look_at(api_context *context, api_string *name, api_key *key, void *unused)
{
    (void)context, (void)name, (void)unused;
    if (api.KeyType(key) == API_KEY_TYPE_MODULE)
        scan.found = api.ModuleTypeGetType(key);
}

/* True when the selected database has been looked through, or something was found. */
static bool look_through_database(api_context *context, uint64_t until)
{
    if (!scan.cursor)
        scan.cursor = api.ScanCursorCreate();
    bool more = true;
    for (unsigned step = 1; more && !scan.found; step++) {
        more = api.Scan(context, scan.cursor, look_at, NULL);
        if (more && step % STEPS_BETWEEN == 0 && clock_usec() > until)
            return false;
    }
    api.ScanCursorDestroy(scan.cursor);
    scan.cursor = NULL;
    return true;
}

/* True when all is done. */
static bool look_until(api_context *context, uint64_t until)
{
    for (; scan.database < DATABASES_MAX && !scan.found; scan.database++) {
        if (api.SelectDb(context, scan.database) != API_OK)
            break;
        if (api.DbSize(context) && !look_through_database(context, until))
            return false;
    }
    return true;
}

static void go_on(api_context *context, uint64_t usec)
{
    bool done = look_until(context, clock_usec() + usec);
    api.SelectDb(context, 0);
    if (!done)
        return;
    scan_end();
    if (scan.found)
        rdb_uffd_note_value(scan.found);
}

void scan_begin(api_context *context)
{
    if (!rdb_uffd_values_are_possible())
        return;
    scan.under_way = true;
    scan.database = 0;
    scan.found = NULL;
    rdb_uffd_search_values(true);
    go_on(context, AT_LOAD_USEC);
}

void scan_tick(api_context *context)
{
    if (scan.under_way)
        go_on(context, A_TICK_USEC);
}

void scan_end(void)
{
    if (scan.cursor)
        api.ScanCursorDestroy(scan.cursor);
    scan.cursor = NULL;
    scan.under_way = false;
    rdb_uffd_search_values(false);
}
