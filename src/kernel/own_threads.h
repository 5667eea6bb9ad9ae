/* Which threads are ours, by the stacks that they run on: no thread-local storage is
 * touched, which may be protected or not there yet. All async-signal-safe, any thread. */
#ifndef RDB_UFFD_KERNEL_OWN_THREADS_H
#define RDB_UFFD_KERNEL_OWN_THREADS_H

#include <stdbool.h>
#include <stdint.h>

/* Their names, as `ps` shows them; what each does: docs/THREADS.md. */
#define THREAD_FAULT_SERVER "uffd-faults"
#define THREAD_SAVER        "uffd-saver"
#define THREAD_WATCHDOG     "uffd-watchdog"
#define THREAD_UPKEEP       "uffd-upkeep"
#define THREAD_PACKER       "uffd-packer"
#define THREAD_CLERK        "uffd-spool"
#define THREAD_PAGER        "uffd-pager"
#define THREAD_HELPER       "uffd-protect"

/* A thread that runs between these addresses, or will; until it has ended. */
void own_thread_note(uintptr_t start, uintptr_t end, const char *name);
void own_thread_forget(uintptr_t start);

/* The name of the calling thread; NULL: it is not ours. */
const char *own_thread_name(void);
/* Whether there is a thread of ours with this name. Only in builds with checks
 * (kernel/contract.h). */
bool own_thread_exists(const char *name);

#endif
