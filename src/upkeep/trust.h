/* Whether what the module reads of the server is believed.
 *
 *   not proved ── a comparison with what the server says: proof_try() ──▶ proved
 *       │                                                                  │  ▲
 *       │ the comparison differs                  a walk met what cannot   │  │ a kind of key
 *       ▼                                         be: trust_note_end()     ▼  │ was compared;
 *   saves fork from now on                                      saves fork ───┘ "enabled" set
 *
 * What is known stands in the_service (snapshot/service.h). Main thread. */
#ifndef RDB_UFFD_TRUST_H
#define RDB_UFFD_TRUST_H

#include "snapshot/snapshot.h"

/* At load, the server being known. Without keys it is left to what follows. */
void trust_prove_at_load(struct snapshot *snapshot);
/* Before a save, if it was not proved yet. 0; -errno with `reason` (REASON_BYTES): this save
 * is to fork. */
int trust_prove_for_save(struct snapshot *snapshot, char *reason);
/* At a tick between saves: what has not been compared yet, now and then. */
void trust_prove_in_time(struct snapshot *snapshot);
/* A save has ended: saves fork from now on if its walk or its audit found what cannot be. */
void trust_note_end(struct snapshot *snapshot);
/* The operator wants saves without fork to be tried again. */
void trust_try_again(void);

#endif
