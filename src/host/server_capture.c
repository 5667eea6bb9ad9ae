#include "host/server_capture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "host/imports.h"
#include "host/module_values.h"
#include "host/server_internal.h"
#include "host/server_stream.h"
#include "host/transfer.h"
#include "kernel/contract.h"
#include "kernel/memory.h"

/* The server's flags (rdb.h, server.h, module.h of every known version). */
#define AOF_PREAMBLE        1
#define FOR_REPLICATION     2
#define SYNC_EVERY          (4 * 1024 * 1024)
#define SAVE_INFO_BYTES_MAX 256

/* ---- what only a fork could save ------------------------------------------------- */

/* Valkey 9.1 writes an older format for an older replica. */
static bool wants_older_format(void *client)
{
    return server_symbols.replica_rdb_version &&
           server_symbols.replica_rdb_version(client) != server_dump_version();
}

/* What is written to its socket is what the replica gets: TLS would have it encrypted,
 * which is for the server's own connection to do. Each replica chooses for itself. */
static const char *refuse_direct(const struct transfer *transfer)
{
    if (!server_symbols.tcp_connections)
        return "a transfer straight to replicas, which this server should not know";
    if (transfer->count > SERVER_SOCKETS_MAX)
        return "a transfer straight to so many replicas";
    for (size_t i = 0; i < transfer->count; i++)
        if (transfer->targets[i].type != (uintptr_t)server_symbols.tcp_connections())
            return "a transfer straight to connections that are not plain sockets";
    return NULL;
}

/* What a replica would rather have, of the whole. */
static int32_t wishes_of_form(void)
{
    return server_layout->no_compression | server_layout->no_checksum;
}

/* Of those that get one dump all have the same wish: the server sees to that. */
static const char *refuse_transfer(int32_t *wish)
{
    struct transfer transfer;
    if (transfer_find(&transfer) != 0)
        return "a transfer to replicas that are not where they should be in memory";
    const char *why = transfer.direct ? refuse_direct(&transfer) : NULL;
    if (why)
        return why;
    if (!transfer.count)
        return "a transfer to nobody";
    *wish =
        transfer.targets[0].wish & (WISH_NO_DATA | WISH_NO_FUNCTIONS | wishes_of_form());
    if ((transfer.targets[0].wish ^ *wish) !=
        (transfer.direct ? server_layout->own_connection : 0))
        return "a transfer of an unknown kind";
    /* What stands there proves the wish no further. */
    if (*wish & ~wishes_of_form() && server_layout->keyspace == KEYSPACE_OF_FILE)
        return "a transfer of a part, with a layout from a file,";
    if (wants_older_format(transfer.targets[0].client))
        return "a transfer to an older replica";
    return NULL;
}

static int refuse_request(const struct child_request *request, int32_t *wish,
                          char *reason, size_t reason_size)
{
    const char *why = NULL;
    if (request->cause == CHILD_REWRITE_AOF && !*server_variables.preamble)
        why = "aof-use-rdb-preamble is no: an AOF of commands";
    else if (request->cause == CHILD_SLOT_MIGRATION)
        why = "a slot migration";
    else if (server_symbols.is_trimming && *server_variables.cluster &&
             server_symbols.is_trimming())
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
static bool save_slot_imports(struct server_stream *stream,
                              struct server_capture *capture)
{
    uint64_t before = server_stream_length(stream);
    if (!server_symbols.slot_imports)
        return true;
    if (server_symbols.slot_imports(stream->rio, server_dump_version()) != 0)
        return false;
    uint64_t length = server_stream_length(stream) - before;
    capture->imports = length != 0;
    return imports_parse((unsigned char *)server_stream_sds(stream) + before, length,
                         capture->imported_slots) == 0;
}

/* Where there is a child the saver asks it for them, when their turn has come. */
static bool save_module_data(struct server_stream *stream,
                             const struct server_capture *capture, enum aux_place place)
{
    return capture->no_data || capture->needs_child ||
           server_symbols.modules_aux(stream->rio, place) != -1;
}

static int capture_header(const struct child_request *request, int32_t wish,
                          struct server_capture *capture)
{
    struct server_stream stream;
    unsigned char save_info[SAVE_INFO_BYTES_MAX];
    int purpose = purpose_of(request);
    void *replication =
        purpose == AOF_PREAMBLE ? NULL : server_symbols.populate_save_info(save_info);
    server_stream_begin(&stream);
    bool written = server_symbols.aux_fields(stream.rio, purpose, replication) != -1;
    capture->header_aux = strlen(server_layout->magic) + server_stream_length(&stream);
    written = written && save_module_data(&stream, capture, AUX_BEFORE_KEYS) &&
              (wish & WISH_NO_FUNCTIONS || server_symbols.functions(stream.rio) != -1) &&
              save_slot_imports(&stream, capture);
    int error = server_stream_end(&stream, server_layout->magic, &capture->header,
                                  &capture->header_length);
    return written ? error : -EIO;
}

static int capture_trailer(struct server_capture *capture)
{
    struct server_stream stream;
    server_stream_begin(&stream);
    bool written = save_module_data(&stream, capture, AUX_AFTER_KEYS);
    int error =
        server_stream_end(&stream, "", &capture->trailer, &capture->trailer_length);
    return written ? error : -EIO;
}

/* ---- capture ------------------------------------------------------------------- */

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
    const char *name = *server_variables.file_name;
    if (strlen(name) >= sizeof(capture->file_name))
        return -ENAMETOOLONG;
    snprintf(capture->file_name, sizeof(capture->file_name), "%s", name);
    return 0;
}

static int capture_sockets(struct server_capture *capture)
{
    struct transfer transfer;
    int error = transfer_find(&transfer);
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
    uint16_t write_end = (uint16_t)(server_layout->child_info_pipe + sizeof(int));
    if (!child_pipe_made(0, made) ||
        made[0] != server_int(server_layout->child_info_pipe) ||
        made[1] != server_int(write_end))
        return false;
    return !transfer || (child_pipe_made(1, made) &&
                         made[1] == server_int(server_layout->rdb_child_exit_pipe) &&
                         child_pipe_made(2, made) &&
                         made[0] == server_int(server_layout->rdb_pipe_read));
}

/* Descriptors of our own: the server closes its copies as soon as fork()
 * returns. */
static int capture_descriptors(const struct child_request *request,
                               struct server_capture *capture)
{
    capture->directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (capture->directory < 0)
        return -errno;
    if (request->cause == CHILD_BACKUP)
        return 0;
    bool transfer = request->cause == CHILD_SAVE_SOCKET && !transfer_is_direct();
    if (!are_pipes_found(transfer))
        return -EBADF;
    capture->report_pipe =
        duplicate(server_int((uint16_t)(server_layout->child_info_pipe + sizeof(int))));
    if (request->cause != CHILD_SAVE_SOCKET)
        return 0;
    if (transfer_is_direct())
        return capture_sockets(capture);
    capture->transfer_pipe =
        duplicate(child_pipe_peer(server_int(server_layout->rdb_pipe_read)));
    capture->exit_pipe =
        duplicate(child_pipe_peer(server_int(server_layout->rdb_child_exit_pipe)));
    return capture->transfer_pipe < 0 || capture->exit_pipe < 0 ? -EBADF : 0;
}

/* What the server's own functions write, as a child would have it that has been asked for
 * strings as they are. */
static int capture_streams(const struct child_request *request, int32_t wish,
                           struct server_capture *capture)
{
    int compression = *server_variables.compression;
    if (wish & server_layout->no_compression)
        *server_variables.compression = 0;
    if (*server_variables.compression)
        capture->compress = server_symbols.lzf_compress;
    int error = capture_header(request, wish, capture);
    if (!error)
        error = capture_trailer(capture);
    *server_variables.compression = compression;
    return error;
}

static int capture_all(const struct child_request *request, int32_t wish,
                       struct server_capture *capture)
{
    server_roots(&capture->roots);
    if (*server_variables.checksum && !(wish & server_layout->no_checksum))
        capture->checksum = server_symbols.crc64;
    bool aof = request->cause == CHILD_REWRITE_AOF;
    if (*(aof ? server_variables.sync_rewrite : server_variables.sync_dump))
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

static int look_for_values(const char *no_child, struct server_capture *capture,
                           char *reason, size_t reason_size)
{
    int error = module_values_find(reason, reason_size);
    capture->needs_child = error && !no_child;
    if (!error || capture->needs_child)
        return 0;
    size_t length = strlen(reason);
    snprintf(reason + length, reason_size - length, " (%s)", no_child);
    return error;
}

int server_capture(const struct child_request *request, const char *no_child,
                   struct server_capture *capture, char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    memset(capture, 0, sizeof(*capture));
    forget_descriptors(capture);
    int32_t wish = 0;
    int error = refuse_request(request, &wish, reason, reason_size);
    capture->no_data = wish & WISH_NO_DATA;
    if (!error && !capture->no_data)
        error = look_for_values(no_child, capture, reason, reason_size);
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
