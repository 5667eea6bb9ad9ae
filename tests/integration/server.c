#include "server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rdbfile.h"

#define SERVERS_MAX    4096
#define WORDS_MAX      32
#define START_SECONDS  60
#define START_ATTEMPTS 5
#define POLL_MSEC      3
#define ANSWER_SECONDS 10

const char *server_common_config;
static struct server servers[SERVERS_MAX];
static int server_count;

/* ---- starting ---- */

bool module_in_use(void)
{
    const char *without = getenv("WITHOUT_MODULE");
    return !without || !*without || strcmp(without, "0") == 0;
}

void needs_module(void)
{
    if (!module_in_use())
        skip("WITHOUT_MODULE is set");
}

const char *module_path(void)
{
    static char path[PATH_MAX];
    const char *name = getenv("RDB_UFFD_MODULE");
    if (!path[0] && !realpath(name ? name : "rdb_uffd.so", path))
        fail("no module at %s: run make, or set WITHOUT_MODULE=1",
             name ? name : "rdb_uffd.so");
    return path;
}

/* Below those that the kernel gives to connections (from 32768 on), and so that the one
 * 10000 above, for a cluster's bus, is too. */
#define PORT_FIRST 11000
#define PORTS      10000

static bool is_free(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), reuse = 1;
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
    bool free = bind(descriptor, (struct sockaddr *)&address, sizeof address) == 0 &&
                listen(descriptor, 1) == 0;
    close(descriptor);
    return free;
}

/* Somebody may take it before the server does: see server_try_start(). */
static int free_port(void)
{
    static uint64_t random;
    if (!random)
        random = (uint64_t)getpid() * 1000003 + (uint64_t)(clock_seconds() * 1e6);
    for (int i = 0; i < 1000; i++) {
        int port = PORT_FIRST + (int)(random_next(&random) % PORTS);
        if (is_free(port) && is_free(port + 10000))
            return port;
    }
    fail("no free port");
}

/* Where every user can read it: the tree's own directory may be closed to all
 * but its owner. */
static const char *readable_module(void)
{
    char *copy = format_text("%s/rdb_uffd.so", test_directory());
    if (access(copy, R_OK) == 0)
        return copy;
    copy_file(module_path(), copy);
    CHECK(chmod(copy, 0755) == 0, "%s: %s", copy, strerror(errno));
    return copy;
}

static void write_config(struct server *server, const struct server_options *options)
{
    FILE *file = fopen(server_path(server, "redis.conf"), "w");
    CHECK(file, "cannot write the configuration: %s", strerror(errno));
    if (options->sentinel) {
        fprintf(file, "port %d\nbind 127.0.0.1\ndir %s\nlogfile %s\n%s\n", server->port,
                server->directory, server->log, options->config);
        fclose(file);
        return;
    }
    fprintf(file,
            "port %d\nbind 127.0.0.1\ndir %s\nlogfile %s\nsave \"\"\nappendonly no\n"
            "enable-debug-command yes\nenable-module-command yes\n"
            "enable-protected-configs yes\n",
            server->port, server->directory, server->log);
    fprintf(file, "%s", server_common_config ? server_common_config : "");
    fprintf(file, "%s\n", options->config ? options->config : "");
    if (server->has_module)
        fprintf(file, "loadmodule %s %s\n", readable_module(),
                options->module_arguments ? options->module_arguments : "");
    fclose(file);
}

static void split_words(const char *text, const char **words, int *count)
{
    for (char *word = strtok(strdup(text), " "); word; word = strtok(NULL, " "))
        if (*count < WORDS_MAX - 1)
            words[(*count)++] = word;
    words[*count] = NULL;
}

static _Noreturn void become_server(struct server *server,
                                    const struct server_options *options)
{
    const char *command = options->command ? options->command : getenv("SERVER_COMMAND");
    const char *words[WORDS_MAX];
    int count = 0;
    split_words(command && *command ? command : "redis-server", words, &count);
    words[count++] = server_path(server, "redis.conf");
    if (options->sentinel)
        words[count++] = "--sentinel";
    words[count] = NULL;
    struct passwd *user = options->user ? getpwnam(options->user) : NULL;
    if (options->user && (!user || setgroups(0, NULL) < 0 || setgid(user->pw_gid) < 0 ||
                          setuid(user->pw_uid) < 0))
        _exit(126);
    /* After setuid(), which clears it. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (options->fault)
        setenv("RDB_UFFD_FAULT", options->fault, 1);
    else
        unsetenv("RDB_UFFD_FAULT");
    int output = open(server->log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    execvp(words[0], (char *const *)words);
    fprintf(stderr, "%s: %s\n", words[0], strerror(errno));
    _exit(127);
}

/* The next child will be the first process of a pid namespace. Returns the way back. */
static int leave_numbers(void)
{
    int ours = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
    if (ours < 0 || unshare(CLONE_NEWPID) != 0)
        skip("no pid namespaces: %s", strerror(errno));
    return ours;
}

static void spawn(struct server *server, const struct server_options *options)
{
    server->port = free_port();
    write_config(server, options);
    int ours = options->own_numbers ? leave_numbers() : -1;
    server->pid = fork();
    CHECK(server->pid >= 0, "fork: %s", strerror(errno));
    if (server->pid == 0)
        become_server(server, options);
    server->own_pid = options->own_numbers ? 1 : server->pid;
    if (options->own_numbers)
        CHECK(setns(ours, CLONE_NEWPID) == 0 && close(ours) == 0, "setns: %s",
              strerror(errno));
    server->stopped = false;
}

/* It answers, and it is not another test's that has got the same port. */
static bool is_ours(struct server *server, redisContext *connection)
{
    redisReply *reply = redisCommand(connection, "PING");
    bool ours = reply && reply->type == REDIS_REPLY_STATUS;
    if (reply)
        freeReplyObject(reply);
    reply = ours ? redisCommand(connection, "INFO server") : NULL;
    const char *process = reply && reply->str ? strstr(reply->str, "process_id:") : NULL;
    /* None: no answer within the time either. */
    ours = process && atoi(process + strlen("process_id:")) == server->own_pid;
    if (reply)
        freeReplyObject(reply);
    return ours;
}

/* A new connection to a server that answers, else NULL. */
static redisContext *connect_if_serving(struct server *server, int timeout_seconds)
{
    struct timeval timeout = {timeout_seconds, 0};
    redisContext *connection =
        redisConnectWithTimeout("127.0.0.1", server->port, timeout);
    if (connection && !connection->err) {
        redisSetTimeout(connection, timeout);
        if (is_ours(server, connection)) {
            redisSetTimeout(connection, (struct timeval){0});
            return connection;
        }
    }
    if (connection)
        redisFree(connection);
    return NULL;
}

/* False if the server ended instead. */
static bool wait_until_serving(struct server *server)
{
    double end = patient_seconds() + START_SECONDS;
    while (patient_seconds() < end) {
        server->connection = connect_if_serving(server, 1);
        if (server->connection)
            return true;
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            server->stopped = true;
            return false;
        }
        sleep_msec(POLL_MSEC);
    }
    fail("the server does not answer");
}

static char *read_text(const char *path)
{
    FILE *file = fopen(path, "r");
    char *text = NULL;
    size_t length = 0, capacity = 0;
    ssize_t got = file ? getdelim(&text, &capacity, '\0', file) : -1;
    if (got > 0)
        length = (size_t)got;
    if (file)
        fclose(file);
    if (!text)
        return strdup("");
    text[length] = '\0';
    return text;
}

static void check_all_alive(void)
{
    for (int i = 0; i < server_count; i++) {
        struct server *server = &servers[i];
        CHECK(!server->has_module || server->may_crash ||
                  server_log_count(server, "BUG REPORT") == 0,
              "server %d crashed", i);
        if (server->stopped)
            continue;
        redisContext *connection;
        WAIT_UNTIL((connection = connect_if_serving(server, ANSWER_SECONDS)),
                   ANSWER_SECONDS, "server %d does not answer any more", i);
        redisFree(connection);
    }
}

static void prepare_directory(struct server *server, const struct server_options *options)
{
    server->directory = options->directory
                            ? strdup(options->directory)
                            : format_text("%s/server-%d", test_directory(), server_count);
    server->log = server_path(server, "log");
    if (options->directory)
        return;
    CHECK(mkdir(server->directory, 0755) == 0, "%s", strerror(errno));
    struct passwd *user = options->user ? getpwnam(options->user) : NULL;
    CHECK(!options->user || user, "no user %s", options->user);
    CHECK(!user || chown(server->directory, user->pw_uid, user->pw_gid) == 0, "%s",
          strerror(errno));
}

struct server *server_try_start(const struct server_options *options, char **log)
{
    static const struct server_options none;
    options = options ? options : &none;
    CHECK(server_count < SERVERS_MAX, "too many servers in a case");
    struct server *server = &servers[server_count];
    server->has_module =
        module_in_use() && !options->without_module && !options->sentinel;
    prepare_directory(server, options);
    server_count++;
    test_epilogue = check_all_alive;
    for (int attempt = 0; attempt < START_ATTEMPTS; attempt++) {
        spawn(server, options);
        if (wait_until_serving(server))
            return server;
        /* Somebody may have taken the port in the meantime. */
        if (server_log_count(server, "Address already in use") == attempt)
            break;
    }
    if (log)
        *log = read_text(server->log);
    return NULL;
}

struct server *server_start(const struct server_options *options)
{
    struct server *server = server_try_start(options, NULL);
    CHECK(server, "the server did not start");
    return server;
}

redisContext *server_connect(struct server *server)
{
    redisContext *connection = redisConnect("127.0.0.1", server->port);
    CHECK(connection && !connection->err, "cannot connect to the server");
    return connection;
}

/* ---- ending ---- */

int server_wait_exit(struct server *server)
{
    int status;
    while (waitpid(server->pid, &status, 0) < 0)
        CHECK(errno == EINTR, "waitpid: %s", strerror(errno));
    server->stopped = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void server_stop(struct server *server)
{
    redisReply *reply = redisCommand(server->connection, "SHUTDOWN NOSAVE");
    CHECK(!reply, "SHUTDOWN: %s", reply->str);
    int code = server_wait_exit(server);
    CHECK(code == 0, "the server ended with code %d", code);
}

void server_kill(struct server *server)
{
    kill(server->pid, SIGKILL);
    server_wait_exit(server);
}

bool server_allocator_is_library(struct server *server)
{
    char line[512];
    bool found = false;
    FILE *maps = fopen(format_text("/proc/%d/maps", (int)server->pid), "r");
    CHECK(maps, "the server's maps");
    while (fgets(line, sizeof(line), maps))
        found |= strstr(line, "libjemalloc") != NULL;
    fclose(maps);
    return found;
}

bool server_is_alive(struct server *server)
{
    return !server->stopped && waitpid(server->pid, NULL, WNOHANG) == 0;
}

/* ---- commands ---- */

static redisReply *command_list(struct server *server, const char *format, va_list list)
{
    redisReply *reply = redisvCommand(server->connection, format, list);
    if (!reply)
        fail("no answer to \"%s\": %s", format, server->connection->errstr);
    return reply;
}

#define SEND(server, format, reply)                                                      \
    va_list list;                                                                        \
    va_start(list, format);                                                              \
    redisReply *reply = command_list(server, format, list);                              \
    va_end(list)

redisReply *server_command(struct server *server, const char *format, ...)
{
    SEND(server, format, reply);
    return reply;
}

redisReply *server_ok(struct server *server, const char *format, ...)
{
    SEND(server, format, reply);
    CHECK(reply->type != REDIS_REPLY_ERROR, "\"%s\": %s", format, reply->str);
    return reply;
}

const char *server_text(struct server *server, const char *format, ...)
{
    SEND(server, format, reply);
    CHECK(reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS,
          "\"%s\": %s", format, reply->str ? reply->str : "no text");
    return reply->str;
}

const char *server_error(struct server *server, const char *format, ...)
{
    SEND(server, format, reply);
    CHECK(reply->type == REDIS_REPLY_ERROR, "\"%s\" gave no error", format);
    return reply->str;
}

long long server_integer(struct server *server, const char *format, ...)
{
    SEND(server, format, reply);
    CHECK(reply->type == REDIS_REPLY_INTEGER, "\"%s\": %s", format,
          reply->str ? reply->str : "no integer");
    return reply->integer;
}

const char *server_error_at_once(struct server *server, const char *const *commands,
                                 int count)
{
    const char *error = NULL;
    for (int i = 0; i < count; i++)
        redisAppendCommand(server->connection, commands[i]);
    for (int i = 0; i < count; i++) {
        redisReply *reply;
        CHECK(redisGetReply(server->connection, (void **)&reply) == REDIS_OK,
              "the server went away: %s", server->connection->errstr);
        if (reply->type == REDIS_REPLY_ERROR)
            error = format_text("%s: %s", commands[i], reply->str);
        freeReplyObject(reply);
    }
    return error;
}

void server_config_set(struct server *server, const char *name, const char *value)
{
    server_ok(server, "CONFIG SET %s %s", name, value);
}

const char *server_config_get(struct server *server, const char *name)
{
    redisReply *reply = server_ok(server, "CONFIG GET %s", name);
    CHECK(reply->elements == 2, "no setting %s", name);
    return reply->element[1]->str;
}

/* The section that has the field: what is polled should not cost the server, nor us, as
 * much as all of INFO does. */
static const char *section_of(const char *field)
{
    static const char *const known[][2] = {{"rdb_", "persistence"},
                                           {"aof_", "persistence"},
                                           {"current_", "persistence"},
                                           {"used_memory", "memory"},
                                           {"uffd_", "uffd"}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strncmp(field, known[i][0], strlen(known[i][0])) == 0)
            return known[i][1];
    return "everything";
}

const char *server_info(struct server *server, const char *field)
{
    redisReply *reply = server_ok(server, "INFO %s", section_of(field));
    size_t length = strlen(field);
    char *value = NULL;
    for (char *line = strtok(reply->str, "\r\n"); line && !value;
         line = strtok(NULL, "\r\n"))
        if (strncmp(line, field, length) == 0 && line[length] == ':')
            value = strdup(line + length + 1);
    freeReplyObject(reply);
    return value;
}

const char *server_name(struct server *server)
{
    return server_info(server, "valkey_version")   ? "valkey"
           : server_info(server, "redict_version") ? "redict"
                                                   : "redis";
}

const char *server_version(struct server *server)
{
    return server_info(server, format_text("%s_version", server_name(server)));
}

double server_info_number(struct server *server, const char *field)
{
    const char *value = server_info(server, field);
    CHECK(value, "INFO has no %s", field);
    return strtod(value, NULL);
}

bool server_knows(struct server *server, const char *command)
{
    redisReply *known = server_ok(server, "COMMAND INFO %s", command);
    return known->elements == 1 && known->element[0]->type == REDIS_REPLY_ARRAY;
}

const char *server_digest(struct server *server)
{
    return server_text(server, "DEBUG DIGEST");
}

int server_log_count(struct server *server, const char *text)
{
    char *log = read_text(server->log);
    int count = 0;
    for (char *at = log; (at = strstr(at, text)); at++)
        count++;
    free(log);
    return count;
}

int server_log_lines(struct server *server, const char *text)
{
    char *log = read_text(server->log);
    int count = 0;
    for (char *line = strtok(log, "\n"); line; line = strtok(NULL, "\n"))
        count += strstr(line, text) != NULL;
    free(log);
    return count;
}

/* ---- saving ---- */

void server_save_start(struct server *server)
{
    const char *answer = server_text(server, "BGSAVE");
    CHECK(strcmp(answer, "Background saving started") == 0, "BGSAVE: %s", answer);
}

bool server_save_wait(struct server *server)
{
    while (server_info_number(server, "rdb_bgsave_in_progress") != 0)
        sleep_msec(POLL_MSEC);
    return strcmp(server_info(server, "rdb_last_bgsave_status"), "ok") == 0;
}

void server_save(struct server *server)
{
    server_save_start(server);
    CHECK(server_save_wait(server), "the background save failed");
}

int server_children(struct server *server)
{
    char *tasks = format_text("/proc/%d/task", (int)server->pid);
    DIR *directory = opendir(tasks);
    int count = 0;
    for (struct dirent *task; directory && (task = readdir(directory));) {
        char *path = format_text("%s/%s/children", tasks, task->d_name);
        FILE *file = fopen(path, "r");
        for (int child; file && fscanf(file, "%d", &child) == 1;)
            count++;
        if (file)
            fclose(file);
        free(path);
    }
    if (directory)
        closedir(directory);
    return count;
}

const char *server_temporary_file(struct server *server)
{
    DIR *directory = opendir(server->directory);
    char *found = NULL;
    for (struct dirent *entry; directory && (entry = readdir(directory));)
        if (strncmp(entry->d_name, "temp-", 5) == 0)
            found = server_path(server, entry->d_name);
    if (directory)
        closedir(directory);
    return found;
}

char *server_path(struct server *server, const char *name)
{
    return format_text("%s/%s", server->directory, name);
}

void wait_until_saves_are_ours(struct server *server)
{
    double until = patient_seconds() + 20;
    for (;;) {
        double forks = server_info_number(server, "uffd_fork_fallbacks");
        server_save(server);
        if (server_info_number(server, "uffd_fork_fallbacks") == forks)
            return;
        CHECK(patient_seconds() < until, "saves fork for ever: %s",
              server_info(server, "uffd_last_fallback_reason"));
        sleep_msec(200);
    }
}

void check_fork_free(struct server *server, int saves)
{
    if (!server->has_module)
        return;
    double fallbacks = server_info_number(server, "uffd_fork_fallbacks");
    CHECK(fallbacks == 0, "the module fell back to fork: %s",
          server_info(server, "uffd_last_fallback_reason"));
    double replaced = server_info_number(server, "uffd_forks_replaced");
    CHECK(replaced == saves, "%d forks replaced, not %d", (int)replaced, saves);
}
