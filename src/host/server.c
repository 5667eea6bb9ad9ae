#include "host/server.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/child_report.h"
#include "host/config_table.h"
#include "host/layout.h"
#include "host/layout_file.h"
#include "host/module_values.h"
#include "host/server_internal.h"
#include "host/server_stream.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/symbols.h"

/* The server's flags (rdb.h, server.h, module.h of every known version). */
#define POLICY_LRU     1
#define POLICY_LFU     2
#define DATABASES_MAX  1000000
#define MAGIC_NAME     6 /* "REDIS0" or "VALKEY", then the version */
#define LRU_CLOCK_MASK ((1 << 24) - 1)
/* The server's clocks stand still while a command runs. */
#define CLOCK_SECONDS 86400

struct server_symbols server_symbols;
struct server_variables server_variables;
const struct server_layout *server_layout;

/* ---- which server? --------------------------------------------------------------- */

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int find_symbols(char *reason, size_t reason_size)
{
    const struct {
        const char *name;
        void *where;
        unsigned wanted; /* 0: of every server, or of those that have this */
        bool tells;      /* who exports it has it */
    } all[] = {
        {"server", &server_symbols.image, 0, false},
        {"lzf_compress", &server_symbols.lzf_compress, 0, false},
        {"lzf_decompress", &server_symbols.lzf_decompress, 0, false},
        {"crc64", &server_symbols.crc64, 0, false},
        {"siphash", &server_symbols.siphash, HAS_EXPIRES_BY_NAME, false},
        {"dictGetHashFunctionSeed", &server_symbols.hash_seed, HAS_EXPIRES_BY_NAME,
         false},
        {"rdbSaveInfoAuxFields", &server_symbols.aux_fields, 0, false},
        {"rdbSaveModulesAux", &server_symbols.modules_aux, 0, false},
        {"rdbSaveFunctions", &server_symbols.functions, 0, false},
        {"rdbPopulateSaveInfo", &server_symbols.populate_save_info, 0, false},
        {"rioInitWithBuffer", &server_symbols.rio_with_buffer, 0, false},
        {"sdsempty", &server_symbols.sds_empty, 0, false},
        {"sdsfree", &server_symbols.sds_free, 0, false},
        {"connectionTypeTcp", &server_symbols.tcp_connections, HAS_DIRECT_TRANSFERS,
         false},
        {"mstrHashDictTypeWithHFE", &server_symbols.expiring_hash_type,
         HAS_EXPIRING_FIELDS, true},
        {"entryHashDictTypeWithHFE", &server_symbols.expiring_hash_type,
         HAS_EXPIRING_ENTRIES, true},
        {"asmIsTrimInProgress", &server_symbols.is_trimming, HAS_TRIM_JOBS, true},
        {"RM_CachedMicroseconds", &server_symbols.cached_usec, HAS_EXPIRING_PRODUCERS,
         false},
        {"lru_getIdleSecs", &server_symbols.lru_idle_seconds, HAS_CLOCKS_OF_ITS_OWN,
         true},
        {"clusterRDBSaveSlotImports", &server_symbols.slot_imports, HAS_SLOT_IMPORTS,
         true},
        {"countKeysInSlot", &server_symbols.keys_in_slot, HAS_SLOT_IMPORTS, false},
        {"replicaRdbVersion", &server_symbols.replica_rdb_version, HAS_OLDER_FORMATS,
         true},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        bool wanted = !all[i].wanted || server_layout->has & all[i].wanted;
        if (!wanted && !all[i].tells)
            continue;
        void *found = symbol_find(all[i].name);
        if (found && !wanted) {
            snprintf(reason, reason_size,
                     "the server exports %s, which the known layout has not",
                     all[i].name);
            return -ENOTSUP;
        }
        if (!found && wanted) {
            snprintf(reason, reason_size, "the server does not export %s", all[i].name);
            return -ENOTSUP;
        }
        if (wanted)
            memcpy(all[i].where, &found, sizeof(found));
    }
    return 0;
}

/* What only a child for modules' values calls. */
static void find_symbols_of_child(void)
{
    const struct {
        const char *name;
        void *where;
    } all[] = {
        {"rdbSaveObject", &server_symbols.save_object},
        {"createStringObject", &server_symbols.create_string},
        {"decrRefCount", &server_symbols.release},
        {"closeChildUnusedResourceAfterFork", &server_symbols.close_unused},
        {"zmalloc_set_oom_handler", &server_symbols.set_out_of_memory},
    };
    server_symbols.missing_for_child = NULL;
    for (size_t i = 0; i < COUNT(all); i++) {
        void *found =
            fault_point(FAULT_NO_CHILD_SYMBOLS) ? NULL : symbol_find(all[i].name);
        if (!found && !server_symbols.missing_for_child)
            server_symbols.missing_for_child = all[i].name;
        memcpy(all[i].where, &found, sizeof(found));
    }
}

const char *server_missing_for_value_child(void)
{
    return server_symbols.missing_for_child;
}

/* ---- does the table fit? ----------------------------------------------------------- */

static const char *find_settings(void)
{
    const struct config_variable wanted[] = {
        {"rdbcompression", &server_variables.compression},
        {"rdbchecksum", &server_variables.checksum},
        {"rdb-save-incremental-fsync", &server_variables.sync_dump},
        {"aof-rewrite-incremental-fsync", &server_variables.sync_rewrite},
        {"aof-use-rdb-preamble", &server_variables.preamble},
        {"cluster-enabled", &server_variables.cluster},
        {"maxmemory-policy", &server_variables.maxmemory_policy},
        {"lfu-decay-time", &server_variables.lfu_decay_time},
        {"rdb-key-save-delay", &server_variables.key_save_delay},
        {"dbfilename", &server_variables.file_name},
    };
    return config_table_find(wanted, COUNT(wanted));
}

/* A table may say anything. */
static bool is_inside(void)
{
    const uint16_t offsets[] = {
        server_layout->pid,
        server_layout->main_thread_id,
        server_layout->db,
        server_layout->dbnum,
        server_layout->unix_time,
        server_layout->lru_clock,
        server_layout->child_info_pipe,
        server_layout->rdb_pipe_read,
        server_layout->rdb_child_exit_pipe,
        server_layout->rdb_pipe_conns,
        server_layout->rdb_pipe_numconns,
        server_layout->replicas,
    };
    size_t bytes = symbol_bytes(server_symbols.image);
    for (size_t i = 0; i < COUNT(offsets); i++)
        if (offsets[i] + sizeof(uint64_t) > bytes)
            return false;
    return true;
}

/* Values that are known for sure must be found where the table says. */
static const char *misplaced_value(void)
{
    if (!is_inside())
        return "its variables end before the last of them";
    int64_t now = (int64_t)time(NULL);
    if (server_int(server_layout->pid) != (int32_t)getpid() ||
        fault_point(FAULT_MOVED_LAYOUT))
        return "its pid is not where it should be";
    if (server_word(server_layout->main_thread_id) != (uint64_t)pthread_self())
        return "its main thread is not where it should be";
    if (server_int(server_layout->dbnum) < 1 ||
        server_int(server_layout->dbnum) > DATABASES_MAX ||
        !server_word(server_layout->db))
        return "its databases are not where they should be";
    int64_t clock = (int64_t)server_word(server_layout->unix_time);
    if (clock < now - CLOCK_SECONDS || clock > now + CLOCK_SECONDS)
        return "its clock is not where it should be";
    /* It begins anew every half year. */
    uint32_t behind =
        (uint32_t)(now - server_int(server_layout->lru_clock)) & LRU_CLOCK_MASK;
    if (server_layout->lru_clock && behind > CLOCK_SECONDS &&
        behind < LRU_CLOCK_MASK - CLOCK_SECONDS)
        return "its clock of accesses is not where it should be";
    return NULL;
}

/* Does the table fit this process? */
static const char *mismatch(void)
{
    const char *difference = misplaced_value();
    if (!difference)
        difference = find_settings();
    return difference ? difference : server_stream_misplaced();
}

static const struct server_layout *choose_layout(const char *server_name,
                                                 const char *version,
                                                 const char *layout_file, char *reason,
                                                 size_t reason_size)
{
    const struct server_layout *table;
    if (!*layout_file) {
        table = layout_find(server_name, version);
        if (!table)
            snprintf(reason, reason_size,
                     "%s %s is not known to this version of the module: look for a newer "
                     "one, or give it a layout-file",
                     server_name, version);
        return table;
    }
    table = layout_file_read(layout_file, reason, reason_size);
    if (table && !layout_is_of(table, server_name, version)) {
        snprintf(reason, reason_size, "layout-file is for %s %s, and this is %s %s",
                 table->server, table->version, server_name, version);
        return NULL;
    }
    return table;
}

int server_identify(const char *server_name, const char *version, const char *layout_file,
                    char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    server_layout = choose_layout(server_name, version, layout_file, reason, reason_size);
    if (!server_layout)
        return -ENOTSUP;
    child_report_set_size(server_layout->report_bytes);
    int error = find_symbols(reason, reason_size);
    find_symbols_of_child();
    const char *difference = error ? NULL : mismatch();
    if (difference) {
        snprintf(reason, reason_size,
                 "this build of %s %s does not match the known layout: %s", server_name,
                 version, difference);
        error = -ENOTSUP;
    }
    int watched = error ? 0 : module_values_watch(server_layout);
    if (watched) {
        snprintf(reason, reason_size,
                 watched == -ENOENT
                     ? "the server does not export its list of modules"
                     : "this build of %s %s does not match the known layout: "
                       "its modules are not where they should be",
                 server_name, version);
        error = -ENOTSUP;
    }
    if (error)
        server_layout = NULL;
    return error;
}

/* ---- what a walk needs to know --------------------------------------------------- */

/* As LRU_CLOCK(): the clock that the server's timer keeps. */
static uint32_t lru_clock(void)
{
    if (server_symbols.lru_idle_seconds) /* so long ago is 0 */
        return server_symbols.lru_idle_seconds(0);
    return (uint32_t)server_int(server_layout->lru_clock);
}

void server_roots(struct keyspace_roots *roots)
{
    DEMAND_MAIN_THREAD();
    int policy = *server_variables.maxmemory_policy;
    *roots = (struct keyspace_roots){
        .layout = server_layout->keyspace,
        .databases = server_word(server_layout->db),
        .database_count = server_int(server_layout->dbnum),
        .hash = server_symbols.siphash,
        .expiring_hash_type = (uintptr_t)server_symbols.expiring_hash_type,
        .cluster = *server_variables.cluster != 0,
        .save_idle_time = policy & POLICY_LRU,
        .save_frequency = policy & POLICY_LFU,
        .lru_clock = lru_clock(),
        .unix_time = (int64_t)server_word(server_layout->unix_time),
        .lfu_decay_time = *server_variables.lfu_decay_time,
        .key_save_delay = *server_variables.key_save_delay,
    };
    if (server_symbols.cached_usec)
        roots->expiry_clock = (uint64_t)server_symbols.cached_usec() / 1000;
    if (server_symbols.hash_seed)
        memcpy(roots->hash_seed, server_symbols.hash_seed(), sizeof(roots->hash_seed));
}

uint64_t server_slot_keys(int slot)
{
    return server_symbols.keys_in_slot((unsigned)slot);
}

rdb_decompress_function server_decompress(void)
{
    return server_symbols.lzf_decompress;
}

int server_dump_version(void)
{
    return atoi(server_layout->magic + MAGIC_NAME);
}

bool server_layout_is_of_file(void)
{
    return server_layout && server_layout->keyspace == KEYSPACE_OF_FILE;
}

bool server_has_lru_clock(void)
{
    return server_layout->lru_clock != 0;
}

/* ---- the saver's CPUs ------------------------------------------------------------ */

void server_set_cpus(const char *list)
{
    void *found = symbol_find("setcpuaffinity");
    void (*set_cpus)(const char *);
    memcpy(&set_cpus, &found, sizeof(set_cpus));
    if (set_cpus)
        set_cpus(list);
}
