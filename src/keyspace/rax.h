/* The server's radix tree, frozen.
 *
 *  rax   0 head · 8 elements
 *  node  u32: is key:1 is null:1 is compressed:1 size:29
 *        · `size` characters · padding to 8 · children (size of them; one when
 *        compressed) · value, if it is a key and not null
 */
#ifndef RDB_UFFD_KEYSPACE_RAX_H
#define RDB_UFFD_KEYSPACE_RAX_H

#include "keyspace/frozen.h"

/* Elements of the tree at `address`. 0 or -errno. */
int rax_size(struct walk *walk, frozen_address address, uint64_t *elements);

/* Calls `visit` for every key in lexicographic order. `level`: 0 …
 * RAX_LEVELS - 1, different for walks that are nested in each other. */
typedef int (*rax_visit)(struct walk *walk, const unsigned char *key, size_t length,
                         frozen_address data, void *context);
int rax_walk(struct walk *walk, int level, frozen_address address, rax_visit visit,
             void *context);

/* Frees what the walks left for reuse. */
void rax_free_scratch(struct walk *walk);

#endif
