/* Stands in front of the server's handlers of signals that end it.
 *
 * A fault in guarded_copy() is that copy's error. For any other, `crashing` is called, and
 * then the handler that was there before, as the kernel would have called it. When that
 * one comes back, `over` is called: the process goes on, or the kernel ends it now.
 *
 * Others may come later and stand in front of this one, or go again: what has been behind
 * it is kept in layers. Who calls what he has found here before him, with the same siginfo,
 * gets the layer below his own.
 */
#ifndef RDB_UFFD_KERNEL_FATAL_SIGNALS_H
#define RDB_UFFD_KERNEL_FATAL_SIGNALS_H

#include <signal.h>

/* Takes these signals out of a set. Any thread. */
void fatal_signals_take_out(sigset_t *set);

/* Both are called in any thread, in the handler; also nested, when the handler behind
 * crashes itself. 0 or -errno. Main thread, as the two below. */
int fatal_signals_install(void (*crashing)(void), void (*over)(void));
/* Sees to it that it is in front: the server installs its own anew when its setting
 * changes. 0 or -errno. Five system calls, or ten. */
int fatal_signals_look(void);
/* Puts back what is behind it. Where somebody else stands in front, he stays, and may go on
 * to call what he has found: the code must stay mapped. */
void fatal_signals_remove(void);

#endif
