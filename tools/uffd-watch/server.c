#include "server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <hiredis/hiredis.h>
#ifdef WITH_TLS
#include <hiredis/hiredis_ssl.h>
#endif

double steady_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void watched_close(struct watched *server)
{
    if (server->connection)
        redisFree(server->connection);
    server->connection = NULL;
}

static bool fail(struct watched *server, const char *what, const char *why)
{
    snprintf(server->error, sizeof(server->error), "%s%s%s", what, why ? ": " : "",
             why ? why : "");
    watched_close(server);
    return false;
}

/* ---- connecting ------------------------------------------------------------------ */

static redisContext *open_connection(const struct address *address,
                                     const struct login *login)
{
    struct timeval timeout = {
        .tv_sec = (time_t)login->timeout_seconds,
        .tv_usec =
            (suseconds_t)((login->timeout_seconds - (time_t)login->timeout_seconds) *
                          1e6),
    };
    redisContext *connection =
        address->path ? redisConnectUnixWithTimeout(address->path, timeout)
                      : redisConnectWithTimeout(address->host, address->port, timeout);
    /* A server that is stopped takes connections, but does not answer. */
    if (connection && !connection->err)
        redisSetTimeout(connection, timeout);
    return connection;
}

#ifdef WITH_TLS
static const char *start_tls(redisContext *connection, const struct login *login)
{
    static redisSSLContext *context;
    redisSSLContextError error = REDIS_SSL_CTX_NONE;
    redisInitOpenSSL();
    if (!context)
        context = redisCreateSSLContext(login->ca, NULL, login->certificate, login->key,
                                        NULL, &error);
    if (!context)
        return redisSSLContextGetError(error);
    return redisInitiateSSLWithContext(connection, context) == REDIS_OK
               ? NULL
               : connection->errstr;
}
#else
static const char *start_tls(redisContext *connection, const struct login *login)
{
    (void)connection, (void)login;
    return "this uffd-watch was built without hiredis_ssl";
}
#endif

static bool log_in(struct watched *server, const struct login *login)
{
    if (!login->password)
        return true;
    redisReply *reply =
        login->user
            ? redisCommand(server->connection, "AUTH %s %s", login->user, login->password)
            : redisCommand(server->connection, "AUTH %s", login->password);
    if (!reply)
        return fail(server, "AUTH", ((redisContext *)server->connection)->errstr);
    bool good = reply->type != REDIS_REPLY_ERROR;
    if (!good)
        fail(server, "AUTH", reply->str);
    freeReplyObject(reply);
    return good;
}

static bool reach(struct watched *server, const struct login *login)
{
    if (server->connection)
        return true;
    redisContext *connection = open_connection(&server->address, login);
    server->connection = connection;
    if (!connection || connection->err)
        return fail(server, "cannot connect", connection ? connection->errstr : NULL);
    const char *why = login->tls ? start_tls(connection, login) : NULL;
    if (why)
        return fail(server, "TLS", why);
    return log_in(server, login);
}

/* ---- asking ---------------------------------------------------------------------- */

const char *watched_text(const struct watched *server, const char *field)
{
    static char value[256];
    size_t length = strlen(field);
    const char *line = server->info;
    while (line && *line) {
        if (strncmp(line, field, length) == 0 && line[length] == ':') {
            size_t end = strcspn(line + length + 1, "\r\n");
            if (end >= sizeof(value))
                end = sizeof(value) - 1;
            memcpy(value, line + length + 1, end);
            value[end] = '\0';
            return value;
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
    return "";
}

double watched_number(const struct watched *server, const char *field)
{
    return strtod(watched_text(server, field), NULL);
}

double watched_seconds_left(const struct watched *server)
{
    double total = watched_number(server, "uffd_keys_total"),
           share = total > 0 ? watched_number(server, "uffd_keys_saved") / total : 0,
           passed = watched_number(server, "uffd_save_elapsed_msec") / 1000;
    return share > 0.01 && passed > 0.5 ? passed / share * (1 - share) : -1;
}

const char *watched_trouble(const struct watched *server)
{
    if (watched_number(server, "uffd_supported") == 0)
        return "saves fork";
    /* Of the server, so that saves count which only it knows of. */
    if (strcmp(watched_text(server, "rdb_last_bgsave_status"), "err") == 0)
        return "last save failed";
    if (strcmp(watched_text(server, "aof_last_bgrewrite_status"), "err") == 0)
        return "last rewrite failed";
    return NULL;
}

static void note_freeze(struct watched *server)
{
    memmove(server->freezes_msec + 1, server->freezes_msec,
            (SAVES_KEPT - 1) * sizeof(server->freezes_msec[0]));
    server->freezes_msec[0] = watched_number(server, "uffd_last_freeze_usec") / 1000;
    if (server->freeze_count < SAVES_KEPT)
        server->freeze_count++;
}

/* The result whose counter has grown since the last look; NULL if none has. */
static const char *result_since(struct watched *server)
{
    static const struct {
        const char *field, *result;
    } results[RESULTS] = {{"uffd_snapshots_ok", "ok"},
                          {"uffd_snapshots_failed", "failed"},
                          {"uffd_snapshots_cancelled", "cancelled"},
                          {"uffd_fork_fallbacks", "forked"}};
    const char *found = NULL;
    for (int i = 0; i < RESULTS; i++) {
        double count = watched_number(server, results[i].field);
        if (count > server->results_before[i])
            found = results[i].result;
        server->results_before[i] = count;
    }
    return found;
}

/* The figures are those of the last save until the next one begins. */
static void note_end(struct watched *server)
{
    const char *result = result_since(server);
    if (!result || server->looked == 0)
        return;
    struct ended ended = {.seen = time(NULL), .result = result};
    if (strcmp(result, "forked") != 0) {
        ended.save_msec = watched_number(server, "uffd_last_save_msec");
        ended.freeze_msec = watched_number(server, "uffd_last_freeze_usec") / 1000;
        ended.faults = watched_number(server, "uffd_last_faults");
        ended.buffer_peak = watched_number(server, "uffd_buffer_peak_bytes");
        ended.waits = watched_number(server, "uffd_writer_waits");
    }
    memmove(server->ended + 1, server->ended,
            (SAVES_KEPT - 1) * sizeof(server->ended[0]));
    server->ended[0] = ended;
    if (server->ended_count < SAVES_KEPT)
        server->ended_count++;
}

static void note_looks(struct watched *server, double passed, bool anew)
{
    double waits = watched_number(server, "uffd_writer_waits");
    double more = anew ? waits : waits - server->waits_before;
    looks_add(&server->rates, server->faults_per_second);
    looks_add(&server->buffers, watched_number(server, "uffd_buffer_used_bytes"));
    looks_add(&server->waits, passed > 0 && more > 0 ? more / passed : 0);
    server->waits_before = waits;
}

static void compare_with_last_look(struct watched *server, double now)
{
    double faults = watched_number(server, "uffd_last_faults");
    double saves = watched_number(server, "uffd_forks_replaced");
    double passed = server->looked > 0 ? now - server->looked : 0;
    double more = faults - server->faults_before;
    if (saves > server->saves_before) {
        note_freeze(server);
        /* The counter began at 0 again. */
        more = faults;
    }
    server->faults_per_second = passed > 0 && more > 0 ? more / passed : 0;
    note_looks(server, passed, saves > server->saves_before);
    note_end(server);
    server->faults_before = faults;
    server->saves_before = saves;
    server->looked = now;
}

bool watched_look(struct watched *server, const struct login *login)
{
    server->error[0] = '\0';
    free(server->info);
    server->info = NULL;
    if (!reach(server, login))
        return false;
    redisReply *reply = redisCommand(server->connection, "INFO everything");
    if (!reply)
        return fail(server, "no answer", ((redisContext *)server->connection)->errstr);
    bool good = reply->type != REDIS_REPLY_ERROR && reply->str;
    if (good)
        server->info = strdup(reply->str);
    else
        fail(server, "INFO", reply->str ? reply->str : "no text");
    freeReplyObject(reply);
    if (!good || !server->info)
        return false;
    if (!*watched_text(server, "uffd_version"))
        return fail(server, "the module is not loaded (MODULE LOAD …/rdb_uffd.so)", NULL);
    compare_with_last_look(server, steady_seconds());
    return true;
}
