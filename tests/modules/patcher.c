/* A module for the tests that stands in for a function which the server calls, as
 * tracers do: loaded with the function's name it calls on what it has found there, and
 * puts it back when it is unloaded. A second name is of a function in the library whose
 * calls are meant, instead of the server's own. */
#include <string.h>

#include "host/got.c"

typedef struct context context;
typedef struct string string;

typedef long function(long, long, long, long, long, long);

static struct got_patch patch;
static function *found;

/* Whatever its arguments are, as long as they are numbers and pointers. */
static long call_on(long a, long b, long c, long d, long e, long f)
{
    return found(a, b, c, d, e, f);
}

static const char *text_of(void *(*lookup), const string *text)
{
    int (*get_api)(const char *name, void *function);
    const char *(*pointer)(const string *, size_t *length);
    memcpy(&get_api, lookup, sizeof(get_api));
    get_api("RedisModule_StringPtrLen", &pointer);
    return pointer(text, NULL);
}

int RedisModule_OnLoad(context *loader, string **arguments, int count);
int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    void *lookup;
    int (*get_api)(const char *name, void *function);
    void (*set_attributes)(context *, const char *name, int version, int api);
    struct got_object caller;
    memcpy(&lookup, loader, sizeof(lookup));
    memcpy(&get_api, &lookup, sizeof(get_api));
    get_api("RedisModule_SetModuleAttribs", &set_attributes);
    set_attributes(loader, "patcher", 1, 1);
    void *library =
        count == 2 ? dlsym(RTLD_DEFAULT, text_of(&lookup, arguments[1])) : NULL;
    if (library ? got_find_object(library, &caller) : got_find_executable(&caller))
        return 1;
    static char symbol[64];
    strncpy(symbol, text_of(&lookup, arguments[0]), sizeof(symbol) - 1);
    /* Before it is called: the slot is patched with a value that is ready. */
    struct got_patch before;
    if (got_replace(&caller, symbol, (void *)call_on, &before) != 0)
        return 1;
    got_restore(&before);
    memcpy(&found, &before.previous[0], sizeof(found));
    return got_replace(&caller, symbol, (void *)call_on, &patch) != 0;
}

int RedisModule_OnUnload(context *unloader);
int RedisModule_OnUnload(context *unloader)
{
    (void)unloader;
    return got_restore(&patch) != 0;
}
