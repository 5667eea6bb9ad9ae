/* The last saves and what each of them cost.
 *
 * A save is noted when the server has learned of its end, or when it could not
 * be served and went to the server's own fork. Main thread only.
 */
#ifndef RDB_UFFD_HISTORY_H
#define RDB_UFFD_HISTORY_H

#include <stddef.h>
#include <stdint.h>

#define HISTORY_SAVES 100

enum history_result {
    HISTORY_OK,
    HISTORY_FAILED,
    HISTORY_CANCELLED, /* ended by a signal: SHUTDOWN, FLUSHALL, a lost replica … */
    HISTORY_FORKED,    /* the server's own fork did it: cause, reason and pause known */
    HISTORY_REFUSED,   /* `fallback no` */
};

struct history_entry {
    uint64_t id;          /* counts from 1 since the module was loaded */
    int64_t started_msec; /* wall clock, since 1970 */
    const char *cause;    /* static text */
    enum history_result result;
    char reason[256]; /* of a failure, "" else */
    uint64_t freeze_usec;
    uint64_t duration_msec; /* from the beginning of the freeze to the last byte */
    uint64_t keys;
    uint64_t file_bytes;
    uint64_t faults;
    uint64_t pages_preserved;
    uint64_t buffer_peak_bytes;
    uint64_t spool_peak_bytes;
    /* Faults that had to wait for the spool or for room. */
    uint64_t writer_waits;
    uint64_t writer_wait_usec;
    uint64_t writer_wait_longest_usec;
    /* Every fault, from the moment the fault server is awake for it. */
    uint64_t fault_wait_p50_usec;
    uint64_t fault_wait_p99_usec;
    uint64_t fault_wait_max_usec;
    /* Values of modules' types, by a child without a heap. */
    uint64_t child_values;
    uint64_t child_fork_usec; /* of the freeze */
    uint64_t child_wait_usec; /* the saver's, for their bytes */
    uint64_t child_pages;
    uint64_t child_peak_bytes;
};

struct history {
    struct history_entry entries[HISTORY_SAVES]; /* a ring */
    size_t count;                                /* at most HISTORY_SAVES */
    size_t next;
};

/* Forgets all saves; also makes one of unknown content ready. */
void history_clear(struct history *history);
/* Copies the entry; the oldest one goes when there are HISTORY_SAVES. */
void history_add(struct history *history, const struct history_entry *entry);
/* The pause of the newest, which is known later than the rest. */
void history_note_freeze(struct history *history, uint64_t usec);
/* 0: the newest. NULL when there are not so many. */
const struct history_entry *history_at(const struct history *history, size_t back);
/* Of a save of ours that ended with 0 or -errno. */
enum history_result history_result_of(int error);
const char *history_result_name(enum history_result result);

#endif
