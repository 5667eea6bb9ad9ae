/* What server.c has found of the server, for the files that read it or call it. Set by
 * server_identify(), main thread only. */
#ifndef RDB_UFFD_HOST_SERVER_INTERNAL_H
#define RDB_UFFD_HOST_SERVER_INTERNAL_H

#include <stdint.h>
#include <string.h>

#include "host/layout.h"
#include "host/server.h"
#include "rdb/output.h"

/* What is used of the server by name. */
struct server_symbols {
    const char *image; /* the variable `server` */
    rdb_compress_function lzf_compress;
    rdb_decompress_function lzf_decompress;
    rdb_checksum_function crc64;
    keyspace_hash_function siphash;
    const uint8_t *(*hash_seed)(void);
    int (*aux_fields)(void *rio, int flags, void *save_info);
    long (*modules_aux)(void *rio, int when);
    long (*functions)(void *rio);
    void *(*populate_save_info)(void *save_info);
    void (*rio_with_buffer)(void *rio, char *sds);
    char *(*sds_empty)(void);
    void (*sds_free)(char *sds);
    /* For values of modules' types, in a child (value_child/): NULL, where one of them is
     * missing. The type of what the dump has: only Valkey asks for it. */
    const char *missing_for_child;
    long (*save_object)(void *rio, void *object, void *key, int database,
                        unsigned char type);
    void *(*create_string)(const char *bytes, size_t length);
    void (*release)(void *object);
    void (*close_unused)(void); /* what a child has no use for */
    void (*set_out_of_memory)(void (*handler)(size_t bytes));
    /* Those that have it: enum server_ability. */
    const void *(*tcp_connections)(void); /* the type of such connections */
    const void *expiring_hash_type;
    uint32_t (*lru_idle_seconds)(uint32_t lru);
    int (*slot_imports)(void *rio, int rdb_version);
    unsigned (*keys_in_slot)(unsigned slot);
    int (*replica_rdb_version)(void *client);
    int (*is_trimming)(void);
    long long (*cached_usec)(
        void); /* its clock, which stands still while it does one thing */
};

/* The variables of its settings. */
struct server_variables {
    int *compression; /* changed for a moment: capture_streams(); in a child:
                         inside_run() */
    const int *checksum, *sync_dump, *sync_rewrite, *preamble;
    const int *cluster, *maxmemory_policy, *lfu_decay_time, *key_save_delay;
    char *const *file_name;
};

extern struct server_symbols server_symbols;
extern struct server_variables server_variables;
extern const struct server_layout *server_layout; /* NULL: not known */

/* What stands in the variable `server` at an offset of the layout. */
static inline int32_t server_int(uint16_t offset)
{
    int32_t value;
    memcpy(&value, server_symbols.image + offset, sizeof(value));
    return value;
}

static inline uint64_t server_word(uint16_t offset)
{
    uint64_t value;
    memcpy(&value, server_symbols.image + offset, sizeof(value));
    return value;
}

#endif
