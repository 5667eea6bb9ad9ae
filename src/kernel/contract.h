/* What headers and docs/THREADS.md demand of who calls, looked at where the call arrives.
 *
 * Only in a build with checks (`make checked`, and what `make test` runs on the installed
 * server): there a call that breaks a demand ends the process by abort(), with a line on
 * standard error that names the file, the line and the demand. In any other build a
 * demand is nothing.
 *
 * Usable on the fault server's thread and in signal handlers: no allocation, no stdio, no
 * thread-local storage, nothing that may be protected; system calls write, getpid, gettid.
 *
 * "On thread X" holds for any thread as long as there is no X in the process: then somebody
 * plays its part, as tests of single parts do. A crash report under way may break
 * everything (contract_suspend()).
 */
#ifndef RDB_UFFD_KERNEL_CONTRACT_H
#define RDB_UFFD_KERNEL_CONTRACT_H

#include <stdbool.h>

#include "kernel/own_threads.h"

#ifdef RDB_UFFD_CHECKS
#define DEMAND(demanded)                                                                 \
    ((demanded) || contract_is_suspended()                                               \
         ? (void)0                                                                       \
         : contract_broken(__FILE__, __LINE__, __func__, #demanded))
#else
/* Compiled, so that it stays right, and never evaluated. */
#define DEMAND(demanded) ((void)sizeof((demanded) ? 1 : 0))
#endif

#define DEMAND_MAIN_THREAD()    DEMAND(contract_on_main_thread())
#define DEMAND_THREAD(name)     DEMAND(contract_on_thread(name))
#define DEMAND_NOT_THREAD(name) DEMAND(contract_not_on_thread(name))
/* Held by the calling thread. `lock`: the address given to LOCK_TAKEN. */
#define DEMAND_HELD(lock) DEMAND(contract_holds(lock))

/* The ranks of docs/THREADS.md, but the allocator's. */
enum lock_rank { RANK_HEAP = 1, RANK_SHORT = 3, RANK_REQUEST = 4 };

#ifdef RDB_UFFD_CHECKS
/* Before a lock is waited for; once it is held; before it is free. */
#define LOCK_WANTED(rank)      DEMAND(contract_may_take(rank))
#define LOCK_TAKEN(lock, rank) contract_taken(lock, rank)
#define LOCK_RELEASED(lock)    contract_released(lock)
#define CONTRACT_SUSPEND(on)   contract_suspend(on)
#else
#define LOCK_WANTED(rank)      ((void)(rank))
#define LOCK_TAKEN(lock, rank) ((void)(lock))
#define LOCK_RELEASED(lock)    ((void)(lock))
#define CONTRACT_SUSPEND(on)   ((void)(on))
#endif

_Noreturn void contract_broken(const char *file, int line, const char *function,
                               const char *demanded);
bool contract_is_suspended(void);
void contract_suspend(bool on);
void contract_taken(const void *lock, enum lock_rank rank);
void contract_released(const void *lock);

/* The thread that the process began with, which is the server's main one. */
bool contract_on_main_thread(void);
bool contract_on_thread(const char *name);
bool contract_not_on_thread(const char *name);
bool contract_holds(const void *lock);
/* The caller holds nothing of this rank or below it, and does not serve faults. */
bool contract_may_take(enum lock_rank rank);

#endif
