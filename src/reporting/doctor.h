/* The doctor: looks at everything a save without fork depends on, and says what is
 * wrong and what to do about it. */
#ifndef RDB_UFFD_DOCTOR_H
#define RDB_UFFD_DOCTOR_H

#include "doctor_case.h"

/* Fills `findings` and returns how many. Main thread; some 100 us. */
size_t doctor_examine(const struct doctor_case *now,
                      struct doctor_finding findings[DOCTOR_FINDINGS]);
/* "OK", "WARN", "FAIL". */
const char *doctor_status_name(enum doctor_status status);

#endif
