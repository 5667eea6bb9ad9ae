#include "host/server.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/child_report.h"
#include "host/config_table.h"
#include "host/imports.h"
#include "host/layout.h"
#include "host/layout_file.h"
#include "host/module_values.h"
#include "host/transfer.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/symbols.h"
#include "kernel/thread.h"

/* The server's flags (rdb.h, server.h, module.h of every known version). */
#define AOF_PREAMBLE        1
#define FOR_REPLICATION     2
#define POLICY_LRU          1
#define POLICY_LFU          2
#define AUX_BEFORE          1
#define AUX_AFTER           2
#define SYNC_EVERY          (4 * 1024 * 1024)
#define RIO_BYTES_MAX       512
#define SAVE_INFO_BYTES_MAX 256
#define DATABASES_MAX       1000000
#define MAGIC_NAME          6 /* "REDIS0" or "VALKEY", then the version */
#define LRU_CLOCK_MASK      ((1 << 24) - 1)
/* The server's clocks stand still while a command runs. */
#define CLOCK_SECONDS 86400

/* What is used of the server by name. */
static struct {
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
    /* Those that have it: enum server_ability. */
    const void *(*tcp_connections)(void); /* the type of such connections */
    const void *expiring_hash_type;
    uint32_t (*lru_idle_seconds)(uint32_t lru);
    int (*slot_imports)(void *rio, int rdb_version);
    unsigned (*keys_in_slot)(unsigned slot);
    int (*replica_rdb_version)(void *client);
    int (*is_trimming)(void);
} symbols;

/* The variables of its settings. */
static struct {
    int *compression; /* changed for a moment: capture_streams() */
    const int *checksum, *sync_dump, *sync_rewrite, *preamble;
    const int *cluster, *maxmemory_policy, *lfu_decay_time, *key_save_delay;
    char *const *file_name;
} settings;

static const struct server_layout *layout;

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
        {"server", &symbols.image, 0, false},
        {"lzf_compress", &symbols.lzf_compress, 0, false},
        {"lzf_decompress", &symbols.lzf_decompress, 0, false},
        {"crc64", &symbols.crc64, 0, false},
        {"siphash", &symbols.siphash, HAS_EXPIRES_BY_NAME, false},
        {"dictGetHashFunctionSeed", &symbols.hash_seed, HAS_EXPIRES_BY_NAME, false},
        {"rdbSaveInfoAuxFields", &symbols.aux_fields, 0, false},
        {"rdbSaveModulesAux", &symbols.modules_aux, 0, false},
        {"rdbSaveFunctions", &symbols.functions, 0, false},
        {"rdbPopulateSaveInfo", &symbols.populate_save_info, 0, false},
        {"rioInitWithBuffer", &symbols.rio_with_buffer, 0, false},
        {"sdsempty", &symbols.sds_empty, 0, false},
        {"sdsfree", &symbols.sds_free, 0, false},
        {"connectionTypeTcp", &symbols.tcp_connections, HAS_DIRECT_TRANSFERS, false},
        {"mstrHashDictTypeWithHFE", &symbols.expiring_hash_type, HAS_EXPIRING_FIELDS,
         true},
        {"entryHashDictTypeWithHFE", &symbols.expiring_hash_type, HAS_EXPIRING_ENTRIES,
         true},
        {"asmIsTrimInProgress", &symbols.is_trimming, HAS_TRIM_JOBS, true},
        {"lru_getIdleSecs", &symbols.lru_idle_seconds, HAS_CLOCKS_OF_ITS_OWN, true},
        {"clusterRDBSaveSlotImports", &symbols.slot_imports, HAS_SLOT_IMPORTS, true},
        {"countKeysInSlot", &symbols.keys_in_slot, HAS_SLOT_IMPORTS, false},
        {"replicaRdbVersion", &symbols.replica_rdb_version, HAS_OLDER_FORMATS, true},
    };
    for (size_t i = 0; i < COUNT(all); i++) {
        bool wanted = !all[i].wanted || layout->has & all[i].wanted;
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

static int32_t image_int(uint16_t offset)
{
    int32_t value;
    memcpy(&value, symbols.image + offset, sizeof(value));
    return value;
}

static uint64_t image_word(uint16_t offset)
{
    uint64_t value;
    memcpy(&value, symbols.image + offset, sizeof(value));
    return value;
}

/* ---- bytes made by the server's own functions ------------------------------------ */

#define STREAM_FILLER 0xA5

struct stream {
    unsigned char rio[RIO_BYTES_MAX];
};

static void stream_begin(struct stream *stream)
{
    memset(stream, 0, sizeof(*stream));
    symbols.rio_with_buffer(stream->rio, symbols.sds_empty());
}

static char *stream_sds(struct stream *stream)
{
    char *sds;
    memcpy(&sds, stream->rio + layout->rio_buffer, sizeof(sds));
    return sds;
}

static uint64_t stream_length(struct stream *stream)
{
    uint64_t position; /* where the next byte would go: right behind the pointer */
    memcpy(&position, stream->rio + layout->rio_buffer + 8, sizeof(position));
    return position;
}

/* Copies prefix and stream into memory that the saver may read and free, and
 * frees the stream. 0 or -ENOMEM. */
static int stream_end(struct stream *stream, const char *prefix, unsigned char **bytes,
                      size_t *length)
{
    size_t prefix_length = strlen(prefix);
    size_t streamed = stream_length(stream);
    *length = prefix_length + streamed;
    *bytes = memory_map(*length ? *length : 1);
    if (*bytes) {
        memcpy(*bytes, prefix, prefix_length);
        memcpy(*bytes + prefix_length, stream_sds(stream), streamed);
    }
    symbols.sds_free(stream_sds(stream));
    return *bytes ? 0 : -ENOMEM;
}

/* A buffer is found where it was put, and nothing was written behind the longest stream. */
static const char *misplaced_stream(void)
{
    struct stream stream;
    char *sds = symbols.sds_empty();
    memset(&stream, STREAM_FILLER, sizeof(stream));
    symbols.rio_with_buffer(stream.rio, sds);
    bool right = stream_sds(&stream) == sds && stream_length(&stream) == 0 &&
                 stream.rio[RIO_BYTES_MAX - 1] == STREAM_FILLER;
    symbols.sds_free(sds);
    return right ? NULL : "its streams have another form";
}

/* ---- does the table fit? ----------------------------------------------------------- */

static const char *find_settings(void)
{
    const struct config_variable wanted[] = {
        {"rdbcompression", &settings.compression},
        {"rdbchecksum", &settings.checksum},
        {"rdb-save-incremental-fsync", &settings.sync_dump},
        {"aof-rewrite-incremental-fsync", &settings.sync_rewrite},
        {"aof-use-rdb-preamble", &settings.preamble},
        {"cluster-enabled", &settings.cluster},
        {"maxmemory-policy", &settings.maxmemory_policy},
        {"lfu-decay-time", &settings.lfu_decay_time},
        {"rdb-key-save-delay", &settings.key_save_delay},
        {"dbfilename", &settings.file_name},
    };
    return config_table_find(wanted, COUNT(wanted));
}

/* A table may say anything. */
static bool is_inside(void)
{
    const uint16_t offsets[] = {
        layout->pid,
        layout->main_thread_id,
        layout->db,
        layout->dbnum,
        layout->unix_time,
        layout->lru_clock,
        layout->child_info_pipe,
        layout->rdb_pipe_read,
        layout->rdb_child_exit_pipe,
        layout->rdb_pipe_conns,
        layout->rdb_pipe_numconns,
        layout->replicas,
    };
    size_t bytes = symbol_bytes(symbols.image);
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
    if (image_int(layout->pid) != (int32_t)getpid() || fault_point(FAULT_MOVED_LAYOUT))
        return "its pid is not where it should be";
    if (image_word(layout->main_thread_id) != (uint64_t)pthread_self())
        return "its main thread is not where it should be";
    if (image_int(layout->dbnum) < 1 || image_int(layout->dbnum) > DATABASES_MAX ||
        !image_word(layout->db))
        return "its databases are not where they should be";
    int64_t clock = (int64_t)image_word(layout->unix_time);
    if (clock < now - CLOCK_SECONDS || clock > now + CLOCK_SECONDS)
        return "its clock is not where it should be";
    /* It begins anew every half year. */
    uint32_t behind = (uint32_t)(now - image_int(layout->lru_clock)) & LRU_CLOCK_MASK;
    if (layout->lru_clock && behind > CLOCK_SECONDS &&
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
    return difference ? difference : misplaced_stream();
}

static bool is_of(const struct server_layout *table, const char *server_name,
                  const char *version)
{
    size_t length = strlen(table->version);
    bool all = length && table->version[length - 1] == '.';
    return strcmp(table->server, server_name) == 0 &&
           (all ? strncmp(version, table->version, length)
                : strcmp(version, table->version)) == 0;
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
    if (table && !is_of(table, server_name, version)) {
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
    layout = choose_layout(server_name, version, layout_file, reason, reason_size);
    if (!layout)
        return -ENOTSUP;
    child_report_set_size(layout->report_bytes);
    int error = find_symbols(reason, reason_size);
    const char *difference = error ? NULL : mismatch();
    if (difference) {
        snprintf(reason, reason_size,
                 "this build of %s %s does not match the known layout: %s", server_name,
                 version, difference);
        error = -ENOTSUP;
    }
    int watched = error ? 0 : module_values_watch(layout);
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
        layout = NULL;
    return error;
}

/* ---- what only a fork could save ------------------------------------------------- */

/* Valkey 9.1 writes an older format for an older replica. */
static bool wants_older_format(void *client)
{
    return symbols.replica_rdb_version &&
           symbols.replica_rdb_version(client) != atoi(layout->magic + MAGIC_NAME);
}

/* What is written to its socket is what the replica gets: TLS would have it encrypted,
 * which is for the server's own connection to do. Each replica chooses for itself. */
static const char *refuse_direct(const struct transfer *transfer)
{
    if (!symbols.tcp_connections)
        return "a transfer straight to replicas, which this server should not know";
    if (transfer->count > SERVER_SOCKETS_MAX)
        return "a transfer straight to so many replicas";
    for (size_t i = 0; i < transfer->count; i++)
        if (transfer->targets[i].type != (uintptr_t)symbols.tcp_connections())
            return "a transfer straight to connections that are not plain sockets";
    return NULL;
}

/* Of those that get one dump all have the same wish: the server sees to that. */
static const char *refuse_transfer(int32_t *wish)
{
    struct transfer transfer;
    if (transfer_find(layout, symbols.image, &transfer) != 0)
        return "a transfer to replicas that are not where they should be in memory";
    const char *why = transfer.direct ? refuse_direct(&transfer) : NULL;
    if (why)
        return why;
    if (!transfer.count)
        return "a transfer to nobody";
    *wish = transfer.targets[0].wish &
            (WISH_NO_DATA | WISH_NO_FUNCTIONS | layout->no_compression);
    if ((transfer.targets[0].wish ^ *wish) !=
        (transfer.direct ? layout->own_connection : 0))
        return "a transfer of an unknown kind";
    /* What stands there proves the wish no further. */
    if (*wish & ~layout->no_compression && layout->keyspace == KEYSPACE_OF_FILE)
        return "a transfer of a part, with a layout from a file,";
    if (wants_older_format(transfer.targets[0].client))
        return "a transfer to an older replica";
    return NULL;
}

static int refuse_request(const struct child_request *request, int32_t *wish,
                          char *reason, size_t reason_size)
{
    const char *why = NULL;
    if (request->cause == CHILD_REWRITE_AOF && !*settings.preamble)
        why = "aof-use-rdb-preamble is no: an AOF of commands";
    else if (request->cause == CHILD_SLOT_MIGRATION)
        why = "a slot migration";
    else if (symbols.is_trimming && *settings.cluster && symbols.is_trimming())
        why = "a save while slots that have left are trimmed";
    else if (request->cause == CHILD_SAVE_SOCKET)
        why = refuse_transfer(wish);
    if (!why)
        return 0;
    snprintf(reason, reason_size, "%s is not served without fork", why);
    return -ENOTSUP;
}

/* ---- what a dump begins and ends with --------------------------------------------- */

/* What the dump is for: Valkey tells only replicas which slots are on their way. */
static int purpose_of(const struct child_request *request)
{
    if (request->cause == CHILD_REWRITE_AOF)
        return AOF_PREAMBLE;
    bool replication = request->cause == CHILD_SAVE_SOCKET || request->for_replica;
    return replication ? FOR_REPLICATION : 0;
}

/* Slots on their way in: the dump tells which they are, since it has their keys too. */
static bool save_slot_imports(struct stream *stream, struct server_capture *capture)
{
    uint64_t before = stream_length(stream);
    if (!symbols.slot_imports)
        return true;
    if (symbols.slot_imports(stream->rio, atoi(layout->magic + MAGIC_NAME)) != 0)
        return false;
    uint64_t length = stream_length(stream) - before;
    capture->imports = length != 0;
    return imports_parse((unsigned char *)stream_sds(stream) + before, length,
                         capture->imported_slots) == 0;
}

static int capture_header(const struct child_request *request, int32_t wish,
                          struct server_capture *capture)
{
    struct stream stream;
    unsigned char save_info[SAVE_INFO_BYTES_MAX];
    int purpose = purpose_of(request);
    void *replication =
        purpose == AOF_PREAMBLE ? NULL : symbols.populate_save_info(save_info);
    stream_begin(&stream);
    bool written =
        symbols.aux_fields(stream.rio, purpose, replication) != -1 &&
        (capture->no_data || symbols.modules_aux(stream.rio, AUX_BEFORE) != -1) &&
        (wish & WISH_NO_FUNCTIONS || symbols.functions(stream.rio) != -1) &&
        save_slot_imports(&stream, capture);
    int error =
        stream_end(&stream, layout->magic, &capture->header, &capture->header_length);
    return written ? error : -EIO;
}

static int capture_trailer(struct server_capture *capture)
{
    struct stream stream;
    stream_begin(&stream);
    bool written = capture->no_data || symbols.modules_aux(stream.rio, AUX_AFTER) != -1;
    int error = stream_end(&stream, "", &capture->trailer, &capture->trailer_length);
    return written ? error : -EIO;
}

/* ---- capture --------------------------------------------------------------------- */

/* As LRU_CLOCK(): the clock that the server's timer keeps. */
static uint32_t lru_clock(void)
{
    if (symbols.lru_idle_seconds) /* so long ago is 0 */
        return symbols.lru_idle_seconds(0);
    return (uint32_t)image_int(layout->lru_clock);
}

void server_roots(struct keyspace_roots *roots)
{
    DEMAND_MAIN_THREAD();
    int policy = *settings.maxmemory_policy;
    *roots = (struct keyspace_roots){
        .layout = layout->keyspace,
        .databases = image_word(layout->db),
        .database_count = image_int(layout->dbnum),
        .hash = symbols.siphash,
        .expiring_hash_type = (uintptr_t)symbols.expiring_hash_type,
        .cluster = *settings.cluster != 0,
        .save_idle_time = policy & POLICY_LRU,
        .save_frequency = policy & POLICY_LFU,
        .lru_clock = lru_clock(),
        .unix_time = (int64_t)image_word(layout->unix_time),
        .lfu_decay_time = *settings.lfu_decay_time,
        .key_save_delay = *settings.key_save_delay,
    };
    if (symbols.hash_seed)
        memcpy(roots->hash_seed, symbols.hash_seed(), sizeof(roots->hash_seed));
}

uint64_t server_slot_keys(int slot)
{
    return symbols.keys_in_slot((unsigned)slot);
}

rdb_decompress_function server_decompress(void)
{
    return symbols.lzf_decompress;
}

int server_dump_version(void)
{
    return atoi(layout->magic + MAGIC_NAME);
}

bool server_layout_is_of_file(void)
{
    return layout->keyspace == KEYSPACE_OF_FILE;
}

bool server_has_lru_clock(void)
{
    return layout->lru_clock != 0;
}

static int duplicate(int descriptor)
{
    return descriptor < 0 ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
}

/* What the forked child would have made. What it rewrites for an AOF is renamed by the
 * server itself. */
static int capture_name(const struct child_request *request,
                        struct server_capture *capture)
{
    if (request->cause == CHILD_REWRITE_AOF)
        return 0;
    const char *name = *settings.file_name;
    if (strlen(name) >= sizeof(capture->file_name))
        return -ENAMETOOLONG;
    snprintf(capture->file_name, sizeof(capture->file_name), "%s", name);
    return 0;
}

static int capture_sockets(struct server_capture *capture)
{
    struct transfer transfer;
    int error = transfer_find(layout, symbols.image, &transfer);
    for (size_t i = 0; !error && i < transfer.count; i++) {
        int copy = duplicate(transfer.targets[i].descriptor);
        if (copy < 0)
            return -EBADF;
        capture->server_sockets[capture->socket_count] = transfer.targets[i].descriptor;
        capture->sockets[capture->socket_count++] = copy;
    }
    return error;
}

/* The pipes that the server has just made for the child lie where the table says: first
 * those of a transfer through the server, the one for reports last. */
static bool are_pipes_found(bool transfer)
{
    int made[2];
    uint16_t write_end = (uint16_t)(layout->child_info_pipe + sizeof(int));
    if (!child_pipe_made(0, made) || made[0] != image_int(layout->child_info_pipe) ||
        made[1] != image_int(write_end))
        return false;
    return !transfer ||
           (child_pipe_made(1, made) &&
            made[1] == image_int(layout->rdb_child_exit_pipe) &&
            child_pipe_made(2, made) && made[0] == image_int(layout->rdb_pipe_read));
}

/* Descriptors of our own: the server closes its copies as soon as fork()
 * returns. */
static int capture_descriptors(const struct child_request *request,
                               struct server_capture *capture)
{
    capture->directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (capture->directory < 0)
        return -errno;
    bool transfer =
        request->cause == CHILD_SAVE_SOCKET && !transfer_is_direct(layout, symbols.image);
    if (!are_pipes_found(transfer))
        return -EBADF;
    capture->report_pipe =
        duplicate(image_int((uint16_t)(layout->child_info_pipe + sizeof(int))));
    if (request->cause != CHILD_SAVE_SOCKET)
        return 0;
    if (transfer_is_direct(layout, symbols.image))
        return capture_sockets(capture);
    capture->transfer_pipe = duplicate(child_pipe_peer(image_int(layout->rdb_pipe_read)));
    capture->exit_pipe =
        duplicate(child_pipe_peer(image_int(layout->rdb_child_exit_pipe)));
    return capture->transfer_pipe < 0 || capture->exit_pipe < 0 ? -EBADF : 0;
}

/* What the server's own functions write, as a child would have it that has been asked for
 * strings as they are. */
static int capture_streams(const struct child_request *request, int32_t wish,
                           struct server_capture *capture)
{
    int compression = *settings.compression;
    if (wish & layout->no_compression)
        *settings.compression = 0;
    if (*settings.compression)
        capture->compress = symbols.lzf_compress;
    int error = capture_header(request, wish, capture);
    if (!error)
        error = capture_trailer(capture);
    *settings.compression = compression;
    return error;
}

static int capture_all(const struct child_request *request, int32_t wish,
                       struct server_capture *capture)
{
    server_roots(&capture->roots);
    if (*settings.checksum)
        capture->checksum = symbols.crc64;
    bool aof = request->cause == CHILD_REWRITE_AOF;
    if (*(aof ? settings.sync_rewrite : settings.sync_dump))
        capture->sync_every = SYNC_EVERY;
    int error = capture_name(request, capture);
    if (!error)
        error = capture_descriptors(request, capture);
    return error ? error : capture_streams(request, wish, capture);
}

static void forget_descriptors(struct server_capture *capture)
{
    capture->directory = capture->report_pipe = -1;
    capture->transfer_pipe = capture->exit_pipe = -1;
    capture->socket_count = 0;
}

int server_capture(const struct child_request *request, struct server_capture *capture,
                   char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    memset(capture, 0, sizeof(*capture));
    forget_descriptors(capture);
    int32_t wish = 0;
    int error = refuse_request(request, &wish, reason, reason_size);
    capture->no_data = wish & WISH_NO_DATA;
    if (!error && !capture->no_data)
        error = module_values_find(reason, reason_size);
    if (error)
        return error;
    error = capture_all(request, wish, capture);
    if (!error && capture->no_data && capture->imports) {
        snprintf(reason, reason_size,
                 "a transfer without data while slots are imported "
                 "is not served without fork");
        server_capture_release(capture);
        return -ENOTSUP;
    }
    if (error) {
        snprintf(reason, reason_size, "cannot capture the server's state: %s",
                 strerror(-error));
        server_capture_release(capture);
    }
    return error;
}

void server_capture_release(struct server_capture *capture)
{
    memory_unmap(capture->header, capture->header_length);
    memory_unmap(capture->trailer, capture->trailer_length ? capture->trailer_length : 1);
    int descriptors[] = {capture->directory, capture->report_pipe, capture->transfer_pipe,
                         capture->exit_pipe};
    for (size_t i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    for (size_t i = 0; i < capture->socket_count; i++)
        close(capture->sockets[i]);
    capture->header = capture->trailer = NULL;
    forget_descriptors(capture);
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
