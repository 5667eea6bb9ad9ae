/* The server's module API, as far as it is used here.
 *
 * The ABI is reached by name: the server passes a lookup function in the first
 * word of the context given to RedisModule_OnLoad(). Redis and Valkey answer to
 * the same names.
 */
#ifndef RDB_UFFD_MODULE_SERVER_API_H
#define RDB_UFFD_MODULE_SERVER_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define API_OK                            0
#define API_ERR                           1
#define API_VERSION                       1
#define API_CONFIG_DEFAULT                0
#define API_CONFIG_IMMUTABLE              1
#define API_CONFIG_PROTECTED              (1 << 5) /* enable-protected-configs */
#define API_OPTION_HANDLE_IO_ERRORS       (1 << 0)
#define API_OPTION_HANDLE_REPL_ASYNC_LOAD (1 << 2)
#define API_OPTION_HANDLE_SLOT_MIGRATION  (1 << 5) /* Valkey 9: a must for MIGRATESLOTS */
/* Valkey 9.2: a must of every module, or the server gives its own forkless saves up. By its
 * documentation it promises that a key that cannot be opened for writing is put up with, and
 * that values are saved by any thread; we open keys for reading only, look whether we got
 * one, and have no type. The number is the one that follows Valkey 9.1's last. */
#define API_OPTION_HANDLE_FORKLESS (1 << 6)
#define API_EVENT_SHUTDOWN         5
#define API_EVENT_CRON_LOOP        8
#define API_EVENT_MODULE_CHANGE    9
#define API_KEY_TYPE_EMPTY         0
#define API_KEY_TYPE_STRING        1
#define API_KEY_TYPE_LIST          2
#define API_KEY_TYPE_HASH          3
#define API_KEY_TYPE_SET           4
#define API_KEY_TYPE_SORTED_SET    5
#define API_KEY_TYPE_MODULE        6
#define API_KEY_TYPE_STREAM        7
#define API_OPEN_READ              (1 << 0)
#define API_OPEN_NO_TOUCH          (1 << 16)
#define API_OPEN_NO_NOTIFY         (1 << 17)
#define API_OPEN_NO_STATISTICS     (1 << 18)
#define API_OPEN_NO_EFFECTS        (1 << 20)
#define API_REPLY_STRING           0
#define API_CONTEXT_LUA            (1 << 0)
#define API_CONTEXT_MULTI          (1 << 1)
#define API_CONTEXT_ACTIVE_CHILD   (1 << 18)
#define API_CONTEXT_DENY_BLOCKING  (1 << 21)
#define API_CONTEXT_RESP3          (1 << 22)

typedef struct api_context api_context;
typedef struct api_string api_string;
typedef struct api_info api_info;
typedef struct api_reply api_reply;
typedef struct api_server_info api_server_info;
typedef struct api_key api_key;
typedef struct api_scan_cursor api_scan_cursor;
typedef struct api_registered_command api_registered_command;
typedef struct api_blocked_client api_blocked_client;

typedef struct {
    uint64_t id;
    uint64_t data_version;
} api_event;

typedef int (*api_command)(api_context *, api_string **arguments, int count);
typedef void (*api_free_data)(api_context *, void *data);
typedef api_string *(*api_get_string)(const char *name, void *data);
typedef int (*api_set_string)(const char *name, api_string *value, void *data,
                              api_string **error);
typedef int (*api_get_int)(const char *name, void *data);
typedef int (*api_set_int)(const char *name, int value, void *data, api_string **error);
typedef long long (*api_get_number)(const char *name, void *data);
typedef int (*api_set_number)(const char *name, long long value, void *data,
                              api_string **error);
typedef int (*api_apply)(api_context *, void *data, api_string **error);
typedef void (*api_on_event)(api_context *, api_event event, uint64_t sub_event,
                             void *data);
typedef void (*api_on_descriptor)(int descriptor, void *data, int mask);
typedef void (*api_on_key)(api_context *, api_string *name, api_key *, void *data);
typedef void (*api_on_info)(api_info *, int for_crash_report);

/* What COMMAND DOCS says of a command. The server is told the sizes of the structures,
 * so that later servers may add fields. */
#define API_EVENT_LOOP_READABLE 1

enum api_argument_type { API_ARGUMENT_STRING, API_ARGUMENT_INTEGER };
#define API_ARGUMENT_OPTIONAL (1 << 0)

struct api_argument {
    const char *name;
    enum api_argument_type type;
    int key_spec; /* -1: it is no key */
    const char *token;
    const char *summary;
    const char *since;
    int flags;
    const char *deprecated_since;
    struct api_argument *parts;
};

struct api_information_version {
    int version;
    size_t history_entry_bytes;
    size_t key_spec_bytes;
    size_t argument_bytes;
};

struct api_information {
    const struct api_information_version *version;
    const char *summary;
    const char *complexity;
    const char *since;
    const void *history;
    const char *tips;
    int arity; /* with the command's name; -n: n or more */
    const void *key_specs;
    struct api_argument *arguments; /* ends with one without a name */
};

/* X(return type, name, arguments) */
#define SERVER_API(X)                                                                    \
    X(void, SetModuleAttribs, (api_context *, const char *name, int version, int api))   \
    X(int, IsModuleNameBusy, (const char *name))                                         \
    X(void, SetModuleOptions, (api_context *, int options))                              \
    X(void, Log, (api_context *, const char *level, const char *format, ...))            \
    X(int, CreateCommand,                                                                \
      (api_context *, const char *name, api_command, const char *flags, int first_key,   \
       int last_key, int key_step))                                                      \
    X(api_registered_command *, GetCommand, (api_context *, const char *name))           \
    X(int, SetCommandInfo, (api_registered_command *, const struct api_information *))   \
    X(int, GetContextFlags, (api_context *))                                             \
    X(int, WrongArity, (api_context *))                                                  \
    X(int, ReplyWithMap, (api_context *, long count))                                    \
    X(void, ReplySetMapLength, (api_context *, long count))                              \
    X(int, ReplyWithArray, (api_context *, long count))                                  \
    X(int, ReplyWithCString, (api_context *, const char *))                              \
    X(int, ReplyWithDouble, (api_context *, double))                                     \
    X(int, ReplyWithNull, (api_context *))                                               \
    X(api_blocked_client *, BlockClient,                                                 \
      (api_context *, api_command reply, api_command on_timeout, api_free_data,          \
       long long timeout_msec))                                                          \
    X(int, UnblockClient, (api_blocked_client *, void *data))                            \
    X(void *, GetBlockedClientPrivateData, (api_context *))                              \
    X(int, ReplyWithLongLong, (api_context *, long long))                                \
    X(int, StringToLongLong, (const api_string *, long long *))                          \
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
    X(int, RegisterNumericConfig,                                                        \
      (api_context *, const char *name, long long initial, unsigned flags,               \
       long long least, long long most, api_get_number, api_set_number, api_apply,       \
       void *data))                                                                      \
    X(int, LoadConfigs, (api_context *))                                                 \
    X(int, RegisterInfoFunc, (api_context *, api_on_info))                               \
    X(int, InfoAddSection, (api_info *, const char *))                                   \
    X(int, InfoAddFieldCString, (api_info *, const char *, const char *))                \
    X(int, InfoAddFieldULongLong, (api_info *, const char *, unsigned long long))        \
    X(api_server_info *, GetServerInfo, (api_context *, const char *section))            \
    X(void, FreeServerInfo, (api_context *, api_server_info *))                          \
    X(const char *, ServerInfoGetFieldC, (api_server_info *, const char *field))         \
    X(api_reply *, Call, (api_context *, const char *command, const char *format, ...))  \
    X(int, CallReplyType, (api_reply *))                                                 \
    X(api_reply *, CallReplyArrayElement, (api_reply *, size_t))                         \
    X(const char *, CallReplyStringPtr, (api_reply *, size_t * length))                  \
    X(void, FreeCallReply, (api_reply *))                                                \
    X(int, SelectDb, (api_context *, int database))                                      \
    X(unsigned long long, DbSize, (api_context *))                                       \
    X(api_context *, GetDetachedThreadSafeContext, (api_context *))                      \
    X(void, FreeThreadSafeContext, (api_context *))                                      \
    X(api_key *, OpenKey, (api_context *, api_string * name, int mode))                  \
    X(void, CloseKey, (api_key *))                                                       \
    X(long long, GetAbsExpire, (api_key *))                                              \
    X(void *, ModuleTypeGetType, (api_key *))                                            \
    X(int, KeyType, (api_key *))                                                         \
    X(api_scan_cursor *, ScanCursorCreate, (void))                                       \
    X(void, ScanCursorDestroy, (api_scan_cursor *))                                      \
    X(int, Scan, (api_context *, api_scan_cursor *, api_on_key, void *data))             \
    X(int, EventLoopAdd, (int descriptor, int mask, api_on_descriptor, void *data))      \
    X(int, EventLoopDel, (int descriptor, int mask))                                     \
    X(int, SubscribeToServerEvent, (api_context *, api_event, api_on_event))

/* The same for what older servers lack: NULL there. Since Redis 7.2: */
#define OPTIONAL_SERVER_API(X)                                                           \
    X(int, SetCommandACLCategories, (api_registered_command *, const char *categories))  \
    X(int, GetModuleOptionsAll, (void))

/* Each function by its name in the server: api.Log(...) */
struct server_api {
#define API_MEMBER(type, name, arguments) type(*name) arguments;
    SERVER_API(API_MEMBER)
    OPTIONAL_SERVER_API(API_MEMBER)
#undef API_MEMBER
};
extern struct server_api api;

/* A setting of the server by its name, or by a pattern that fits one only. False when
 * there is none, or it does not fit. Main thread. */
bool server_api_setting(api_context *context, const char *name, char *value, size_t size);

/* Looks every name up. API_ERR when the server lacks one that is not optional (it is
 * older than 7.0). */
int server_api_load(api_context *context);

#endif
