/* The process's memory map, as the kernel lists it. */
#ifndef RDB_UFFD_KERNEL_MAPPINGS_H
#define RDB_UFFD_KERNEL_MAPPINGS_H

#include <stdbool.h>
#include <stdint.h>

struct mapping {
    uint64_t start;
    uint64_t end;
    bool readable;
    bool writable;
    bool shared;
    bool anonymous;   /* no file behind it */
    const char *name; /* "", "[heap]", "[stack]", a path; valid during the visit */
};

/* Calls `visit` for every mapping, lowest first. Reads /proc/self/maps into a
 * static buffer: one thread at a time. 0, -errno, or what `visit` returned if
 * that was not 0. */
int mappings_visit(int (*visit)(const struct mapping *mapping, void *context),
                   void *context);

#endif
