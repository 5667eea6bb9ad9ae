/* The server we live in: which one it is, the functions it exports, where its variables
 * are. What a child made right now would inherit from it: server_capture.h.
 *
 * Everything here is read on the main thread, from live memory.
 */
#ifndef RDB_UFFD_HOST_SERVER_H
#define RDB_UFFD_HOST_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "keyspace/keyspace.h"
#include "rdb/comparison.h"
#include "rdb/encoder.h"

/* Finds the server's exported symbols and proves the layout table of its
 * version: the one in `layout_file` (host/layout_file.h), or if that is "" a built-in one.
 * 0; -ENOTSUP with a sentence in `reason` (at least 160 bytes) that
 * says what is not known. Once, at load. `version` as INFO says it ("7.0.15"). */
int server_identify(const char *server_name, const char *version, const char *layout_file,
                    char *reason, size_t reason_size);

/* What a walk needs to know of this instant. After server_identify(), main thread. */
void server_roots(struct keyspace_roots *roots);
/* The server's own lzf_decompress(). */
rdb_decompress_function server_decompress(void);

/* The version of its dumps, as the table says. */
int server_dump_version(void);
/* The table is not built in: it is proved more strictly (upkeep/proof.h). */
bool server_layout_is_of_file(void);
/* Whether that table has its clock of accesses. */
bool server_has_lru_clock(void);
/* NULL, or the name of a function that a child for modules' values would call, and the server
 * does not export: then only a fork saves them. */
const char *server_missing_for_value_child(void);

/* Puts the calling thread on these CPUs, as a child would be (bgsave_cpulist or
 * aof_rewrite_cpulist, as the server reads it). Nothing happens when the server lacks
 * the function. */
void server_set_cpus(const char *list);

/* How many keys all databases have in a slot, the server's word. Only after
 * server_capture() has found imports. */
uint64_t server_slot_keys(int slot);

#endif
