/* Included before everything else (Makefile): where this cannot be built the compiler says
 * what is missing, rather than that there is no such header. */
#ifndef RDB_UFFD_KERNEL_PLATFORM_H
#define RDB_UFFD_KERNEL_PLATFORM_H

#include <features.h>

#ifndef __GLIBC__
#error "rdb_uffd needs glibc. It cannot serve musl (Alpine): take one of Debian's images"
#endif

#endif
