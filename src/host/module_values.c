#include "host/module_values.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "host/got.h"
#include "kernel/checked_read.h"
#include "kernel/contract.h"
#include "kernel/symbols.h"

/* In a list, and in a node of one. */
#define LIST_HEAD  0
#define NODE_NEXT  8
#define NODE_VALUE 16
/* In an entry of `modules`, where the server does not export dictGetVal. */
#define ENTRY_VALUE 8
/* Far more than a module has: a longer list is none. */
#define TYPES_MAX  10000
#define NAME_BYTES 65

typedef int (*set_value_function)(void *key, void *type, void *value);
typedef void *(*load_function)(void *io, int version);

static struct {
    void **modules; /* dict of name and module */
    void *(*dict_iterator)(void *dict);
    void *(*dict_next)(void *iterator);
    void (*dict_release)(void *iterator);
    char *(*dict_value)(const void *entry); /* NULL: before 7.2 */
} symbols;

static struct {
    const struct server_layout *layout;
    /* The one built-in type, NULL: there is none, or not just one. */
    char *type;
    load_function load;
    set_value_function *variable;
    set_value_function set_value;
    const char *in_use; /* why its values count, NULL: they do not */
    bool searching;     /* … as far as is known by now */
} watch;

/* Nothing that a table says is followed before it is proved. */
static int read_pointer(struct checked_reader *reader, const char *structure,
                        size_t offset, char **pointer)
{
    return checked_read(reader, pointer, (uintptr_t)structure + offset, sizeof(*pointer));
}

/* ---- the built-in type ----------------------------------------------------------- */

static int watching_set_value(void *key, void *type, void *value)
{
    if (type == watch.type)
        module_values_note("its values are in use");
    return watch.set_value(key, type, value);
}

static void *watching_load(void *io, int version)
{
    module_values_note("its values are in use");
    return watch.load(io, version);
}

/* Its own function that reads a value, by its name: what stands beside it does something
 * else, and is not to be exchanged. */
static bool is_built_in(struct checked_reader *reader, const char *type)
{
    Dl_info function, server_image;
    char *load;
    return read_pointer(reader, type, watch.layout->type_load, &load) == 0 &&
           dladdr(load, &function) && dladdr(symbols.modules, &server_image) &&
           function.dli_fbase == server_image.dli_fbase && function.dli_saddr == load &&
           function.dli_sname && strstr(function.dli_sname, "Load");
}

static void set_load(load_function load)
{
    memcpy(watch.type + watch.layout->type_load, &load, sizeof(load));
}

static void claim_variable(void)
{
    watch.set_value = *watch.variable;
    *watch.variable = watching_set_value;
}

static void begin(char *type)
{
    watch.type = type;
    memcpy(&watch.load, type + watch.layout->type_load, sizeof(watch.load));
    set_load(watching_load);
    claim_variable();
}

void module_values_note(const char *why)
{
    DEMAND_MAIN_THREAD();
    if (!watch.in_use)
        watch.in_use = why;
}

void module_values_search(bool under_way)
{
    DEMAND_MAIN_THREAD();
    watch.searching = under_way;
}

bool module_values_is_watching(void)
{
    return watch.type != NULL;
}

void module_values_modules_changed(void)
{
    DEMAND_MAIN_THREAD();
    if (watch.type && *watch.variable != watching_set_value)
        claim_variable();
}

/* ---- all types ------------------------------------------------------------------- */

/* Returns other than 0 to end the visit, which then returns it. */
typedef int (*type_visit)(struct checked_reader *reader, const char *module, char *type,
                          void *context);

/* A type belongs to the module in whose list it is. */
static int visit_type(struct checked_reader *reader, const char *module, const char *node,
                      type_visit visit, void *context)
{
    char *type, *owner;
    int error = read_pointer(reader, node, NODE_VALUE, &type);
    if (!error)
        error = read_pointer(reader, type, watch.layout->type_module, &owner);
    if (!error && owner != module)
        error = -EBADMSG;
    return error ? error : visit(reader, module, type, context);
}

static int visit_module(struct checked_reader *reader, const char *module,
                        type_visit visit, void *context)
{
    char *types, *node = NULL;
    int result = read_pointer(reader, module, watch.layout->module_types, &types);
    if (!result && types)
        result = read_pointer(reader, types, LIST_HEAD, &node);
    for (unsigned left = TYPES_MAX; !result && node; left--) {
        if (!left)
            return -EBADMSG;
        result = visit_type(reader, module, node, visit, context);
        if (!result)
            result = read_pointer(reader, node, NODE_NEXT, &node);
    }
    return result;
}

static char *module_in(struct checked_reader *reader, const char *entry)
{
    char *module = NULL;
    if (symbols.dict_value)
        return symbols.dict_value(entry);
    return read_pointer(reader, entry, ENTRY_VALUE, &module) == 0 ? module : NULL;
}

static int visit_types(type_visit visit, void *context)
{
    struct checked_reader reader;
    int result = checked_reader_open(&reader);
    if (result)
        return result;
    void *iterator = symbols.dict_iterator(*symbols.modules);
    for (char *entry; !result && (entry = symbols.dict_next(iterator));)
        result = visit_module(&reader, module_in(&reader, entry), visit, context);
    symbols.dict_release(iterator);
    checked_reader_close(&reader);
    return result;
}

static int find_built_in(struct checked_reader *reader, const char *module, char *type,
                         void *context)
{
    (void)module;
    char **found = context;
    if (!is_built_in(reader, type))
        return 0;
    if (*found)
        return -E2BIG;
    *found = type;
    return 0;
}

struct finding {
    char *reason;
    size_t size;
};

/* Cut off where it ends, or where it would be none. */
static void read_name(struct checked_reader *reader, const char *module, char *name)
{
    char *text;
    size_t length = 0;
    if (read_pointer(reader, module, watch.layout->module_name, &text) != 0)
        text = NULL;
    while (text && length < NAME_BYTES - 1 &&
           checked_read(reader, name + length, (uintptr_t)text + length, 1) == 0 &&
           name[length] > ' ' && name[length] < 127)
        length++;
    name[length] = '\0';
}

static int find_saved_by_fork(struct checked_reader *reader, const char *module,
                              char *type, void *context)
{
    struct finding *finding = context;
    char name[NAME_BYTES];
    read_name(reader, module, name);
    if (type != watch.type)
        snprintf(finding->reason, finding->size,
                 "module '%s' has data types, which only it can save", name);
    else if (watch.in_use)
        snprintf(finding->reason, finding->size,
                 "module '%s', which only can save them: %s", name, watch.in_use);
    else if (watch.searching)
        snprintf(finding->reason, finding->size,
                 "module '%s', which only can save its values: the keys are still "
                 "being looked through for some",
                 name);
    else
        return 0;
    return -ENOTSUP;
}

int module_values_find(char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    if (!watch.layout)
        return 0;
    if (watch.type && *watch.variable != watching_set_value)
        module_values_note("something else watches its values");
    struct finding finding = {reason, reason_size};
    int error = visit_types(find_saved_by_fork, &finding);
    if (error && error != -ENOTSUP) {
        snprintf(reason, reason_size, "the modules' types are not where they should be");
        error = -ENOTSUP;
    }
    return error;
}

/* ---- start and end --------------------------------------------------------------- */

static int find_symbols(void)
{
    const struct {
        const char *name;
        void *where;
    } wanted[] = {
        {"modules", &symbols.modules},
        {"dictGetSafeIterator", &symbols.dict_iterator},
        {"dictNext", &symbols.dict_next},
        {"dictReleaseIterator", &symbols.dict_release},
    };
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        void *found = symbol_find(wanted[i].name);
        if (!found)
            return -ENOENT;
        memcpy(wanted[i].where, &found, sizeof(found));
    }
    void *value = symbol_find("dictGetVal");
    memcpy(&symbols.dict_value, &value, sizeof(value));
    return 0;
}

int module_values_watch(const struct server_layout *layout)
{
    DEMAND_MAIN_THREAD();
    char *type = NULL;
    memset(&watch, 0, sizeof(watch));
    int error = find_symbols();
    if (error)
        return error;
    watch.layout = layout;
    watch.variable = symbol_find("RedisModule_ModuleTypeSetValue");
    error = visit_types(find_built_in, &type);
    if (!error && type && watch.variable && *watch.variable)
        begin(type);
    if (error && error != -E2BIG) {
        memset(&watch, 0, sizeof(watch));
        return error;
    }
    return 0;
}

int module_values_check(char *reason, size_t size)
{
    DEMAND_MAIN_THREAD();
    if (!watch.type)
        return 0;
    load_function load;
    memcpy(&load, watch.type + watch.layout->type_load, sizeof(load));
    set_value_function now = *watch.variable;
    if (load != watching_load && load != watch.load)
        got_tell_change("rdb_load", (const void *)load, reason, size);
    else if (now && now != watching_set_value && now != watch.set_value)
        got_tell_change("RedisModule_ModuleTypeSetValue", (const void *)now, reason,
                        size);
    else
        return 0;
    return -EBUSY;
}

void module_values_unwatch(void)
{
    DEMAND_MAIN_THREAD();
    if (!watch.type)
        return;
    set_load(watch.load);
    if (*watch.variable == watching_set_value)
        *watch.variable = watch.set_value;
    memset(&watch, 0, sizeof(watch));
}
