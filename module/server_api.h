/* The server's module API, as far as it is used here.
 *
 * The ABI is reached by name: the server passes a lookup function in the first
 * word of the context given to RedisModule_OnLoad(). Redis and Valkey answer to
 * the same names.
 */
#ifndef RDB_UFFD_MODULE_SERVER_API_H
#define RDB_UFFD_MODULE_SERVER_API_H

#include <stddef.h>
#include <stdint.h>

#define API_OK                            0
#define API_ERR                           1
#define API_VERSION                       1
#define API_CONFIG_DEFAULT                0
#define API_OPTION_HANDLE_IO_ERRORS       (1 << 0)
#define API_OPTION_HANDLE_REPL_ASYNC_LOAD (1 << 2)
#define API_EVENT_CRON_LOOP               8

typedef struct api_context api_context;
typedef struct api_string api_string;
typedef struct api_info api_info;
typedef struct api_server_info api_server_info;

typedef struct {
    uint64_t id;
    uint64_t data_version;
} api_event;

typedef int (*api_command)(api_context *, api_string **arguments, int count);
typedef api_string *(*api_get_string)(const char *name, void *data);
typedef int (*api_set_string)(const char *name, api_string *value, void *data,
                              api_string **error);
typedef int (*api_get_int)(const char *name, void *data);
typedef int (*api_set_int)(const char *name, int value, void *data, api_string **error);
typedef int (*api_apply)(api_context *, void *data, api_string **error);
typedef void (*api_on_event)(api_context *, api_event event, uint64_t sub_event,
                             void *data);
typedef void (*api_on_info)(api_info *, int for_crash_report);

/* X(return type, name, arguments) */
#define SERVER_API(X)                                                                    \
    X(void, SetModuleAttribs, (api_context *, const char *name, int version, int api))   \
    X(int, IsModuleNameBusy, (const char *name))                                         \
    X(void, SetModuleOptions, (api_context *, int options))                              \
    X(void, Log, (api_context *, const char *level, const char *format, ...))            \
    X(int, CreateCommand,                                                                \
      (api_context *, const char *name, api_command, const char *flags, int first_key,   \
       int last_key, int key_step))                                                      \
    X(int, WrongArity, (api_context *))                                                  \
    X(int, ReplyWithError, (api_context *, const char *))                                \
    X(int, ReplyWithSimpleString, (api_context *, const char *))                         \
    X(api_string *, CreateString, (api_context *, const char *, size_t))                 \
    X(void, FreeString, (api_context *, api_string *))                                   \
    X(const char *, StringPtrLen, (const api_string *, size_t *))                        \
    X(int, RegisterStringConfig,                                                         \
      (api_context *, const char *name, const char *initial, unsigned flags,             \
       api_get_string, api_set_string, api_apply, void *data))                           \
    X(int, RegisterBoolConfig,                                                           \
      (api_context *, const char *name, int initial, unsigned flags, api_get_int,        \
       api_set_int, api_apply, void *data))                                              \
    X(int, RegisterEnumConfig,                                                           \
      (api_context *, const char *name, int initial, unsigned flags, const char **names, \
       const int *values, int count, api_get_int, api_set_int, api_apply, void *data))   \
    X(int, LoadConfigs, (api_context *))                                                 \
    X(int, RegisterInfoFunc, (api_context *, api_on_info))                               \
    X(int, InfoAddSection, (api_info *, const char *))                                   \
    X(int, InfoAddFieldCString, (api_info *, const char *, const char *))                \
    X(int, InfoAddFieldULongLong, (api_info *, const char *, unsigned long long))        \
    X(api_server_info *, GetServerInfo, (api_context *, const char *section))            \
    X(void, FreeServerInfo, (api_context *, api_server_info *))                          \
    X(const char *, ServerInfoGetFieldC, (api_server_info *, const char *field))         \
    X(int, SubscribeToServerEvent, (api_context *, api_event, api_on_event))

/* Each function by its name in the server: api.Log(...) */
struct server_api {
#define API_MEMBER(type, name, arguments) type(*name) arguments;
    SERVER_API(API_MEMBER)
#undef API_MEMBER
};
extern struct server_api api;

/* Looks every name up. API_ERR when the server lacks one (older than 7.0). */
int server_api_load(api_context *context);

#endif
