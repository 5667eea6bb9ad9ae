/* The server crashes, in its own threads or in one of ours: its report must come, and the
 * process must end as it would without us.
 *
 * The report writes to memory that may be protected, and its test of the memory to all that
 * is private. So protection goes before it begins, nobody waits for one of ours any more
 * but it for what the upkeep thread is at (0.2 s at most), a thread of ours that crashes too
 * stays where it is, and what is only held ready goes out of the test's way. So do
 * restartable sequences, for which the kernel ends the test now and then without the module
 * too (2 reports of 25 were cut off). Our own data is out of its way too: stacks are of the
 * zero device (kernel/memory.h), variables lie in the module's file (module/module.ld).
 */
#ifndef RDB_UFFD_SNAPSHOT_CRASH_H
#define RDB_UFFD_SNAPSHOT_CRASH_H

#include <stdbool.h>

/* Stands in front of the server's handlers, and leaves. 0 or -errno. Main thread, as
 * crash_look(): whether that is still so. */
int crash_install(void);
void crash_look(void);
void crash_remove(void);
/* The report is being written; it has not come by a signal if this is the first that we
 * hear of it (an assertion). Any thread, async-signal-safe. */
void crash_begin(void);
bool crash_is_under_way(void);

#endif
