/* The process that saves happen in: what of it is set otherwise while they are served without
 * fork, how many threads its CPUs have room for, and what it is told that it lacks.
 *
 * What was found and changed stands in the_service (snapshot/service.h). Main thread. */
#ifndef RDB_UFFD_ENVIRONMENT_H
#define RDB_UFFD_ENVIRONMENT_H

#include "snapshot/snapshot.h"

/* As many workers as settings, CPUs and their quota are for. Only between snapshots: while one
 * is under way the main thread is kept to one CPU, and the workers are at work. */
void environment_settle_workers(struct snapshot *snapshot);
/* Huge pages are allowed to the process while saves need them. */
void environment_settle_huge_pages(const struct rdb_uffd_settings *settings);
/* Switches same-page merging off, if it is on for the process and can be. At load. */
void environment_lift_merging(struct snapshot *snapshot);
/* 0, or -ENOTSUP with `reason` (REASON_BYTES) while memory is merged. Before each save. */
int environment_refuse_merging(char *reason);
/* Logs what makes saves dearer, or may make one fail, and notes whether huge pages may be
 * split (view/splitter.h). At load. */
void environment_tell(struct snapshot *snapshot);
/* Puts back what was changed. */
void environment_restore(void);

#endif
