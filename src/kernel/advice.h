/* madvise over many ranges at once: one process_madvise() call on ourselves
 * where the kernel takes it, a loop of madvise() where it does not. */
#ifndef RDB_UFFD_KERNEL_ADVICE_H
#define RDB_UFFD_KERNEL_ADVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

/* One range. 0 or -errno. */
int advice_give(void *start, size_t length, int advice);

/* `count` ranges, in order. Returns 0 when all were advised, else the first
 * -errno (ranges after the failing one are still tried). */
int advice_give_many(const struct iovec *ranges, size_t count, int advice);

/* Whether the kernel takes many ranges in one call. Any thread but the fault server. */
bool advice_is_vectored(void);
/* For tests and for a kernel that misbehaves: always take the loop. */
void advice_force_loop(bool loop);

#endif
