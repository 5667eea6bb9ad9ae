/* Fault points: places where a test can make something fail that hardly ever
 * fails by itself. Off unless the environment variable RDB_UFFD_FAULT was set
 * when the module was loaded (a comma-separated list of names, may be empty);
 * with it set, UFFD.FAULT switches them at run time.
 */
#ifndef RDB_UFFD_KERNEL_FAULT_POINTS_H
#define RDB_UFFD_KERNEL_FAULT_POINTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FAULT_POINTS(POINT)                                                              \
    POINT(SKIP_PROTECT, "skip_protect")       /* freeze protects nothing */              \
    POINT(SKIP_PRESERVE, "skip_preserve")     /* faults lift protection, keep nothing */ \
    POINT(SKIP_ADVICE, "skip_advice")         /* madvise is not preserved before */      \
    POINT(PROTECT_FAILS, "protect_fails")     /* the second region refuses */            \
    POINT(SLOW_FREEZE, "slow_freeze")         /* the pause is 20 ms longer */            \
    POINT(NO_USERFAULTFD, "no_userfaultfd")   /* pretend the privilege is missing */     \
    POINT(OTHER_PAGES, "other_pages")         /* pretend that pages have 64 KB */        \
    POINT(CORRUPT_POINTER, "corrupt_pointer") /* the walk reads a wrong pointer */       \
    POINT(STUCK_SERVER, "stuck_server")       /* the fault server stops serving */       \
    POINT(HUNG_SERVER, "hung_server") /* the fault server hangs in a fault, until off */ \
    POINT(HUNG_WHEN_FROZEN,                                                              \
          "hung_when_frozen") /* the fault server hangs before it serves, until off */   \
    POINT(STUCK_WHEN_SAVING,                                                             \
          "stuck_when_saving") /* stuck_server, from when the saver runs */              \
    POINT(HUNG_WHEN_SAVING,                                                              \
          "hung_when_saving") /* hung_server, from when the saver runs */                \
    POINT(                                                                               \
        STALE_DUTY,                                                                      \
        "stale_duty") /* the fault server stops after it has read its duty, until off */ \
    POINT(LATE_WATCHDOG,                                                                 \
          "late_watchdog") /* the watchdog stops before it lifts, until off */           \
    POINT(HUNG_READER, "hung_reader") /* reads of the spool hang, until off */           \
    POINT(HUNG_UPKEEP, "hung_upkeep") /* upkeep: writes to the spool hang, until off */  \
    POINT(HUNG_WITH_NOTES, "hung_with_notes") /* upkeep: with deferred frees' notes */   \
    POINT(HUNG_WITH_HEAP,                                                                \
          "hung_with_heap") /* upkeep: hangs with heap_lock(), until off */              \
    POINT(HUNG_WITH_BUFFER, "hung_with_buffer") /* upkeep: with `touching`, until off */ \
    POINT(HUNG_OPENING, "hung_opening")         /* opening the spool hangs, until off */ \
    POINT(HUNG_RENAME, "hung_rename")           /* renaming the dump hangs, until off */ \
    POINT(SPOOL_WRITE, "spool_write")           /* EIO from the spool */                 \
    POINT(SPOOL_READ, "spool_read")                                                      \
    POINT(SPOOL_OPEN, "spool_open")                                                      \
    POINT(SPOOL_SLOW, "spool_slow")         /* every write to it takes 2 ms */           \
    POINT(DAMAGED_SPOOL, "damaged_spool")   /* one bit is wrong in what it gives back */ \
    POINT(DAMAGED_PAGE, "damaged_page")     /* one bit is wrong in a compressed page */  \
    POINT(IGNORE_LIMIT, "ignore_limit")     /* the buffer grows without end */           \
    POINT(NEWER_SERVER, "newer_server")     /* it says that its version is 99.9.9 */     \
    POINT(MOVED_LAYOUT, "moved_layout")     /* its variables lie elsewhere */            \
    POINT(MOVED_KEYSPACE, "moved_keyspace") /* its tables of keys lie elsewhere */       \
    POINT(SHIFTED_KEYS, "shifted_keys")     /* names of keys lie four bytes further */   \
    POINT(MOVED_STREAMS, "moved_streams")   /* a part of its streams lies elsewhere */   \
    POINT(MOVED_CLIENTS, "moved_clients")   /* its clients' connections lie elsewhere */ \
    POINT(NO_JEMALLOC, "no_jemalloc")       /* the server has another allocator */       \
    POINT(NO_GUARD, "no_guard") /* the server has calls that cannot be patched */        \
    POINT(NO_UNPOPULATED, "no_unpopulated") /* unpopulated pages are not protected */    \
    POINT(NO_DIRTY_TRACKING, "no_dirty_tracking") /* a kernel before 6.7 */              \
    POINT(STALE_DECOMMITTED, "stale_decommitted") /* memory in use is decommitted */     \
    POINT(SLEEPING_HELPER, "sleeping_helper")     /* helps to freeze, 3 s late */        \
    POINT(EVICT_UNKEPT, "evict_unkept")           /* dead values go, not kept */         \
    POINT(TRUST_HOOKS, "trust_hooks")             /* all mappings are heard of */        \
    POINT(TRUST_MERGING, "trust_merging")         /* pages are not merged */             \
    POINT(MARKS_LOST, "marks_lost")               /* a kernel that splits them away */   \
    POINT(SLOW_READS, "slow_reads")     /* of live memory, by the hypervisor */          \
    POINT(NO_HUGE_PAGE, "no_huge_page") /* to try splitting on */                        \
    POINT(LOST_REGIONS, "lost_regions") /* nothing of the heap is listed */              \
    POINT(WRONG_METADATA,                                                                \
          "wrong_metadata") /* what is written to is taken for the allocator's own */    \
    POINT(NO_AUDIT, "no_audit")               /* lost pages are not looked for */        \
    POINT(NO_PAGEMAP_SCAN, "no_pagemap_scan") /* a kernel before 6.7, for that */        \
    POINT(HELD_SAVER, "held_saver")           /* the saver begins when this is off */    \
    POINT(SLOW_END, "slow_end")         /* … tells of its end half a second later */   \
    POINT(HELD_UPKEEP, "held_upkeep")   /* upkeep does no chores until this is off */    \
    POINT(OUTPUT_WRITE, "output_write") /* EIO from the dump file */                     \
    POINT(NO_NAMELESS, "no_nameless")   /* files cannot be made without a name */        \
    POINT(NO_PATIENCE, "no_patience") /* with a backup's reader: a tenth of a second */  \
    POINT(SLOW_GUARD,                                                                    \
          "slow_guard") /* other threads take 50 ms between its look and the call */     \
    POINT(HUNG_GUARD, "hung_guard") /* … and hang there, until off */                  \
    POINT(STUCK_CREATE,                                                                  \
          "stuck_create") /* the temporary file is neither made nor refused */           \
    POINT(KNOWN_NUMBERS, "known_numbers") /* in names: 4194305 and on, no random ones */ \
    POINT(NO_ZERO_DEVICE, "no_zero_device")       /* /dev/zero is not there */           \
    POINT(PLAIN_ZERO_DEVICE, "plain_zero_device") /* it is listed as plain memory */     \
    POINT(SHORT_LIST, "short_list") /* of the memory map one line is listed */           \
    POINT(REPLACED_MAPPING,                                                              \
          "replaced_mapping") /* a mapping is another since it was registered */         \
    POINT(HELD_PREFAULTED,                                                               \
          "held_prefaulted")      /* old prefaulted memory stays until this is off */    \
    POINT(WILD_READ, "wild_read") /* what is read of the server is at a wrong address */ \
    POINT(LOST_PAGE,                                                                     \
          "lost_page") /* what is read is on a page that the machine has lost */         \
    POINT(LOST_PRESERVING,                                                               \
          "lost_preserving")        /* what the fault server copies is on such a page */ \
    POINT(WILD_SAVER, "wild_saver") /* the saver writes to a wrong address */            \
    POINT(WILD_SERVER, "wild_server") /* the fault server does, at a fault */            \
    POINT(WILD_UPKEEP, "wild_upkeep") /* the upkeep thread does */                       \
    POINT(BROKEN_DEMAND,                                                                 \
          "broken_demand") /* upkeep looks at the heap without its lock */               \
    POINT(NO_VALUE_CHILD, "no_value_child") /* nothing is there for one */               \
    POINT(NO_CHILD_SYMBOLS,                                                              \
          "no_child_symbols") /* the server lacks what it calls (at load) */             \
    POINT(VALUE_CHILD_FORK, "value_child_fork") /* no more processes */                  \
    POINT(LIVE_PAGES,                                                                    \
          "live_pages") /* the child for values gets pages as they are now */            \
    POINT(HUNG_PAGER, "hung_pager")       /* it gets none until this is off */           \
    POINT(SHORT_SILENCE, "short_silence") /* … and is given up after half a second */  \
    POINT(NO_MEMORY, "no_memory")         /* buffers cannot be mapped */

#define FAULT_ENUM(name, text) FAULT_##name,
enum fault_point_id { FAULT_POINTS(FAULT_ENUM) FAULT_POINT_COUNT };
#undef FAULT_ENUM

/* A bit each. */
extern _Atomic uint64_t fault_points_on[FAULT_POINT_COUNT / 64 + 1];

/* True if the point is switched on. Costs one load. Any thread. */
static inline bool fault_point(enum fault_point_id point)
{
    return atomic_load_explicit(&fault_points_on[point / 64], memory_order_relaxed) &
           (UINT64_C(1) << point % 64);
}

/* Where to read instead of at `real`: with the point, where a read raises SIGSEGV, or
 * SIGBUS. */
const void *fault_point_nowhere(void);
const void *fault_point_lost_page(void);
static inline const void *fault_point_wild(enum fault_point_id point, const void *real)
{
    return fault_point(point) ? fault_point_nowhere() : real;
}
static inline const void *fault_point_lost(enum fault_point_id point, const void *real)
{
    return fault_point(point) ? fault_point_lost_page() : real;
}
/* With the point, a write that raises SIGSEGV. */
void fault_point_crash(enum fault_point_id point);
/* As something that the kernel does not let go of: until the point is switched off.
 * Without the point, nothing. */
void fault_point_hang(enum fault_point_id point);
/* Reads the environment. 1 if the variable is set, 0 if not; -EINVAL when it names a point
 * that there is not: a test with it could not fail. */
int fault_points_init(void);
/* Switches one by name. False when there is no such point. */
bool fault_point_set(const char *name, bool on);

#endif
