/* The proof that walks see what the server sees: for a few keys, found by a walk over
 * the live keyspace, what the server says of them is compared with what would have been
 * saved. Before that nothing is saved without fork but an empty keyspace; after it now and
 * then kinds of keys that were not there yet are looked for. */
#ifndef RDB_UFFD_PROOF_H
#define RDB_UFFD_PROOF_H

#include <stddef.h>

#include "host/server_capture.h"
#include "keyspace/sample.h"
#include "snapshot/callbacks.h"

/* A value of a type that no walker knows. */
struct proof_stranger {
    const char *name; /* such as "an array (ARRAY)"; NULL: none was met */
    frozen_address object;
};

/* 0: proved. -EAGAIN: there are no keys, and a walk finds none either, or only such as are
 * being imported and look right. Else `reason` says what stands against it: -ENODATA: no key
 * can be compared; -ENOTSUP: walks see something else; -errno: cannot be found out. `kinds`:
 * those that have been compared, none at first. Main thread, nothing frozen; takes a
 * millisecond or two. */
int proof_try(const struct rdb_uffd_host *host, struct keyspace_kinds *kinds,
              struct proof_stranger *stranger, char *reason, size_t reason_size);
/* Whether there still seems to be one. Main thread, nothing frozen; takes no time. */
bool proof_finds_stranger(frozen_address object);
/* At every save with a layout from a file, which nobody has tested: numbers of keys, clocks,
 * and the replicas' sockets. What the save meets that was not compared ends it
 * (keyspace_roots). 0; -ENOTSUP or -errno, then `reason` says what stands against it. Main
 * thread, nothing frozen. */
int proof_try_save(const struct rdb_uffd_host *host, const struct server_capture *capture,
                   char *reason, size_t reason_size);
/* At every save of a server that is importing slots: whether walks find those slots, and
 * as many keys in them, as the server says. 0; -ENOTSUP or -errno, then `reason` says
 * what stands against it. Main thread, nothing frozen; takes a millisecond or so. */
int proof_try_imports(const struct server_capture *capture, char *reason,
                      size_t reason_size);
/* Whether there are keys at all. Takes no time. */
bool proof_has_keys(const struct rdb_uffd_host *host);

#endif
