/* Values of types that modules define: recognized here, written by others. */
#include "keyspace/values.h"

/* What the object points to: 0 the type · 8 what the module knows as the value */
#define MODULE_VALUE_BYTES 16

int module_value_ask(struct walk *walk, frozen_address address,
                     const struct frozen_object *object, const struct frozen_string *name)
{
    unsigned char value[MODULE_VALUE_BYTES];
    walk->where = "a module's value";
    if (!walk->values || object->more)
        return -ENOTSUP;
    if (object->encoding != ENCODING_RAW)
        return -EBADMSG;
    int error = frozen_read(walk, value, object->pointer, sizeof(value));
    if (error)
        return error;
    struct wanted_value wanted = {
        .object = address,
        .type = word_at(value, 0),
        .key = name->address,
        .key_length = name->length,
        .database = walk->database,
    };
    return walk->values->ask(walk->values, &wanted);
}

int module_value_save(struct walk *walk)
{
    walk->where = "a module's value";
    return walk->values->take(walk->values, walk->encoder);
}
