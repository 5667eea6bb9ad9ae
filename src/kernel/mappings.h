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

/* How much private writable memory the process has. It changes with every mapping that
 * comes, goes or grows, whoever does it and however: the break (sbrk() of an allocator
 * shows in no import), mremap, system calls of somebody's own. */
struct mappings_extent {
    uint64_t break_end;  /* of the heap that brk() moves */
    uint64_t data_pages; /* 0: not known */
};
/* For mappings_measure(): a descriptor, or -errno. */
int mappings_open_statm(void);
/* Some microseconds, no lock of the memory map. What is unmapped and mapped elsewhere in
 * the same size between two calls does not show. Any thread. */
struct mappings_extent mappings_measure(int statm);
static inline bool mappings_differ(struct mappings_extent one,
                                   struct mappings_extent other)
{
    return one.break_end != other.break_end || one.data_pages != other.data_pages;
}

/* Calls `visit` for every mapping, lowest first. Reads /proc/self/maps into a
 * static buffer: one thread at a time. 0, -errno, or what `visit` returned if
 * that was not 0.
 *
 * -EAGAIN, with all that was listed visited: private writable memory does not add up to
 * what `statm` (of mappings_open_statm(); -1: not compared) says at the end. The map has
 * changed meanwhile, or the kernel has left out a part of it: since Linux 6.17 it reads the
 * map without its lock, and on 6.18 up to most of the mappings have been missing from one
 * reading in 40,000 while another thread mapped and unmapped. */
int mappings_visit(int statm, int (*visit)(const struct mapping *mapping, void *context),
                   void *context);

#endif
