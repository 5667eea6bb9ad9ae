/* What the doctor looks at, and what it says. */
#ifndef RDB_UFFD_DOCTOR_CASE_H
#define RDB_UFFD_DOCTOR_CASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum doctor_status { DOCTOR_OK, DOCTOR_WARN, DOCTOR_FAIL };

struct doctor_finding {
    const char *name; /* static text */
    enum doctor_status status;
    char text[256];
    char remedy[384]; /* "" when nothing needs to be done */
};

/* Never more findings than this. */
#define DOCTOR_FINDINGS 20

struct rdb_uffd_host;
struct rdb_uffd_settings;
struct history_entry;

/* The server's answers about its own settings. */
struct doctor_server {
    /* False when it has none of this name, or the value does not fit. */
    bool (*setting)(void *context, const char *name, char *value, size_t size);
    void *context;
};

/* What is known of the service. */
struct doctor_case {
    const struct rdb_uffd_host *host;
    const struct rdb_uffd_settings *settings;
    const struct doctor_server *server;
    const char *layout_reason; /* why the server's layout is not known, "" if it is */
    bool proved;               /* a key at least was compared with what the server says */
    const char *doubt;         /* what a save met that cannot be, "" if none did */
    bool doubt_is_unknown_value; /* … or just a value that this version does not know */
    bool has_allocator;
    bool reads_are_slow;      /* of parts of huge pages, on this machine */
    bool merging_lifted;      /* KSM was on for the process, and is not any more */
    const char *guard_reason; /* why the allocator cannot be guarded, "" if it is */
    const char *frees_reason; /* why frees cannot be put off, "" if they are */
    const char *child_reason; /* why modules' values need a fork, NULL if they do not */
    bool supported;           /* by layout, allocator and kernel */
    uint64_t heap_bytes;
    uint64_t least_limit; /* for this heap, bytes */
    uint64_t limit;
    uint64_t predicted_bytes;         /* by the last measurement, 0: none */
    uint64_t written_per_second;      /* pages, by the same */
    uint64_t spooled_per_second;      /* pages, in the last save that spooled, 0: none */
    const struct history_entry *last; /* NULL: no save yet */
    uint64_t fallbacks;
    const char *last_fallback_reason;
};

#endif
