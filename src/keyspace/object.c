/* The server's objects, with what lies around them: see values.h. */
#include "keyspace/values.h"

/* ---- Valkey 8.1, 9.1, Redis 8.2 -------------------------------------------------- */

#define OBJECT_BYTES  16
#define OBJECT_WINDOW 32 /* as far as the length of the key's header can be */
#define HAS_VALUE     4u

/* Which of the bits behind the clock say what is behind the object. */
struct object_bits {
    uint32_t expire, key;
};

static struct object_bits bits_of(const struct walk *walk)
{
    return walk->family->objects == OBJECT_REDIS_8_2
               ? (struct object_bits){.key = 1, .expire = 2}
               : (struct object_bits){.expire = 1, .key = 2};
}

static int read_window(struct walk *walk, frozen_address address, unsigned char *window)
{
    if (frozen_is_in_page(address, OBJECT_WINDOW))
        return frozen_read(walk, window, address, OBJECT_WINDOW);
    memset(window, 0, OBJECT_WINDOW);
    int error = frozen_read(walk, window, address, OBJECT_BYTES);
    size_t more = half_at(window, 4) & bits_of(walk).expire ? 9 : 1;
    bool inside =
        half_at(window, 4) & HAS_VALUE && walk->family->objects == OBJECT_VALKEY_9_1;
    if (error || (inside && more == 1))
        return error;
    size_t at = inside ? OBJECT_BYTES - 8 : OBJECT_BYTES;
    return frozen_read(walk, window + at, address + at, more);
}

static int read_inside(struct walk *walk, frozen_address address,
                       struct frozen_object *object, unsigned char *window)
{
    int error = read_window(walk, address, window);
    if (error)
        return error;
    uint32_t bits = half_at(window, 4);
    size_t at = OBJECT_BYTES;
    object->value_inside =
        walk->family->objects == OBJECT_VALKEY_9_1 && (bits & HAS_VALUE) != 0;
    if (object->value_inside)
        at -= 8;
    if (bits & bits_of(walk).expire) {
        object->expire = (int64_t)word_at(window, at);
        at += 8;
    }
    if (!(bits & bits_of(walk).key))
        return -EBADMSG;
    object->key = address + at + 1 + window[at];
    return 0;
}

/* ---- Redis 8.6 ------------------------------------------------------------------- */

#define KEY_OBJECT   0x80000000u
#define META_EXPIRE  1u
#define META_MASK    0xffu
#define EXPIRE_BYTES 8

static int read_with_metadata(struct walk *walk, frozen_address address,
                              struct frozen_object *object, unsigned char *window)
{
    int error = frozen_read(walk, window, address, OBJECT_BYTES + 1);
    if (error)
        return error;
    uint32_t bits = half_at(window, 4);
    if (!(half_at(window, 0) & KEY_OBJECT))
        return -EBADMSG;
    object->lru = bits >> 8;
    object->key = address + OBJECT_BYTES + 1 + window[OBJECT_BYTES];
    object->more = (bits & META_MASK & ~META_EXPIRE) != 0;
    if (bits & META_EXPIRE)
        error = frozen_read(walk, &object->expire, address - EXPIRE_BYTES, EXPIRE_BYTES);
    return error;
}

/* ---- any ------------------------------------------------------------------------- */

static int read_around(struct walk *walk, frozen_address address,
                       struct frozen_object *object, unsigned char *window)
{
    switch (walk->family->objects) {
    case OBJECT_VALKEY_8_1:
    case OBJECT_VALKEY_9_1:
    case OBJECT_REDIS_8_2:
        return read_inside(walk, address, object, window);
    case OBJECT_REDIS_8_6:
        return read_with_metadata(walk, address, object, window);
    default:
        return frozen_read(walk, window, address, OBJECT_BYTES);
    }
}

int object_read(struct walk *walk, frozen_address address, struct frozen_object *object)
{
    unsigned char bytes[OBJECT_WINDOW];
    object->value_inside = object->more = false;
    object->key = 0;
    object->expire = NO_EXPIRE;
    int error = read_around(walk, address, object, bytes);
    uint32_t word = error ? 0 : half_at(bytes, 0);
    object->type = word & 15;
    object->encoding = (word >> 4) & 15;
    if (walk->family->objects != OBJECT_REDIS_8_6)
        object->lru = word >> 8;
    object->pointer = error || object->value_inside ? 0 : word_at(bytes, 8);
    return error;
}
