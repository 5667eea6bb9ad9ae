/* Memory prefaulted for the allocator: mapped, touched, and in no snapshot.
 *
 * Right after a freeze the server's new values go to memory that the allocator
 * has just mapped (memory/allocator.h). Its first touch, and above all the
 * clearing of a huge page, stops the server for up to milliseconds each time.
 * So the upkeep thread touches some ahead, and while frozen the allocator's mmap() is
 * served from it (host/guard.h).
 *
 *   start        at                       end
 *   │ taken      │ prefaulted             │
 *   └─ heap now ─┴─ registered never ─────┘
 *
 * Threads: the upkeep thread fills, any thread takes.
 */
#ifndef RDB_UFFD_MEMORY_PREFAULTED_H
#define RDB_UFFD_MEMORY_PREFAULTED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/thread.h"
#include "memory/regions.h"

struct prefaulted_memory {
    struct short_lock lock;
    uint64_t at;
    uint64_t end;
    uint64_t filling_at; /* what is being prefaulted, or given back */
    uint64_t filling_end;
    _Atomic uint64_t asked; /* bytes wanted since the last filling */
};

/* Prefaults `bytes`, or twice what was asked for since the last time if that
 * is more, up to `most`; nothing when half of it is prefaulted still. Touches the
 * memory page by page: milliseconds. Upkeep thread. */
void prefaulted_fill(struct prefaulted_memory *prefaulted, size_t bytes, size_t most,
                     bool huge_pages);
/* `length` bytes, multiple of a page, that read as zeros; the caller's from now
 * on, to be unmapped like any. NULL when there are not as many. Any thread. */
void *prefaulted_take(struct prefaulted_memory *prefaulted, size_t length);
/* Takes what is prefaulted out of `set`. 0 or -errno of regions_remove(). */
int prefaulted_leave_out(struct prefaulted_memory *prefaulted, struct region_set *set);
/* What is prefaulted; another thread may take some of it at any time. Any thread. */
struct region prefaulted_region(struct prefaulted_memory *prefaulted);
/* Bytes that are prefaulted. Any thread. */
uint64_t prefaulted_bytes(struct prefaulted_memory *prefaulted);
/* Gives what is prefaulted back. */
void prefaulted_release(struct prefaulted_memory *prefaulted);
/* The same in a crash: async-signal-safe, nothing if somebody is at it. */
void prefaulted_abandon(struct prefaulted_memory *prefaulted);

#endif
