/* Replacing a function that is called directly, where its code begins. For what no import
 * table leads to: jemalloc's free() in a server that has it built in.
 *
 *   je_free:    first instruction     stays: a probe of the kernel (uprobe), set at the
 *                                     entry, runs it elsewhere, as the file has it, and
 *                                     goes on behind it
 *               jmp *0(%rip)  ──────▶ our replacement (arm64: ldr x16, br x16)
 *               its address
 *               ...                   never reached any more: what is replaced cannot
 *                                     be called from the replacement
 *
 * Code that another thread may be running cannot be changed safely: a thread may stand
 * in the middle of what is overwritten, and a CPU may run neither the old nor the new. So
 * it is changed while the process has but this thread, which is here and not there, and
 * takes no signal meanwhile; as it is while a server reads its configuration. For the
 * same reason it is never put back: the replacement must be able to do as the function
 * did, for as long as the process lives (the module stays in memory: Makefile).
 *
 * The kernel decides whether code may be changed: a policy (SELinux) or the service
 * manager (MemoryDenyWriteExecute) may say no, and nothing has been done then.
 */
#ifndef RDB_UFFD_HOST_ENTRY_H
#define RDB_UFFD_HOST_ENTRY_H

/* 0; -EBUSY: the process has other threads; -EOPNOTSUPP: the function does not begin as
 * those do that are known; or -errno of mprotect(), mostly -EACCES. Then nothing has
 * changed. `arguments`: how many it takes, 3 at most. Main thread. */
int entry_replace(void *function, unsigned arguments, void *replacement);
/* The same, but nothing is changed. */
int entry_check(const void *function, unsigned arguments);

#endif
