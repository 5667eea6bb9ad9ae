/* Same-page merging (KSM): the kernel looks for equal pages, in memory that was offered to
 * it, and replaces them by one. A page that it merges loses the mark of a userfaultfd.
 *
 * Memory is offered for the whole process, from the outside too (PR_SET_MEMORY_MERGE,
 * Linux 6.4, as systemd does it with MemoryKSM=yes), or mapping by mapping
 * (MADV_MERGEABLE). Main thread. */
#ifndef RDB_UFFD_KERNEL_MERGING_H
#define RDB_UFFD_KERNEL_MERGING_H

enum merging {
    MERGING_NONE,
    MERGING_PROCESS, /* all of its memory, what comes later too */
    MERGING_MAPPINGS,
};

/* What is offered now. A system call and a small file of /proc: some microseconds, more
 * with thousands of mappings. */
enum merging merging_find(void);
/* Takes the whole process out, and apart what has been merged; not when that is more than
 * 64 MB, since it takes the memory map's lock for as long and the memory it saves. 0, or
 * -errno: -EBUSY. */
int merging_lift(void);
/* The process is offered as before. */
void merging_restore(void);

#endif
