/* Who writes the values of modules' types for a walk: only the module itself can, by a
 * callback that follows raw pointers. The walk says which it wants, in the order in which
 * they stand in the dump, and takes them in that order:
 *
 *   ask(1) ask(2) … ask(n)   take(1) take(2) … take(n)
 *
 * To ask ahead, a batch of keys at a time, saves a round trip for each. */
#ifndef RDB_UFFD_KEYSPACE_VALUE_SOURCE_H
#define RDB_UFFD_KEYSPACE_VALUE_SOURCE_H

#include <stdint.h>

#include "rdb/encoder.h"
#include "view/view.h"

/* So many may be asked for and not taken yet. */
#define VALUES_ASKED_MAX 64

struct wanted_value {
    frozen_address object; /* the server's object whose value it is */
    frozen_address
        type;           /* as its value says: whether there is such a type is not known */
    frozen_address key; /* its key: bytes of an sds, no header needed */
    uint64_t key_length;
    int32_t database;
};

struct value_source {
    /* 0, -EAGAIN when VALUES_ASKED_MAX are waiting, or -errno: the walk ends. */
    int (*ask)(struct value_source *source, const struct wanted_value *wanted);
    /* Writes the next value that was asked for to the encoder, without the byte that tells
     * its type: as rdbSaveObject() does. 0 or -errno; -ENOENT if none was asked for. */
    int (*take)(struct value_source *source, struct rdb_encoder *encoder);
};

#endif
