#include "server_api.h"

struct server_api api;

typedef int (*lookup_function)(const char *name, void *where);

int server_api_load(api_context *context)
{
    lookup_function lookup = ((lookup_function *)(void *)context)[0];
#define API_LOOKUP(type, name, arguments)                                                \
    if (lookup("RedisModule_" #name, &api.name) != API_OK)                               \
        return API_ERR;
    SERVER_API(API_LOOKUP)
#undef API_LOOKUP
#define API_LOOKUP(type, name, arguments)                                                \
    if (lookup("RedisModule_" #name, &api.name) != API_OK)                               \
        api.name = NULL;
    OPTIONAL_SERVER_API(API_LOOKUP)
#undef API_LOOKUP
    return API_OK;
}
