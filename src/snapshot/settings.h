/* What the operator has set. */
#ifndef RDB_UFFD_SETTINGS_H
#define RDB_UFFD_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#include "memory/preserved.h"

/* For the heap: upkeep/huge_pages.h. */
enum huge_pages {
    NO_HUGE_PAGES,
    HUGE_PAGES_WHERE_DENSE, /* ahead only where they are filled */
    HUGE_PAGES_EVERYWHERE,
};

/* What the operator sets. Defaults: rdb_uffd_default_settings(). */
struct rdb_uffd_settings {
    bool enabled;     /* no: the server's own fork, silently */
    bool fallback;    /* no: what cannot be served fails, instead of forking */
    bool compression; /* LZ4 for preserved pages when the buffer fills */
    bool value_child; /* for values of modules' types; no: they make a save fork */
    enum huge_pages huge_pages;
    enum buffer_policy buffer_policy;
    uint64_t buffer_limit;       /* bytes; or, if buffer_percent is not 0: */
    unsigned buffer_percent;     /* of the memory in use at the freeze, 1 … 100 */
    unsigned threads;            /* that save, at most RDB_UFFD_THREADS_MAX; 0: chosen */
    char spool_directory[1024];  /* "": the server's working directory */
    char backup_directory[1024]; /* likewise */
    char layout_file[1024]; /* "": the server's layout is built in; looked at once, by
                               rdb_uffd_start() */
};

#define RDB_UFFD_THREADS_MAX 16

/* The least buffer limit that is taken: a few hundred pages and their index. */
#define RDB_UFFD_LEAST_BUFFER_LIMIT (UINT64_C(4) << 20)

#endif
