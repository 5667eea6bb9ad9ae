#include "host/server.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "host/layout.h"
#include "kernel/memory.h"
#include "kernel/thread.h"

/* The server's flags (rdb.h, server.h, module.h of every known version). */
#define AOF_PREAMBLE        1
#define POLICY_LRU          1
#define POLICY_LFU          2
#define AUX_BEFORE          1
#define AUX_AFTER           2
#define SYNC_EVERY          (4 * 1024 * 1024)
#define RIO_BYTES_MAX       256
#define SAVE_INFO_BYTES_MAX 256
#define DATABASES_MAX       1000000
#define MAGIC_NAME          6 /* "REDIS0" or "VALKEY", then the version */

/* What is used of the server by name. */
static struct {
    const char *image; /* the variable `server` */
    void **modules;
    rdb_compress_function lzf_compress;
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
    void *(*dict_iterator)(void *dict);
    void *(*dict_next)(void *iterator);
    void (*dict_release)(void *iterator);
    /* Some servers only. */
    const void *expiring_hash_type;
    uint32_t (*lru_idle_seconds)(uint32_t lru);
    const int *lfu_decay_time;
    int (*slot_imports)(void *rio, int rdb_version);
    int (*replica_rdb_version)(void *client);
} symbols;

static const struct server_layout *layout;

/* ---- which server? --------------------------------------------------------------- */

struct wanted_symbol {
    const char *name;
    void *where;
};

static int find_each(const struct wanted_symbol *wanted, size_t count, char *reason,
                     size_t reason_size)
{
    for (size_t i = 0; i < count; i++) {
        void *found = dlsym(RTLD_DEFAULT, wanted[i].name);
        if (!found) {
            snprintf(reason, reason_size, "the server does not export %s",
                     wanted[i].name);
            return -ENOTSUP;
        }
        memcpy(wanted[i].where, &found, sizeof(found));
    }
    return 0;
}

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static int find_symbols(char *reason, size_t reason_size)
{
    const struct wanted_symbol everywhere[] = {
        {"server", &symbols.image},
        {"modules", &symbols.modules},
        {"lzf_compress", &symbols.lzf_compress},
        {"crc64", &symbols.crc64},
        {"siphash", &symbols.siphash},
        {"dictGetHashFunctionSeed", &symbols.hash_seed},
        {"rdbSaveInfoAuxFields", &symbols.aux_fields},
        {"rdbSaveModulesAux", &symbols.modules_aux},
        {"rdbSaveFunctions", &symbols.functions},
        {"rdbPopulateSaveInfo", &symbols.populate_save_info},
        {"rioInitWithBuffer", &symbols.rio_with_buffer},
        {"sdsempty", &symbols.sds_empty},
        {"sdsfree", &symbols.sds_free},
        {"dictGetSafeIterator", &symbols.dict_iterator},
        {"dictNext", &symbols.dict_next},
        {"dictReleaseIterator", &symbols.dict_release},
    };
    const struct wanted_symbol redis_8_0[] = {
        {"mstrHashDictTypeWithHFE", &symbols.expiring_hash_type},
    };
    const struct wanted_symbol valkey_9_1[] = {
        {"lru_getIdleSecs", &symbols.lru_idle_seconds},
        {"lfu_config_decay_time", &symbols.lfu_decay_time},
        {"clusterRDBSaveSlotImports", &symbols.slot_imports},
        {"replicaRdbVersion", &symbols.replica_rdb_version},
    };
    int error = find_each(everywhere, COUNT(everywhere), reason, reason_size);
    if (!error && layout->keyspace == KEYSPACE_REDIS_8_0)
        error = find_each(redis_8_0, COUNT(redis_8_0), reason, reason_size);
    if (!error && layout->keyspace == KEYSPACE_VALKEY_9_1)
        error = find_each(valkey_9_1, COUNT(valkey_9_1), reason, reason_size);
    return error;
}

static size_t symbol_bytes(const void *address)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (!dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return 0;
    return symbol->st_size;
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

/* Does the table fit this process? Values that are known for sure must be found
 * where it says. */
static const char *mismatch(void)
{
    if (symbol_bytes(symbols.image) != layout->server_bytes)
        return "the size of its state differs";
    if (image_int(layout->pid) != (int32_t)getpid())
        return "its pid is not where it should be";
    if (image_word(layout->main_thread_id) != (uint64_t)pthread_self())
        return "its main thread is not where it should be";
    if (image_int(layout->dbnum) < 1 || image_int(layout->dbnum) > DATABASES_MAX ||
        !image_word(layout->db))
        return "its databases are not where they should be";
    int64_t apart = (int64_t)image_word(layout->unix_time) - (int64_t)time(NULL);
    if (apart < -86400 || apart > 86400)
        return "its clock is not where it should be";
    if (layout->rio_bytes > RIO_BYTES_MAX)
        return "its streams are too large";
    return NULL;
}

int server_identify(const char *server_name, const char *version, char *reason,
                    size_t reason_size)
{
    layout = layout_find(server_name, version);
    if (!layout) {
        snprintf(reason, reason_size,
                 "%s %s is not known to this version of the module: look for a newer one",
                 server_name, version);
        return -ENOTSUP;
    }
    int error = find_symbols(reason, reason_size);
    const char *difference = error ? NULL : mismatch();
    if (difference) {
        snprintf(reason, reason_size,
                 "this build of %s %s does not match the known layout: %s", server_name,
                 version, difference);
        error = -ENOTSUP;
    }
    if (error)
        layout = NULL;
    return error;
}

/* ---- what only a fork could save ------------------------------------------------- */

/* Values of a module's type are written by the module, from live memory. */
static int refuse_module_types(char *reason, size_t reason_size)
{
    int result = 0;
    void *iterator = symbols.dict_iterator(*symbols.modules);
    for (char *entry; (entry = symbols.dict_next(iterator));) {
        char *module, *types, *name;
        uint64_t count = 0;
        memcpy(&module, entry + 8, sizeof(module));
        memcpy(&types, module + layout->module_types, sizeof(types));
        memcpy(&name, module + layout->module_name, sizeof(name));
        if (types)
            memcpy(&count, types + layout->list_length, sizeof(count));
        if (!count)
            continue;
        snprintf(reason, reason_size,
                 "module '%.64s' has data types, which only it can save", name);
        result = -ENOTSUP;
        break;
    }
    symbols.dict_release(iterator);
    return result;
}

/* The client that a transfer is for, NULL if there is none. */
static const char *transfer_client(void)
{
    const char *connection, *client;
    const char *connections = (const char *)(uintptr_t)image_word(layout->rdb_pipe_conns);
    if (!connections || image_int(layout->rdb_pipe_numconns) < 1)
        return NULL;
    memcpy(&connection, connections, sizeof(connection));
    memcpy(&client, connection + layout->connection_client, sizeof(client));
    return client;
}

/* A transfer may be asked for without data or without functions, for tools. */
static int transfer_filter(void)
{
    int32_t filter = 0;
    const char *holder = transfer_client();
    if (!holder)
        return -1;
    if (layout->client_replication)
        memcpy(&holder, holder + layout->client_replication, sizeof(holder));
    memcpy(&filter, holder + layout->client_request, layout->client_request_bytes);
    return filter;
}

/* Valkey 9.1 writes an older format for an older replica. */
static bool wants_older_format(void)
{
    char *client = (char *)(uintptr_t)transfer_client();
    return symbols.replica_rdb_version && client &&
           symbols.replica_rdb_version(client) != atoi(layout->magic + MAGIC_NAME);
}

static int refuse_request(const struct child_request *request, char *reason,
                          size_t reason_size)
{
    const char *why = NULL;
    if (request->cause == CHILD_REWRITE_AOF && !image_int(layout->aof_use_rdb_preamble))
        why = "aof-use-rdb-preamble is no: an AOF of commands";
    else if (request->cause == CHILD_SLOT_MIGRATION)
        why = "a slot migration";
    else if (request->cause == CHILD_SAVE_SOCKET && image_int(layout->rdb_pipe_read) < 0)
        why = "a transfer straight to the replicas' sockets";
    else if (request->cause == CHILD_SAVE_SOCKET && transfer_filter() != 0)
        why = "a transfer without data or functions";
    else if (request->cause == CHILD_SAVE_SOCKET && wants_older_format())
        why = "a transfer to an older replica";
    if (!why)
        return 0;
    snprintf(reason, reason_size, "%s is not served without fork", why);
    return -ENOTSUP;
}

/* ---- bytes made by the server's own functions ------------------------------------ */

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

static int capture_header(const struct child_request *request,
                          struct server_capture *capture)
{
    struct stream stream;
    unsigned char save_info[SAVE_INFO_BYTES_MAX];
    bool aof = request->cause == CHILD_REWRITE_AOF;
    void *replication = aof ? NULL : symbols.populate_save_info(save_info);
    stream_begin(&stream);
    bool written =
        symbols.aux_fields(stream.rio, aof ? AOF_PREAMBLE : 0, replication) != -1 &&
        symbols.modules_aux(stream.rio, AUX_BEFORE) != -1 &&
        symbols.functions(stream.rio) != -1;
    int error =
        stream_end(&stream, layout->magic, &capture->header, &capture->header_length);
    return written ? error : -EIO;
}

static int capture_trailer(struct server_capture *capture)
{
    struct stream stream;
    stream_begin(&stream);
    bool written = symbols.modules_aux(stream.rio, AUX_AFTER) != -1;
    int error = stream_end(&stream, "", &capture->trailer, &capture->trailer_length);
    return written ? error : -EIO;
}

/* Slots on their way in: their keys lie apart, and the dump tells of them. */
static int refuse_slot_imports(char *reason, size_t reason_size)
{
    struct stream stream;
    if (!symbols.slot_imports)
        return 0;
    stream_begin(&stream);
    int result = symbols.slot_imports(stream.rio, atoi(layout->magic + MAGIC_NAME));
    bool written = stream_length(&stream) != 0;
    symbols.sds_free(stream_sds(&stream));
    if (!result && !written)
        return 0;
    snprintf(reason, reason_size, "slots are being imported");
    return -ENOTSUP;
}

/* ---- capture --------------------------------------------------------------------- */

/* As LRU_CLOCK(): the cached clock when the server's timer is quick enough. */
static uint32_t lru_clock(void)
{
    if (symbols.lru_idle_seconds) /* so long ago is 0 */
        return symbols.lru_idle_seconds(0);
    if (1000 / image_int(layout->hz) <= 1000)
        return (uint32_t)image_int(layout->lru_clock);
    return (uint32_t)(time(NULL) & ((1 << 24) - 1));
}

static void capture_roots(struct keyspace_roots *roots)
{
    int policy = image_int(layout->maxmemory_policy);
    *roots = (struct keyspace_roots){
        .layout = layout->keyspace,
        .databases = image_word(layout->db),
        .database_count = image_int(layout->dbnum),
        .hash = symbols.siphash,
        .expiring_hash_type = (uintptr_t)symbols.expiring_hash_type,
        .cluster = image_int(layout->cluster_enabled) != 0,
        .save_idle_time = policy & POLICY_LRU,
        .save_frequency = policy & POLICY_LFU,
        .lru_clock = lru_clock(),
        .unix_time = (int64_t)image_word(layout->unix_time),
        .lfu_decay_time = symbols.lfu_decay_time ? *symbols.lfu_decay_time
                                                 : image_int(layout->lfu_decay_time),
        .key_save_delay = image_int(layout->key_save_delay),
    };
    memcpy(roots->hash_seed, symbols.hash_seed(), sizeof(roots->hash_seed));
}

static int duplicate(int descriptor)
{
    return descriptor < 0 ? -1 : fcntl(descriptor, F_DUPFD_CLOEXEC, 3);
}

/* What the forked child would have written to, by name. */
static int capture_names(const struct child_request *request,
                         struct server_capture *capture)
{
    long pid = (long)request->pid;
    if (request->cause == CHILD_REWRITE_AOF) {
        snprintf(capture->file_name, sizeof(capture->file_name),
                 "temp-rewriteaof-bg-%ld.aof", pid);
        snprintf(capture->temporary_name, sizeof(capture->temporary_name),
                 "temp-rewriteaof-%ld.aof", pid);
        return 0;
    }
    const char *name = (const char *)(uintptr_t)image_word(layout->rdb_filename);
    if (strlen(name) >= sizeof(capture->file_name))
        return -ENAMETOOLONG;
    snprintf(capture->file_name, sizeof(capture->file_name), "%s", name);
    snprintf(capture->temporary_name, sizeof(capture->temporary_name), "temp-%ld.rdb",
             pid);
    return 0;
}

/* Descriptors of our own: the server closes its copies as soon as fork()
 * returns. */
static int capture_descriptors(const struct child_request *request,
                               struct server_capture *capture)
{
    capture->directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (capture->directory < 0)
        return -errno;
    capture->report_pipe =
        duplicate(image_int((uint16_t)(layout->child_info_pipe + sizeof(int))));
    if (request->cause != CHILD_SAVE_SOCKET)
        return 0;
    capture->transfer_pipe = duplicate(child_pipe_peer(image_int(layout->rdb_pipe_read)));
    capture->exit_pipe =
        duplicate(child_pipe_peer(image_int(layout->rdb_child_exit_pipe)));
    return capture->transfer_pipe < 0 || capture->exit_pipe < 0 ? -EBADF : 0;
}

static int capture_all(const struct child_request *request,
                       struct server_capture *capture)
{
    capture_roots(&capture->roots);
    if (image_int(layout->rdb_compression))
        capture->compress = symbols.lzf_compress;
    if (image_int(layout->rdb_checksum))
        capture->checksum = symbols.crc64;
    bool aof = request->cause == CHILD_REWRITE_AOF;
    if (image_int(aof ? layout->aof_rewrite_incremental_fsync
                      : layout->rdb_save_incremental_fsync))
        capture->sync_every = SYNC_EVERY;
    int error = capture_names(request, capture);
    if (!error)
        error = capture_descriptors(request, capture);
    if (!error)
        error = capture_header(request, capture);
    if (!error)
        error = capture_trailer(capture);
    return error;
}

static void forget_descriptors(struct server_capture *capture)
{
    capture->directory = capture->report_pipe = -1;
    capture->transfer_pipe = capture->exit_pipe = -1;
}

int server_capture(const struct child_request *request, struct server_capture *capture,
                   char *reason, size_t reason_size)
{
    memset(capture, 0, sizeof(*capture));
    forget_descriptors(capture);
    int error = refuse_request(request, reason, reason_size);
    if (!error)
        error = refuse_module_types(reason, reason_size);
    if (!error)
        error = refuse_slot_imports(reason, reason_size);
    if (error)
        return error;
    error = capture_all(request, capture);
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
    capture->header = capture->trailer = NULL;
    forget_descriptors(capture);
}

/* ---- reports --------------------------------------------------------------------- */

/* childinfo.c: the parent reads whole records, so a short one would put it out
 * of step. A pipe with POLLOUT has room for PIPE_BUF bytes. */
struct report {
    uint64_t keys;
    uint64_t copied_bytes;
    uint64_t updated_usec;
    double progress;
    uint64_t type; /* before Valkey 9.1; after: bytes sent to replicas */
    uint64_t type_9_1;
};

static int report_type(enum child_cause cause, enum server_report kind)
{
    if (kind == SERVER_REPORT_PROGRESS)
        return 0;
    return cause == CHILD_REWRITE_AOF ? 1 : 2;
}

void server_send_report(int report_pipe, enum child_cause cause, enum server_report kind,
                        uint64_t keys, uint64_t preserved_bytes)
{
    struct pollfd room = {.fd = report_pipe, .events = POLLOUT};
    if (report_pipe < 0 || poll(&room, 1, 0) <= 0 || !(room.revents & POLLOUT))
        return;
    struct report report = {
        .keys = keys,
        .copied_bytes = preserved_bytes,
        .updated_usec = clock_usec(),
        .progress = -1,
    };
    uint64_t type = (uint64_t)report_type(cause, kind);
    if (layout->report_bytes == sizeof(report))
        report.type_9_1 = type;
    else
        report.type = type;
    (void)!write(report_pipe, &report, layout->report_bytes);
}
