/* A module for the tests, with a data type of its own whose values and aux fields
 * only it can save; loaded with the argument "untyped" it has a command and no
 * type. The API is reached by name, as in module/server_api.h.
 *
 *   TYPED.SET key text      TYPED.GET key
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct context context;
typedef struct string string;
typedef struct key key;
typedef struct io io;
typedef struct type type;

/* As the server reads it, in version 2. */
struct type_methods {
    uint64_t version;
    void *(*load)(io *, int encoding_version);
    void (*save)(io *, void *value);
    void (*rewrite)(io *, string *name, void *value);
    size_t (*memory)(const void *value);
    void (*digest)(void *digest, void *value);
    void (*free)(void *value);
    int (*aux_load)(io *, int encoding_version, int when);
    void (*aux_save)(io *, int when);
    int aux_save_triggers;
};

#define AUX_BEFORE_AND_AFTER 3
#define READ_AND_WRITE       3

static int (*get_api)(const char *name, void *function);
static void (*set_attributes)(context *, const char *name, int version, int api);
static int (*create_command)(context *, const char *name,
                             int (*)(context *, string **, int), const char *flags, int,
                             int, int);
static type *(*create_type)(context *, const char *name, int version, void *methods);
static key *(*open_key)(context *, string *name, int mode);
static void (*close_key)(key *);
static int (*set_value)(key *, type *, void *value);
static void *(*get_value)(key *);
static const char *(*text_of)(const string *, size_t *length);
static int (*reply_text)(context *, const char *text);
static int (*reply_null)(context *);
static int (*replicate)(context *);
static void (*save_text)(io *, const char *text, size_t length);
static char *(*load_text)(io *, size_t *length);
static void (*save_number)(io *, uint64_t);
static uint64_t (*load_number)(io *);
static void (*emit)(io *, const char *command, const char *format, ...);

static type *text_type;

static void *load(io *from, int version)
{
    (void)version;
    size_t length;
    char *loaded = load_text(from, &length);
    return loaded ? strndup(loaded, length) : NULL;
}

static void save(io *to, void *value)
{
    save_text(to, value, strlen(value));
}

static void rewrite(io *to, string *name, void *value)
{
    emit(to, "typed.set", "sc", name, value);
}

static int load_aux(io *from, int version, int when)
{
    (void)version, (void)when;
    return load_number(from) == 4711 ? 0 : 1;
}

static void save_aux(io *to, int when)
{
    (void)when;
    save_number(to, 4711);
}

static int set(context *caller, string **arguments, int count)
{
    if (count != 3)
        return 1;
    key *opened = open_key(caller, arguments[1], READ_AND_WRITE);
    size_t length;
    const char *text = text_of(arguments[2], &length);
    set_value(opened, text_type, strndup(text, length));
    close_key(opened);
    replicate(caller);
    return reply_text(caller, "OK");
}

static int get(context *caller, string **arguments, int count)
{
    if (count != 2)
        return 1;
    key *opened = open_key(caller, arguments[1], 1);
    const char *value = opened ? get_value(opened) : NULL;
    int result = value ? reply_text(caller, value) : reply_null(caller);
    if (opened)
        close_key(opened);
    return result;
}

static int ping(context *caller, string **arguments, int count)
{
    (void)arguments, (void)count;
    return reply_text(caller, "PONG");
}

static int find_functions(void *lookup)
{
    memcpy(&get_api, &lookup, sizeof(get_api));
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"RedisModule_SetModuleAttribs", &set_attributes},
        {"RedisModule_CreateCommand", &create_command},
        {"RedisModule_CreateDataType", &create_type},
        {"RedisModule_OpenKey", &open_key},
        {"RedisModule_CloseKey", &close_key},
        {"RedisModule_ModuleTypeSetValue", &set_value},
        {"RedisModule_ModuleTypeGetValue", &get_value},
        {"RedisModule_StringPtrLen", &text_of},
        {"RedisModule_ReplyWithCString", &reply_text},
        {"RedisModule_ReplyWithNull", &reply_null},
        {"RedisModule_ReplicateVerbatim", &replicate},
        {"RedisModule_SaveStringBuffer", &save_text},
        {"RedisModule_LoadStringBuffer", &load_text},
        {"RedisModule_SaveUnsigned", &save_number},
        {"RedisModule_LoadUnsigned", &load_number},
        {"RedisModule_EmitAOF", &emit},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (get_api(wanted[i].name, wanted[i].function) != 0)
            return 1;
    return 0;
}

int RedisModule_OnLoad(context *loader, string **arguments, int count);
int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    void *lookup;
    memcpy(&lookup, loader, sizeof(lookup));
    if (find_functions(lookup))
        return 1;
    set_attributes(loader, "typed", 1, 1);
    size_t length;
    if (count == 1 && strcmp(text_of(arguments[0], &length), "untyped") == 0)
        return create_command(loader, "typed.ping", ping, "readonly", 0, 0, 0);
    struct type_methods methods = {.version = 2,
                                   .load = load,
                                   .save = save,
                                   .rewrite = rewrite,
                                   .free = free,
                                   .aux_load = load_aux,
                                   .aux_save = save_aux,
                                   .aux_save_triggers = AUX_BEFORE_AND_AFTER};
    text_type = create_type(loader, "typedtext", 1, &methods);
    if (!text_type)
        return 1;
    if (create_command(loader, "typed.set", set, "write", 1, 1, 1))
        return 1;
    return create_command(loader, "typed.get", get, "readonly", 1, 1, 1);
}
