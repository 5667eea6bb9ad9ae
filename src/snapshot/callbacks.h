/* What the module asks of whoever speaks to the server: module/server_api.c. */
#ifndef RDB_UFFD_CALLBACKS_H
#define RDB_UFFD_CALLBACKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What the server says of a key. */
enum rdb_uffd_key_type {
    RDB_UFFD_NO_KEY,
    RDB_UFFD_STRING,
    RDB_UFFD_LIST,
    RDB_UFFD_SET,
    RDB_UFFD_SORTED_SET,
    RDB_UFFD_HASH,
    RDB_UFFD_MODULE_VALUE,
    RDB_UFFD_STREAM,
};

struct rdb_uffd_key_answer {
    enum rdb_uffd_key_type type;
    int64_t expire;       /* milliseconds since 1970, -1: never */
    unsigned char *value; /* as DUMP has it, cut off at `room` bytes; 0: not asked for */
    size_t room;
    size_t value_length; /* 0: it does not say */
};

enum rdb_uffd_level { RDB_UFFD_VERBOSE, RDB_UFFD_NOTICE, RDB_UFFD_WARNING };

/* What this part needs of whoever speaks to the server. */
struct rdb_uffd_host {
    void (*log)(enum rdb_uffd_level level, const char *text);
    uint64_t (*memory_in_use)(void); /* bytes, for buffer_percent; may be NULL */
    /* Makes the server call rdb_uffd_tick() at once, besides the usual ticks. Any
     * thread. */
    void (*wake)(void);
    /* To prove what is known of its keyspace by, before the first save. Also called
     * from within the server's fork(). */
    bool (*has_database)(int database);
    uint64_t (*count_keys)(int database);
    void (*ask_key)(int database, const void *name, size_t length,
                    struct rdb_uffd_key_answer *said);
    /* Its clocks as INFO has them: seconds since 1970, and of accesses; -1: it does not
     * say. */
    void (*ask_clocks)(int64_t *unix_time, int64_t *lru_clock);
    /* Whether a replica of the server's is at this descriptor. */
    bool (*is_replica)(int descriptor);
    const char *server_name;    /* "redis" or "valkey" */
    const char *server_version; /* "7.0.15" */
    const char *saver_cpus;     /* the server's bgsave_cpulist, "": any */
    const char *rewriter_cpus;  /* and its aof_rewrite_cpulist */
};

#endif
