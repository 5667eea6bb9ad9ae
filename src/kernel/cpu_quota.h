/* How much CPU time this process may use: its control groups' limits, by which containers
 * and units are kept to a part of the machine. Who has used up his share is stopped, with
 * all of his threads, until the period of 100 ms is over. */
#ifndef RDB_UFFD_KERNEL_CPU_QUOTA_H
#define RDB_UFFD_KERNEL_CPU_QUOTA_H

/* The tightest limit of the groups that this process is in (cpu.max, or cpu.cfs_quota_us
 * in the first version's hierarchy), in percent of one CPU; 0: there is none, or it cannot
 * be seen. `root` stands before /proc and /sys: "" but for tests. Reads a few files. */
unsigned cpu_quota_percent(const char *root);

#endif
