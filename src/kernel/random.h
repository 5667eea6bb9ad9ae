/* Numbers that nobody can guess. */
#ifndef RDB_UFFD_KERNEL_RANDOM_H
#define RDB_UFFD_KERNEL_RANDOM_H

#include <stdint.h>

/* All 64 bits are random. Never waits, also not on a machine that has only just
 * started. Any thread. */
uint64_t random_number(void);

#endif
