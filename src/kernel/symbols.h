/* Functions and variables by name, as the executable would find them.
 *
 * Valkey since 8.1 loads modules so that these find their own libraries first: to
 * such a module free() is libc's and not the server's allocator's, and dlsym()
 * with RTLD_DEFAULT says the same. */
#ifndef RDB_UFFD_KERNEL_SYMBOLS_H
#define RDB_UFFD_KERNEL_SYMBOLS_H

#include <stddef.h>

/* NULL when there is none. Main thread. */
void *symbol_find(const char *name);
/* The same of `prefix` and `name` together, as "je_" and "free"; shorter than 64 bytes. */
void *symbol_find_prefixed(const char *prefix, const char *name);
/* The size of the variable at `address` as its object file has it; 0: unknown. */
size_t symbol_bytes(const void *address);

#endif
