/* Threads that inherited what was meant for the one that began them. */
#ifndef RDB_UFFD_KERNEL_INHERITED_AFFINITY_H
#define RDB_UFFD_KERNEL_INHERITED_AFFINITY_H

#include <stdint.h>

#include "kernel/thread.h"

/* A moment, as the kernel notes it for a thread's beginning: in ticks of 10 ms. */
uint64_t inherited_affinity_now(void);
/* Lets those threads of this process that began at `since` or later, and are kept to
 * `cpu` alone, run on all of `cpus`. A few microseconds for each thread there is; any
 * thread. */
void inherited_affinity_undo(uint64_t since, uint32_t cpu,
                             const struct thread_cpus *cpus);

#endif
