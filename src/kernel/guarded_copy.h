/* A copy from memory that may not be there (a wrong pointer, a page that the machine has
 * lost, one that cannot be read from swap): what cannot be read is an error, not the end
 * of the process.
 *
 * It is a function that uses no stack, so that from any of its instructions there is one
 * way out. Written for x86-64 and arm64; there is none in C, whose compiler may use it. */
#ifndef RDB_UFFD_KERNEL_GUARDED_COPY_H
#define RDB_UFFD_KERNEL_GUARDED_COPY_H

#include <stdbool.h>
#include <stddef.h>

/* 0, or -EFAULT: some of `to` may have been written. Only while the handler that calls
 * guarded_copy_land() is installed, and SIGSEGV and SIGBUS are not blocked. */
int guarded_copy(void *to, const void *from, size_t length);

/* In a handler of a synchronous SIGSEGV or SIGBUS, `context` its third argument. Whether it
 * came from the copy, which then returns -EFAULT when the handler returns. */
bool guarded_copy_land(void *context);

#endif
