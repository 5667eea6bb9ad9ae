/* Whether this kernel keeps the marks of a userfaultfd when it splits a huge page.
 *
 * From 6.12 on the zeros of a huge page that is split become the shared zero page; until
 * 6.12.54, 6.17.4 and 6.18 without their marks, so that the next write to them is not
 * seen. It splits pages when memory is short. */
#ifndef RDB_UFFD_KERNEL_MARK_PROBE_H
#define RDB_UFFD_KERNEL_MARK_PROBE_H

#include "kernel/ability.h"

/* Tried out on a huge page of its own, which MADV_COLD of a part splits: some 100 us, 6 MB
 * of address space. 1: it keeps them; 0: it loses them; -errno: there was no huge page to
 * be had. Any thread but the fault server. */
int mark_probe_split(const struct ability *ability);

#endif
