#include "host/module_types.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "kernel/contract.h"
#include "kernel/symbols.h"

/* In a list, and in a node of one. */
#define LIST_HEAD  0
#define NODE_NEXT  8
#define NODE_VALUE 16
/* In an entry of `modules`, where the server does not export dictGetVal. */
#define ENTRY_VALUE 8
/* In a type: so far behind rdb_load in every known server. If it were elsewhere, aux data
 * would be written on the main thread, and be the same. */
#define AUX_SAVE_BEHIND_LOAD 88
/* Far more than a module has: a longer list is none. */
#define TYPES_MAX 10000

static struct {
    void **modules; /* dict of name and module */
    void *(*dict_iterator)(void *dict);
    void *(*dict_next)(void *iterator);
    void (*dict_release)(void *iterator);
    char *(*dict_value)(const void *entry); /* NULL: before 7.2 */
} symbols;

int module_types_find_server(void)
{
    DEMAND_MAIN_THREAD();
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

static int read_word(struct checked_reader *reader, const char *structure, size_t offset,
                     void *word)
{
    return checked_read(reader, word, (uintptr_t)structure + offset, sizeof(void *));
}

/* A type belongs to the module in whose list it is. */
static int visit_type(const struct server_layout *layout, struct module_type *found,
                      const char *node, module_type_visit visit, void *context)
{
    char *owner, *aux_save = NULL;
    int error = read_word(found->reader, node, NODE_VALUE, &found->type);
    if (!error)
        error = read_word(found->reader, found->type, layout->type_module, &owner);
    if (!error && owner != found->module)
        error = -EBADMSG;
    if (!error)
        error = read_word(found->reader, found->type, layout->type_load,
                          (void *)&found->load);
    if (!error)
        error = read_word(found->reader, found->type,
                          layout->type_load + AUX_SAVE_BEHIND_LOAD, &aux_save);
    found->writes_aux = !error && aux_save;
    return error ? error : visit(found, context);
}

static int visit_module(const struct server_layout *layout, struct module_type *found,
                        module_type_visit visit, void *context)
{
    char *types, *node = NULL;
    int result = read_word(found->reader, found->module, layout->module_types, &types);
    if (!result && types)
        result = read_word(found->reader, types, LIST_HEAD, &node);
    for (unsigned left = TYPES_MAX; !result && node; left--) {
        if (!left)
            return -EBADMSG;
        result = visit_type(layout, found, node, visit, context);
        if (!result)
            result = read_word(found->reader, node, NODE_NEXT, &node);
    }
    return result;
}

static char *module_in(struct checked_reader *reader, const char *entry)
{
    char *module = NULL;
    if (symbols.dict_value)
        return symbols.dict_value(entry);
    return read_word(reader, entry, ENTRY_VALUE, &module) == 0 ? module : NULL;
}

int module_types_visit(const struct server_layout *layout, module_type_visit visit,
                       void *context)
{
    DEMAND_MAIN_THREAD();
    struct checked_reader reader;
    struct module_type found = {.reader = &reader};
    int result = checked_reader_open(&reader);
    if (result)
        return result;
    void *iterator = symbols.dict_iterator(*symbols.modules);
    for (char *entry; !result && (entry = symbols.dict_next(iterator));) {
        found.module = module_in(&reader, entry);
        result = visit_module(layout, &found, visit, context);
    }
    symbols.dict_release(iterator);
    checked_reader_close(&reader);
    return result;
}

void module_type_tell_module(const struct server_layout *layout,
                             const struct module_type *type, char name[MODULE_NAME_BYTES])
{
    char *text;
    size_t length = 0;
    if (read_word(type->reader, type->module, layout->module_name, &text) != 0)
        text = NULL;
    while (text && length < MODULE_NAME_BYTES - 1 &&
           checked_read(type->reader, name + length, (uintptr_t)text + length, 1) == 0 &&
           name[length] > ' ' && name[length] < 127)
        length++;
    name[length] = '\0';
}

void module_type_set_load(const struct server_layout *layout, char *type,
                          module_type_load load)
{
    memcpy(type + layout->type_load, &load, sizeof(load));
}

module_type_load module_type_get_load(const struct server_layout *layout,
                                      const char *type)
{
    module_type_load load;
    memcpy(&load, type + layout->type_load, sizeof(load));
    return load;
}
