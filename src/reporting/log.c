#include "log.h"

#include <stdio.h>
#include <string.h>

#include "kernel/contract.h"
#include "snapshot/service.h"

static bool take_message(struct snapshot *snapshot, enum rdb_uffd_level *level,
                         char text[MESSAGE_BYTES])
{
    bool found = false;
    short_lock_take(&snapshot->log_lock);
    if (snapshot->log_count) {
        *level = snapshot->log[snapshot->log_first].level;
        memcpy(text, snapshot->log[snapshot->log_first].text, MESSAGE_BYTES);
        snapshot->log_first = (snapshot->log_first + 1) % MESSAGES;
        snapshot->log_count--;
        found = true;
    }
    short_lock_release(&snapshot->log_lock);
    return found;
}

void log_now(struct snapshot *snapshot, enum rdb_uffd_level level, const char *text)
{
    DEMAND_MAIN_THREAD();
    if (level != RDB_UFFD_WARNING || log_limit_pass(&the_service.warnings, clock_usec()))
        snapshot->host->log(level, text);
}

static void log_left_out(struct snapshot *snapshot)
{
    char text[MESSAGE_BYTES];
    uint64_t count = log_limit_left_out(&the_service.warnings, clock_usec());
    if (!count)
        return;
    snprintf(text, sizeof(text), "uffd: %llu more warnings within a minute were left out",
             (unsigned long long)count);
    snapshot->host->log(RDB_UFFD_WARNING, text);
}

void log_hand_over(struct snapshot *snapshot)
{
    DEMAND_MAIN_THREAD();
    enum rdb_uffd_level level;
    char text[MESSAGE_BYTES];
    while (take_message(snapshot, &level, text))
        log_now(snapshot, level, text);
    log_left_out(snapshot);
}
