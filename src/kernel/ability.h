/* What this kernel lets this process do: probed once, told apart into
 * "missing" (fall back, say what to grant) and "unexpected". */
#ifndef RDB_UFFD_KERNEL_ABILITY_H
#define RDB_UFFD_KERNEL_ABILITY_H

#include <stdbool.h>
#include <stdint.h>

struct ability {
    int error;        /* 0 when snapshots are possible, else -errno */
    char reason[256]; /* what is missing and what to do, "" when nothing */
    long page_bytes;
    uint64_t features; /* as the handshake reported them */
    bool protects_unpopulated;
    bool reports_thread; /* UFFD_FEATURE_THREAD_ID */
    bool tracks_asynchronously;
};

/* The features a snapshot's userfaultfd is opened with. */
uint64_t ability_features(const struct ability *ability);
/* Fills `ability`; returns ability->error. */
int ability_probe(struct ability *ability);

#endif
