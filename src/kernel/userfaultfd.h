/* userfaultfd, one call per function. Every function returns 0 (or what it
 * says) or -errno and touches nothing but its arguments, so all of them may be
 * called by the fault server. */
#ifndef RDB_UFFD_KERNEL_USERFAULTFD_H
#define RDB_UFFD_KERNEL_USERFAULTFD_H

#include <linux/userfaultfd.h>
#include <stddef.h>
#include <stdint.h>

/* Kernel headers older than the kernel we may run on lack these. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* Opens a userfaultfd that also reports faults taken inside system calls (a
 * server's read() into its query buffer), by the system call if it is
 * permitted, else through /dev/userfaultfd. Non-blocking, close-on-exec.
 * Returns the descriptor; -EPERM or -EACCES without the privilege; -ENOSYS. */
int userfaultfd_open(void);

/* The handshake. Kernels refuse unknown features with -EINVAL or ignore them:
 * compare `*granted` with what was asked. `granted` may be NULL. */
int userfaultfd_handshake(int descriptor, uint64_t features, uint64_t *granted);

/* Announces a range (page aligned) for write protection. Needed before
 * userfaultfd_protect(); a range may be announced twice. */
int userfaultfd_register(int descriptor, uint64_t start, uint64_t length);
/* The same for missing pages too: who touches one waits until it is given to him. */
int userfaultfd_register_missing(int descriptor, uint64_t start, uint64_t length);
int userfaultfd_unregister(int descriptor, uint64_t start, uint64_t length);

/* Protects or un-protects a page-aligned range. Un-protecting wakes who waits
 * for a page in it. -EAGAIN when the memory map changes meanwhile: try again. */
int userfaultfd_protect(int descriptor, uint64_t start, uint64_t length);
int userfaultfd_unprotect(int descriptor, uint64_t start, uint64_t length);
/* Wakes who waits for a page in the range and changes nothing else. */
int userfaultfd_wake(int descriptor, uint64_t start, uint64_t length);

/* Gives missing pages their content, write-protected, in the process that the descriptor
 * is of, and wakes who waits for one. `*done`: bytes that were given, also on failure. 0;
 * -EEXIST: the next one is there; -ENOENT: it is not mapped; -ESRCH: the process has gone;
 * -EAGAIN: try again. */
int userfaultfd_give(int descriptor, uint64_t to, const void *from, uint64_t length,
                     uint64_t *done);

/* Reads up to `count` waiting messages. Returns how many, 0 when none waits. */
int userfaultfd_read(int descriptor, struct uffd_msg *messages, size_t count);

#endif
