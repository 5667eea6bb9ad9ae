/* Where the stacks of this process's threads are. */
#ifndef RDB_UFFD_KERNEL_STACKS_H
#define RDB_UFFD_KERNEL_STACKS_H

#include <stddef.h>
#include <stdint.h>

/* The stack pointers of threads that wait in the kernel, as /proc/self/task/ID/syscall
 * tells them; of a thread that runs nothing is known. Returns how many there are, at
 * most `capacity`; 0 also when the files may not be read. Allocates: not for the fault
 * server. */
size_t stacks_find_pointers(uint64_t *pointers, size_t capacity);
/* The size of a thread's stack when nobody asked for another one; 0: not known. */
uint64_t stacks_default_bytes(void);

#endif
