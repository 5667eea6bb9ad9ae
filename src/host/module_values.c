#include "host/module_values.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "host/got.h"
#include "host/module_types.h"
#include "kernel/contract.h"
#include "kernel/image.h"
#include "kernel/symbols.h"

typedef int (*set_value_function)(void *key, void *type, void *value);

#define WATCHED_MAX   64
#define VARIABLES_MAX 256

static struct {
    const struct server_layout *layout;
    struct watched {
        char *type;
        module_type_load load;
        bool seen; /* its module's variable is watched: new values are noted */
    } types[WATCHED_MAX];
    size_t count;
    set_value_function *variables[VARIABLES_MAX];
    size_t variable_count;
    bool searching; /* the keys that were there before us are being looked through */
} watch;

/* The server's own. Whoever has copied ours from a variable calls it for as long as the
 * process lives. */
static set_value_function set_value;

/* How many have come to be, and the type of the last of them. */
static _Atomic uint64_t values_made;
static _Atomic(const void *) last_type;

void module_values_note(const void *type)
{
    if (type)
        atomic_store_explicit(&last_type, type, memory_order_relaxed);
    atomic_fetch_add_explicit(&values_made, 1, memory_order_release);
}

/* ---- by a command ---------------------------------------------------------------- */

static int watching_set_value(void *key, void *type, void *value)
{
    module_values_note(type);
    return set_value(key, type, value);
}

static bool claim_variable(uintptr_t *word, void *context)
{
    (void)context;
    if (watch.variable_count == VARIABLES_MAX)
        return false;
    set_value_function *variable = (set_value_function *)word;
    watch.variables[watch.variable_count++] = variable;
    *variable = watching_set_value;
    return true;
}

static void claim_variables(const void *inside)
{
    if (set_value)
        image_find(inside, (uintptr_t)set_value, claim_variable, NULL);
}

/* Where the server has a variable by the same name, a module may be linked with that: as
 * all were before headers said otherwise. */
static bool is_linked_with(const void *variable, const void *function)
{
    return image_is_same(variable, (const void *)set_value) &&
           image_refers(function, variable);
}

static bool is_seen(const void *function)
{
    for (size_t i = 0; i < watch.variable_count; i++)
        if (image_is_same(watch.variables[i], function) ||
            is_linked_with(watch.variables[i], function))
            return true;
    return false;
}

/* ---- by loading ------------------------------------------------------------------ */

static void *watched_load(size_t number, void *io, int version)
{
    const struct watched *watched = &watch.types[number];
    module_values_note(watched->type);
    return watched->load(io, version);
}

/* A function for each type, since none is told for which it is called. */
#define EACH_OF_8(X, tens)                                                               \
    X(tens##0)                                                                           \
    X(tens##1)                                                                           \
    X(tens##2)                                                                           \
    X(tens##3) X(tens##4) X(tens##5) X(tens##6) X(tens##7)
#define EACH_OF_64(X)                                                                    \
    EACH_OF_8(X, 0)                                                                      \
    EACH_OF_8(X, 01)                                                                     \
    EACH_OF_8(X, 02)                                                                     \
    EACH_OF_8(X, 03)                                                                     \
    EACH_OF_8(X, 04) EACH_OF_8(X, 05) EACH_OF_8(X, 06) EACH_OF_8(X, 07)
#define LOAD(octal)                                                                      \
    static void *load_##octal(void *io, int version)                                     \
    {                                                                                    \
        return watched_load(octal, io, version);                                         \
    }
#define LOAD_NAME(octal) load_##octal,
EACH_OF_64(LOAD)
static const module_type_load watching_load[WATCHED_MAX] = {EACH_OF_64(LOAD_NAME)};

/* Where the offset of a layout file is wrong another callback stands there: whoever is not
 * named so is not exchanged for one that loads. */
static bool is_load(module_type_load load)
{
    Dl_info function;
    if (watch.layout->keyspace != KEYSPACE_OF_FILE)
        return true;
    return dladdr((const void *)load, &function) && function.dli_sname &&
           strcasestr(function.dli_sname, "load");
}

/* ---- types ----------------------------------------------------------------------- */

static struct watched *watched_type(const char *type)
{
    for (size_t i = 0; i < watch.count; i++)
        if (watch.types[i].type == type)
            return &watch.types[i];
    return NULL;
}

static int watch_type(const struct module_type *found, void *context)
{
    (void)context;
    struct watched *watched = watched_type(found->type);
    if (!watched && watch.count < WATCHED_MAX && found->load && is_load(found->load)) {
        watched = &watch.types[watch.count];
        *watched = (struct watched){.type = found->type, .load = found->load};
        module_type_set_load(watch.layout, found->type, watching_load[watch.count++]);
    }
    if (watched) {
        claim_variables((const void *)watched->load);
        watched->seen = is_seen((const void *)watched->load);
    }
    return 0;
}

void module_values_modules_changed(void)
{
    DEMAND_MAIN_THREAD();
    if (!watch.layout)
        return;
    claim_variables((const void *)set_value);
    module_types_visit(watch.layout, watch_type, NULL);
}

static int count_type(const struct module_type *found, void *context)
{
    (void)found;
    ++*(size_t *)context;
    return 0;
}

bool module_values_are_possible(void)
{
    DEMAND_MAIN_THREAD();
    size_t count = 0;
    return watch.layout && module_types_visit(watch.layout, count_type, &count) == 0 &&
           count;
}

void module_values_search(bool under_way)
{
    DEMAND_MAIN_THREAD();
    watch.searching = under_way;
}

/* ---- do they matter? ------------------------------------------------------------- */

struct finding {
    char *reason;
    size_t size;
    bool matters;
};

/* As it was visited last. */
static struct {
    uint64_t types[MODULE_TYPES_MAX];
    size_t count; /* may be more than there is room for */
} seen;

static int find_that_matters(const struct module_type *found, void *context)
{
    struct finding *finding = context;
    if (seen.count < MODULE_TYPES_MAX)
        seen.types[seen.count] = (uint64_t)(uintptr_t)found->type;
    seen.count++;
    if (finding->matters)
        return 0;
    finding->matters = true;
    const struct watched *watched = watched_type(found->type);
    const void *last = atomic_load_explicit(&last_type, memory_order_relaxed);
    char name[MODULE_NAME_BYTES];
    module_type_tell_module(watch.layout, found, name);
    if (last == found->type)
        snprintf(finding->reason, finding->size,
                 "values of module '%s' exist, which only it can save", name);
    else if (found->writes_aux)
        snprintf(finding->reason, finding->size,
                 "module '%s' writes data of its own into every dump", name);
    else if (!watched || !watched->seen)
        snprintf(finding->reason, finding->size,
                 "module '%s' has data types, and new values would not be noticed", name);
    else if (watch.searching)
        snprintf(finding->reason, finding->size,
                 "module '%s' has data types: the keys are still being looked through "
                 "for values",
                 name);
    else
        finding->matters = false;
    return 0;
}

size_t module_values_types(uint64_t *types, size_t most)
{
    DEMAND_MAIN_THREAD();
    if (seen.count > most || seen.count > MODULE_TYPES_MAX)
        return 0;
    memcpy(types, seen.types, seen.count * sizeof(*types));
    return seen.count;
}

int module_values_find(char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    if (!watch.layout)
        return 0;
    struct finding finding = {reason, reason_size, false};
    seen.count = 0;
    int error = module_types_visit(watch.layout, find_that_matters, &finding);
    if (!error && finding.matters)
        return -ENOTSUP;
    if (error)
        snprintf(reason, reason_size, "the modules' types are not where they should be");
    else if (atomic_load_explicit(&values_made, memory_order_acquire))
        snprintf(reason, reason_size, "a save has met a value of a module's type");
    else
        return 0;
    return -ENOTSUP;
}

/* ---- start and end --------------------------------------------------------------- */

int module_values_watch(const struct server_layout *layout)
{
    DEMAND_MAIN_THREAD();
    memset(&watch, 0, sizeof(watch));
    atomic_store_explicit(&values_made, 0, memory_order_relaxed);
    atomic_store_explicit(&last_type, NULL, memory_order_relaxed);
    void *function = symbol_find("RM_ModuleTypeSetValue");
    if (!function)
        function = symbol_find("VM_ModuleTypeSetValue");
    memcpy(&set_value, &function, sizeof(function));
    int error = module_types_find_server();
    if (error)
        return error;
    size_t count = 0;
    error = module_types_visit(layout, count_type, &count);
    if (error)
        return error;
    watch.layout = layout;
    module_values_modules_changed();
    return 0;
}

static bool is_ours_or(const void *now, const void *ours, const void *before)
{
    return now == ours || now == before;
}

int module_values_check(char *reason, size_t size)
{
    DEMAND_MAIN_THREAD();
    for (size_t i = 0; i < watch.count; i++) {
        const void *load =
            (const void *)module_type_get_load(watch.layout, watch.types[i].type);
        if (is_ours_or(load, (const void *)watching_load[i],
                       (const void *)watch.types[i].load))
            continue;
        got_tell_change("rdb_load", load, reason, size);
        return -EBUSY;
    }
    for (size_t i = 0; i < watch.variable_count; i++) {
        const void *now = (const void *)*watch.variables[i];
        if (is_ours_or(now, (const void *)watching_set_value, (const void *)set_value))
            continue;
        got_tell_change("RedisModule_ModuleTypeSetValue", now, reason, size);
        return -EBUSY;
    }
    return 0;
}

void module_values_unwatch(void)
{
    DEMAND_MAIN_THREAD();
    for (size_t i = 0; i < watch.count; i++)
        module_type_set_load(watch.layout, watch.types[i].type, watch.types[i].load);
    for (size_t i = 0; i < watch.variable_count; i++)
        if (*watch.variables[i] == watching_set_value)
            *watch.variables[i] = set_value;
    watch.layout = NULL;
    watch.count = watch.variable_count = 0;
}
