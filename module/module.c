/* Loading and unloading: the module as the server sees it. */
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "ask.h"
#include "backup_command.h"
#include "commands.h"
#include "dirtyrate.h"
#include "doctor_command.h"
#include "info.h"
#include "kernel/fault_points.h"
#include "kernel/symbols.h"
#include "rdb_uffd.h"
#include "scan.h"
#include "server_api.h"
#include "settings.h"
#include "wake.h"

#define MODULE_NAME "uffd"

__attribute__((visibility("default"))) int
RedisModule_OnLoad(api_context *context, api_string **arguments, int count);
__attribute__((visibility("default"))) int RedisModule_OnUnload(api_context *context);

static char server_name[16];
static char server_version[32];
static char saver_cpus[256];
static char rewriter_cpus[256];
static uint64_t (*used_memory)(void);

static void log_line(enum rdb_uffd_level level, const char *text)
{
    static const char *const levels[] = {"verbose", "notice", "warning"};
    api.Log(NULL, levels[level], "%s", text);
}

static uint64_t memory_in_use(void)
{
    return used_memory ? used_memory() : 0;
}

/* Outlives the calls that contexts belong to: fork() has none. */
static api_context *lasting_context;

static struct rdb_uffd_host host = {
    .log = log_line,
    .memory_in_use = memory_in_use,
    .wake = wake_server,
    .has_database = ask_database,
    .count_keys = ask_count,
    .ask_key = ask_key,
    .ask_clocks = ask_clocks,
    .is_replica = ask_replica,
    .server_name = server_name,
    .server_version = server_version,
    .saver_cpus = saver_cpus,
    .rewriter_cpus = rewriter_cpus,
};

/* Those that came from Redis report the version of it they are compatible with as well. */
static void identify_server(api_context *context)
{
    static const char *const names[] = {"valkey", "redict", "redis"};
    api_server_info *info = api.GetServerInfo(context, "server");
    const char *version = NULL;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) && !version; i++) {
        char field[32];
        snprintf(server_name, sizeof(server_name), "%s", names[i]);
        snprintf(field, sizeof(field), "%s_version", names[i]);
        version = api.ServerInfoGetFieldC(info, field);
    }
    if (fault_point(FAULT_NEWER_SERVER))
        version = "99.9.9";
    snprintf(server_version, sizeof(server_version), "%s", version ? version : "unknown");
    api.FreeServerInfo(context, info);
    used_memory = (uint64_t(*)(void))symbol_find("zmalloc_used_memory");
}

/* Where the operator wants background work to run: cannot be changed later. `setting`:
 * with "?" for what was an underscore, and is a hyphen in newer servers. */
static void read_cpus(api_context *context, const char *setting, char *cpus, size_t size)
{
    if (!server_api_setting(context, setting, cpus, size))
        cpus[0] = '\0';
}

static void on_cron(api_context *context, api_event event, uint64_t sub_event, void *data)
{
    (void)event, (void)sub_event, (void)data;
    rdb_uffd_tick();
    dirtyrate_tick();
    backup_tick();
    scan_tick(context);
}

static void on_shutdown(api_context *context, api_event event, uint64_t sub_event,
                        void *data)
{
    (void)context, (void)event, (void)sub_event, (void)data;
    rdb_uffd_leave_backup();
}

static void on_module_change(api_context *context, api_event event, uint64_t sub_event,
                             void *data)
{
    (void)context, (void)event, (void)sub_event, (void)data;
    rdb_uffd_modules_changed();
}

/* UFFD.FAULT name on|off: exists only for tests. */
static int fault_command(api_context *context, api_string **arguments, int count)
{
    if (count != 3)
        return api.WrongArity(context);
    const char *name = api.StringPtrLen(arguments[1], NULL);
    bool on = strcasecmp(api.StringPtrLen(arguments[2], NULL), "on") == 0;
    if (!fault_point_set(name, on))
        return api.ReplyWithError(context, "ERR no such fault point");
    return api.ReplyWithSimpleString(context, "OK");
}

/* The server wants one number: 1.2.3 is 10203. */
static int version_number(void)
{
    int major = 0, minor = 0, patch = 0;
    sscanf(RDB_UFFD_VERSION, "%d.%d.%d", &major, &minor, &patch);
    return major * 10000 + minor * 100 + patch;
}

/* The same number may mean something else to Redis. */
static bool server_saves_forkless(void)
{
    return strcmp(server_name, "valkey") == 0 && api.GetModuleOptionsAll &&
           (api.GetModuleOptionsAll() & API_OPTION_HANDLE_FORKLESS);
}

static int register_with_server(api_context *context, bool fault_points)
{
    api_event cron = {API_EVENT_CRON_LOOP, 1};
    api_event shutdown = {API_EVENT_SHUTDOWN, 1};
    api_event module_change = {API_EVENT_MODULE_CHANGE, 1};
    api.SetModuleOptions(context,
                         API_OPTION_HANDLE_IO_ERRORS | API_OPTION_HANDLE_REPL_ASYNC_LOAD |
                             API_OPTION_HANDLE_SLOT_MIGRATION |
                             (server_saves_forkless() ? API_OPTION_HANDLE_FORKLESS : 0));
    if (fault_points && api.CreateCommand(context, "uffd.fault", fault_command, "admin",
                                          0, 0, 0) != API_OK)
        return API_ERR;
    if (commands_register(context) != API_OK)
        return API_ERR;
    if (api.RegisterInfoFunc(context, info_fill) != API_OK)
        return API_ERR;
    if (api.SubscribeToServerEvent(context, module_change, on_module_change) != API_OK ||
        api.SubscribeToServerEvent(context, shutdown, on_shutdown) != API_OK)
        return API_ERR;
    return api.SubscribeToServerEvent(context, cron, on_cron);
}

#define KEEPS_FORKING "version " RDB_UFFD_VERSION ": background saves keep using fork: "

static void log_start(api_context *context)
{
    struct rdb_uffd_statistics now;
    rdb_uffd_get_statistics(&now);
    if (now.supported)
        api.Log(NULL, "notice",
                "uffd: version %s: background saves of %s %s without fork",
                RDB_UFFD_VERSION, server_name, server_version);
    /* What the doctor has no name for is told all the same. */
    if (!doctor_log_failures(context, now.supported ? "" : KEEPS_FORKING) &&
        !now.supported)
        api.Log(NULL, "warning", "uffd: " KEEPS_FORKING "%s", now.unsupported_reason);
    if (server_saves_forkless())
        api.Log(NULL, "notice",
                "uffd: saves that this server makes forkless by itself are left alone");
}

static int refuse_to_load(const char *why)
{
    api.Log(NULL, "warning", "uffd: cannot be loaded: %s", why);
    return API_ERR;
}

/* What is unloaded stays in memory (Makefile), and is what the loader finds again by the
 * same path, whatever lies there by now. */
static bool is_another_file(void)
{
    static struct stat loaded;
    struct stat now;
    Dl_info own;
    /* Of RedisModule_OnLoad() a server may have one itself, which would be found. */
    if (!dladdr((void *)is_another_file, &own) || stat(own.dli_fname, &now) != 0)
        return false;
    if (!loaded.st_ino)
        loaded = now;
    return now.st_dev != loaded.st_dev || now.st_ino != loaded.st_ino;
}

int RedisModule_OnLoad(api_context *context, api_string **arguments, int count)
{
    if (server_api_load(context) != API_OK)
        return API_ERR;
    api.SetModuleAttribs(context, MODULE_NAME, version_number(), API_VERSION);
    if (api.IsModuleNameBusy(MODULE_NAME))
        return refuse_to_load("it is loaded already");
    if (is_another_file())
        return refuse_to_load(
            "version " RDB_UFFD_VERSION " is in memory under this path, "
            "and another file lies there: load it by another path (with "
            "// for one of its /), or restart the server");
    int fault_points = fault_points_init();
    if (fault_points < 0)
        return refuse_to_load("RDB_UFFD_FAULT names no fault point");
    if (settings_load(context, arguments, count) != API_OK)
        return API_ERR;
    identify_server(context);
    read_cpus(context, "bgsave?cpulist", saver_cpus, sizeof(saver_cpus));
    read_cpus(context, "aof?rewrite?cpulist", rewriter_cpus, sizeof(rewriter_cpus));
    if (register_with_server(context, fault_points) != API_OK)
        return refuse_to_load("the server does not take its commands or callbacks");
    lasting_context = api.GetDetachedThreadSafeContext(context);
    ask_by(lasting_context);
    wake_begin();
    int error = rdb_uffd_start(&host, &settings);
    if (error) {
        wake_end();
        api.FreeThreadSafeContext(lasting_context);
        return refuse_to_load(strerror(-error));
    }
    scan_begin(context);
    log_start(context);
    return API_OK;
}

int RedisModule_OnUnload(api_context *context)
{
    (void)context;
    char reason[256];
    int error = rdb_uffd_stop(reason, sizeof(reason));
    if (!error) {
        scan_end();
        wake_end();
        api.FreeThreadSafeContext(lasting_context);
        return API_OK;
    }
    api.Log(NULL, "warning", "uffd: cannot be unloaded now: %s", reason);
    return API_ERR;
}
