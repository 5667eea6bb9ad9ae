#include "server_api.h"

#include <stdio.h>

struct server_api api;

typedef int (*lookup_function)(const char *name, void *where);

bool server_api_setting(api_context *context, const char *name, char *value, size_t size)
{
    api_reply *reply = api.Call(context, "CONFIG", "cc", "GET", name);
    api_reply *found = reply ? api.CallReplyArrayElement(reply, 1) : NULL;
    size_t length = 0;
    const char *text = found ? api.CallReplyStringPtr(found, &length) : NULL;
    bool fits = text && length < size;
    if (fits)
        snprintf(value, size, "%.*s", (int)length, text);
    if (reply)
        api.FreeCallReply(reply);
    return fits;
}

static int tell_missing(const char *name)
{
    if (api.Log)
        api.Log(NULL, "warning",
                "uffd: cannot be loaded: the server has no %s; it is older than 7.0",
                name);
    return API_ERR;
}

int server_api_load(api_context *context)
{
    lookup_function lookup = ((lookup_function *)(void *)context)[0];
#define API_LOOKUP(type, name, arguments)                                                \
    if (lookup("RedisModule_" #name, &api.name) != API_OK)                               \
        return tell_missing(#name);
    SERVER_API(API_LOOKUP)
#undef API_LOOKUP
#define API_LOOKUP(type, name, arguments)                                                \
    if (lookup("RedisModule_" #name, &api.name) != API_OK)                               \
        api.name = NULL;
    OPTIONAL_SERVER_API(API_LOOKUP)
#undef API_LOOKUP
    return API_OK;
}
