#include "ask.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static api_context *own_context;

void ask_by(api_context *lasting)
{
    own_context = lasting;
}

bool ask_database(int database)
{
    return api.SelectDb(own_context, database) == API_OK;
}

uint64_t ask_count(int database)
{
    if (api.SelectDb(own_context, database) != API_OK)
        return 0;
    return api.DbSize(own_context);
}

static enum rdb_uffd_key_type type_of(api_key *key)
{
    static const enum rdb_uffd_key_type types[] = {
        [API_KEY_TYPE_EMPTY] = RDB_UFFD_NO_KEY,
        [API_KEY_TYPE_STRING] = RDB_UFFD_STRING,
        [API_KEY_TYPE_LIST] = RDB_UFFD_LIST,
        [API_KEY_TYPE_HASH] = RDB_UFFD_HASH,
        [API_KEY_TYPE_SET] = RDB_UFFD_SET,
        [API_KEY_TYPE_SORTED_SET] = RDB_UFFD_SORTED_SET,
        [API_KEY_TYPE_MODULE] = RDB_UFFD_MODULE_VALUE,
        [API_KEY_TYPE_STREAM] = RDB_UFFD_STREAM,
    };
    unsigned type = key ? (unsigned)api.KeyType(key) : API_KEY_TYPE_EMPTY;
    return type < sizeof(types) / sizeof(types[0]) ? types[type] : RDB_UFFD_NO_KEY;
}

/* Servers before 7.2 know the first flag only, and pass over the others. */
static void ask_around(const char *name, size_t length, struct rdb_uffd_key_answer *said)
{
    api_string *text = api.CreateString(own_context, name, length);
    api_key *key = api.OpenKey(own_context, text,
                               API_OPEN_READ | API_OPEN_NO_TOUCH | API_OPEN_NO_NOTIFY |
                                   API_OPEN_NO_STATISTICS | API_OPEN_NO_EFFECTS);
    said->type = type_of(key);
    said->expire = key ? api.GetAbsExpire(key) : -1;
    if (key)
        api.CloseKey(key);
    api.FreeString(own_context, text);
}

/* DUMP may have been renamed, or the key be another node's. */
static void ask_value(const char *name, size_t length, struct rdb_uffd_key_answer *said)
{
    api_reply *reply = api.Call(own_context, "DUMP", "b", name, length);
    const char *value = NULL;
    if (reply && api.CallReplyType(reply) == API_REPLY_STRING)
        value = api.CallReplyStringPtr(reply, &said->value_length);
    if (!value)
        said->value_length = 0;
    if (said->value_length > said->room)
        said->value_length = said->room;
    if (value)
        memcpy(said->value, value, said->value_length);
    if (reply)
        api.FreeCallReply(reply);
}

void ask_key(int database, const void *name, size_t length,
             struct rdb_uffd_key_answer *said)
{
    said->value_length = 0;
    said->type = RDB_UFFD_NO_KEY;
    if (api.SelectDb(own_context, database) != API_OK)
        return;
    ask_around(name, length, said);
    if (said->type != RDB_UFFD_NO_KEY && said->room)
        ask_value(name, length, said);
}

static int64_t field_of(api_server_info *info, const char *name)
{
    const char *text = api.ServerInfoGetFieldC(info, name);
    return text ? strtoll(text, NULL, 10) : -1;
}

void ask_clocks(int64_t *unix_time, int64_t *lru_clock)
{
    api_server_info *info = api.GetServerInfo(own_context, "server");
    int64_t usec = field_of(info, "server_time_usec");
    *unix_time = usec < 0 ? -1 : usec / 1000000;
    *lru_clock = field_of(info, "lru_clock");
    api.FreeServerInfo(own_context, info);
}

/* One line a client, with " fd=9 " in it. */
static bool has_descriptor(const char *list, size_t length, int descriptor)
{
    char wanted[32];
    int bytes = snprintf(wanted, sizeof(wanted), " fd=%d ", descriptor);
    return memmem(list, length, wanted, (size_t)bytes) != NULL;
}

bool ask_replica(int descriptor)
{
    size_t length = 0;
    api_reply *reply = api.Call(own_context, "CLIENT", "ccc", "LIST", "TYPE", "REPLICA");
    const char *list = reply && api.CallReplyType(reply) == API_REPLY_STRING
                           ? api.CallReplyStringPtr(reply, &length)
                           : NULL;
    bool found = list && has_descriptor(list, length, descriptor);
    if (reply)
        api.FreeCallReply(reply);
    return found;
}
