/* What the doctor's checks share: doctor_server.c, doctor_kernel.c and doctor_room.c know
 * one subject each. All on the main thread.
 */
#ifndef RDB_UFFD_DOCTOR_CHECKS_H
#define RDB_UFFD_DOCTOR_CHECKS_H

#include "doctor_case.h"
#include "kernel/ability.h"
#include "kernel/process.h"

/* Everything a check may look at, found out once. */
struct examination {
    const struct doctor_case *now;
    struct process_facts process;
    struct ability ability;
    struct doctor_finding *finding; /* the one that is being written */
};

/* One check: it says how things are, and, if they are not well, advises what to do. */
void doctor_check_server(struct examination *on);
void doctor_check_allocator(struct examination *on);
void doctor_check_rewrites(struct examination *on);
void doctor_check_replication(struct examination *on);
void doctor_check_cluster(struct examination *on);
void doctor_check_values(struct examination *on);
void doctor_check_fallbacks(struct examination *on);

void doctor_check_kernel(struct examination *on);
void doctor_check_dirty_tracking(struct examination *on);
void doctor_check_privilege(struct examination *on);
void doctor_check_seccomp(struct examination *on);
void doctor_check_huge_pages(struct examination *on);
void doctor_check_merging(struct examination *on);

void doctor_check_spool(struct examination *on);
void doctor_check_buffer(struct examination *on);
void doctor_check_container(struct examination *on);

void doctor_say(struct examination *on, enum doctor_status status, const char *format,
                ...) __attribute__((format(printf, 3, 4)));
void doctor_advise(struct examination *on, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* What becomes of a save that cannot be served: "falls back to fork". Static text. */
const char *doctor_falls_back(const struct examination *on);

#endif
