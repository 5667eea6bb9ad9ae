#include "doctor.h"

#include <errno.h>
#include <string.h>

#include "doctor_checks.h"
#include "kernel/fault_points.h"

const char *doctor_status_name(enum doctor_status status)
{
    static const char *const names[] = {"OK", "WARN", "FAIL"};
    return names[status];
}

static const struct {
    const char *name;
    void (*check)(struct examination *on);
} checks[] = {
    /* What others follow from comes first. */
    {"server", doctor_check_server},
    {"allocator", doctor_check_allocator},
    {"privilege", doctor_check_privilege},
    {"seccomp", doctor_check_seccomp},
    {"kernel", doctor_check_kernel},
    {"dirty-tracking", doctor_check_dirty_tracking},
    {"huge-pages", doctor_check_huge_pages},
    {"buffer-limit", doctor_check_buffer},
    {"page-merging", doctor_check_merging},
    {"spool-dir", doctor_check_spool},
    {"append-only", doctor_check_rewrites},
    {"replication", doctor_check_replication},
    {"cluster", doctor_check_cluster},
    {"module-values", doctor_check_values},
    {"fallback", doctor_check_fallbacks},
    {"container", doctor_check_container},
};
#define CHECKS (sizeof(checks) / sizeof(checks[0]))
_Static_assert(CHECKS <= DOCTOR_FINDINGS, "more findings than there is room for");

size_t doctor_examine(const struct doctor_case *now,
                      struct doctor_finding findings[DOCTOR_FINDINGS])
{
    struct examination on = {.now = now};
    process_get_facts(&on.process);
    ability_probe(&on.ability);
    if (fault_point(FAULT_NO_USERFAULTFD)) {
        memset(&on.ability, 0, sizeof(on.ability));
        on.ability.error = -EPERM;
        on.process.may_trace = false;
        on.process.device = DEVICE_DENIED;
    }
    for (size_t i = 0; i < CHECKS; i++) {
        memset(&findings[i], 0, sizeof(findings[i]));
        findings[i].name = checks[i].name;
        on.finding = &findings[i];
        checks[i].check(&on);
    }
    return CHECKS;
}
