/* Loading and unloading: the module as the server sees it. */
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "info.h"
#include "kernel/fault_points.h"
#include "rdb_uffd.h"
#include "server_api.h"
#include "settings.h"

#define MODULE_NAME    "uffd"
#define MODULE_VERSION 1

__attribute__((visibility("default"))) int
RedisModule_OnLoad(api_context *context, api_string **arguments, int count);
__attribute__((visibility("default"))) int RedisModule_OnUnload(api_context *context);

static char server_name[16];
static char server_version[32];
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

static struct rdb_uffd_host host = {
    .log = log_line,
    .memory_in_use = memory_in_use,
    .server_name = server_name,
    .server_version = server_version,
};

/* Valkey reports the Redis version it is compatible with as well. */
static void identify_server(api_context *context)
{
    api_server_info *info = api.GetServerInfo(context, "server");
    const char *version = api.ServerInfoGetFieldC(info, "valkey_version");
    snprintf(server_name, sizeof(server_name), "%s", version ? "valkey" : "redis");
    if (!version)
        version = api.ServerInfoGetFieldC(info, "redis_version");
    snprintf(server_version, sizeof(server_version), "%s", version ? version : "unknown");
    api.FreeServerInfo(context, info);
    used_memory = (uint64_t(*)(void))dlsym(RTLD_DEFAULT, "zmalloc_used_memory");
}

static void on_cron(api_context *context, api_event event, uint64_t sub_event, void *data)
{
    (void)context, (void)event, (void)sub_event, (void)data;
    rdb_uffd_tick();
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

static int register_with_server(api_context *context, bool fault_points)
{
    api_event cron = {API_EVENT_CRON_LOOP, 1};
    api.SetModuleOptions(context,
                         API_OPTION_HANDLE_IO_ERRORS | API_OPTION_HANDLE_REPL_ASYNC_LOAD);
    if (fault_points && api.CreateCommand(context, "uffd.fault", fault_command, "admin",
                                          0, 0, 0) != API_OK)
        return API_ERR;
    if (api.RegisterInfoFunc(context, info_fill) != API_OK)
        return API_ERR;
    return api.SubscribeToServerEvent(context, cron, on_cron);
}

static void log_start(void)
{
    struct rdb_uffd_statistics now;
    rdb_uffd_get_statistics(&now);
    if (now.supported)
        api.Log(NULL, "notice",
                "uffd: version %s: background saves of %s %s without fork",
                RDB_UFFD_VERSION, server_name, server_version);
    else
        api.Log(NULL, "warning", "uffd: version %s: background saves keep using fork: %s",
                RDB_UFFD_VERSION, now.unsupported_reason);
}

int RedisModule_OnLoad(api_context *context, api_string **arguments, int count)
{
    if (server_api_load(context) != API_OK)
        return API_ERR;
    api.SetModuleAttribs(context, MODULE_NAME, MODULE_VERSION, API_VERSION);
    if (api.IsModuleNameBusy(MODULE_NAME))
        return API_ERR;
    bool fault_points = fault_points_init();
    if (settings_load(context, arguments, count) != API_OK)
        return API_ERR;
    identify_server(context);
    if (register_with_server(context, fault_points) != API_OK)
        return API_ERR;
    int error = rdb_uffd_start(&host, &settings);
    if (error) {
        api.Log(NULL, "warning", "uffd: cannot start: %s", strerror(-error));
        return API_ERR;
    }
    log_start();
    return API_OK;
}

int RedisModule_OnUnload(api_context *context)
{
    (void)context;
    int error = rdb_uffd_stop();
    if (!error)
        return API_OK;
    api.Log(NULL, "warning", "uffd: cannot be unloaded now: %s",
            error == -EBUSY ? "a background save is running" : strerror(-error));
    return API_ERR;
}
