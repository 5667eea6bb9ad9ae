#include "trust.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "host/module_values.h"
#include "kernel/contract.h"
#include "memory/metadata.h"
#include "reporting/log.h"
#include "snapshot/service.h"
#include "upkeep/proof.h"
#include "view/audit.h"

/* After so long a tick looks for more to compare. */
#define PROVE_EVERY_USEC 60000000
/* A value of a type that no walker knows is looked for again after the first, then after
 * twice as long for every save that met one: such a save has failed, and a server may take
 * no writes before the next. */
#define STRANGER_FIRST_USEC UINT64_C(1000000)
#define STRANGER_MOST_USEC  UINT64_C(3600000000)

static void doubt_stranger(const char *name, frozen_address object)
{
    snprintf(the_service.doubt, REASON_BYTES,
             "there is %s, which this version of the module does not know", name);
    the_service.doubt_end = DOUBT_WHILE_STRANGER;
    the_service.stranger = object;
    if (!the_service.stranger_pause_usec)
        the_service.stranger_pause_usec = STRANGER_FIRST_USEC;
    the_service.stranger_look_usec = clock_usec() + the_service.stranger_pause_usec;
}

static void fail_for_stranger(const struct snapshot *snapshot)
{
    uint64_t pause = 2 * the_service.stranger_pause_usec;
    the_service.stranger_pause_usec =
        pause < STRANGER_MOST_USEC ? pause : STRANGER_MOST_USEC;
    doubt_stranger(snapshot->failed_where, snapshot->stranger);
}

/* What lies there may be what is left of it: nothing is lost then but time. */
static void look_for_stranger(void)
{
    if (!the_service.doubt[0] || the_service.doubt_end != DOUBT_WHILE_STRANGER ||
        clock_usec() < the_service.stranger_look_usec)
        return;
    if (proof_finds_stranger(the_service.stranger)) {
        the_service.stranger_look_usec = clock_usec() + STRANGER_FIRST_USEC;
        return;
    }
    the_service.doubt[0] = '\0';
    the_service.proof_tried_usec = 0; /* there may be others */
}

static int prove(struct snapshot *snapshot, char *reason)
{
    struct keyspace_kinds before = the_service.proved_kinds;
    struct proof_stranger stranger = {0};
    int error = proof_try(snapshot->host, &the_service.proved_kinds, &stranger, reason,
                          REASON_BYTES);
    if (!error)
        the_service.proved = true;
    if (the_service.doubt_end == DOUBT_UNTIL_COMPARED &&
        memcmp(&before, &the_service.proved_kinds, sizeof(before)) != 0) {
        the_service.doubt_end = DOUBT_UNTIL_TOLD;
        the_service.doubt[0] = '\0';
    }
    if (stranger.name && !the_service.doubt[0] && (!error || error == -ENODATA))
        doubt_stranger(stranger.name, stranger.object);
    if (error != -EAGAIN)
        the_service.proof_tried_usec = clock_usec();
    return error;
}

/* Found out only now, because there was no key at load. */
static void fork_from_now_on(struct snapshot *snapshot, const char *reason)
{
    char text[MESSAGE_BYTES + REASON_BYTES];
    memcpy(the_service.layout_reason, reason, REASON_BYTES);
    memcpy(the_service.unsupported, reason, REASON_BYTES);
    snapshot->ability.error = -ENOTSUP;
    snprintf(text, sizeof(text), "uffd: background saves use fork from now on: %s",
             reason);
    log_now(snapshot, RDB_UFFD_WARNING, text);
}

/* At the first save, if no tick came before. Only that save is refused: amid a command,
 * as this may be, a cluster's server looks for every key in the slot of the command, and
 * may seem not to have it. The next tick decides. */
int trust_prove_for_save(struct snapshot *snapshot, char *reason)
{
    DEMAND_MAIN_THREAD();
    int error = the_service.proved ? 0 : prove(snapshot, reason);
    if (error == -ENOTSUP)
        the_service.proof_tried_usec = 0;
    if (error != -ENOTSUP && the_service.doubt[0]) {
        memcpy(reason, the_service.doubt, REASON_BYTES);
        return -ENOTSUP;
    }
    return error == -EAGAIN ? 0 : error;
}

void trust_prove_in_time(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    char reason[REASON_BYTES];
    look_for_stranger();
    uint64_t tried = the_service.proof_tried_usec;
    if (tried && clock_usec() - tried < PROVE_EVERY_USEC)
        return;
    if (proof_has_keys(snapshot->host) && prove(snapshot, reason) == -ENOTSUP)
        fork_from_now_on(snapshot, reason);
}

/* When there are no keys yet, later. */
void trust_prove_at_load(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    if (prove(snapshot, the_service.layout_reason) != -ENOTSUP)
        the_service.layout_reason[0] = '\0';
}

/* A module's value that came by none of the ways that are watched: only now it is known
 * that there is one. */
static bool was_unnoticed(void)
{
    char reason[REASON_BYTES];
    return module_values_are_possible() &&
           module_values_find(reason, sizeof(reason)) == 0;
}

/* The next walk would end the same way, and no save would ever succeed. */
void trust_note_end(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    if (snapshot->walk_error == -ENOTSUP && was_unnoticed())
        module_values_note(NULL);
    else if (snapshot->walk_error == KEYSPACE_STRANGER)
        fail_for_stranger(snapshot);
    else if (snapshot->walk_error == AUDIT_LOST)
        snprintf(the_service.doubt, REASON_BYTES, "save %llu failed: %.160s",
                 (unsigned long long)snapshot->record.id, snapshot->last_error);
    else if (snapshot->walk_error)
        snprintf(the_service.doubt, REASON_BYTES, "save %llu met %s, reading %s",
                 (unsigned long long)snapshot->record.id,
                 snapshot->walk_error == -ENOTSUP ? "what only a fork can save"
                 : snapshot->walk_error == -ENODATA
                     ? "what the layout from a file is not proved for yet"
                     : "unexpected data in the server's memory",
                 snapshot->failed_where ? snapshot->failed_where : "its keys");
    if (snapshot->walk_error == -ENODATA) {
        the_service.doubt_end = DOUBT_UNTIL_COMPARED;
        the_service.proof_tried_usec = 0;
    } else if (snapshot->walk_error && snapshot->walk_error != KEYSPACE_STRANGER) {
        the_service.doubt_end = DOUBT_UNTIL_TOLD;
    }
    /* It may have been memory that nobody has registered, or that was left out. */
    if (snapshot->walk_error) {
        metadata_forget();
        heap_note_change(&snapshot->heap);
    }
    snapshot->walk_error = 0;
}

void trust_try_again(void)
{
    DEMAND_MAIN_THREAD();
    the_service.doubt[0] = '\0';
    the_service.stranger_pause_usec = 0;
}
