#include "history.h"

#include <errno.h>

void history_clear(struct history *history)
{
    history->count = history->next = 0;
}

void history_add(struct history *history, const struct history_entry *entry)
{
    history->entries[history->next] = *entry;
    history->next = (history->next + 1) % HISTORY_SAVES;
    if (history->count < HISTORY_SAVES)
        history->count++;
}

static size_t place_of(const struct history *history, size_t back)
{
    return (history->next + HISTORY_SAVES - 1 - back) % HISTORY_SAVES;
}

void history_note_freeze(struct history *history, uint64_t usec)
{
    history->entries[place_of(history, 0)].freeze_usec = usec;
}

const struct history_entry *history_at(const struct history *history, size_t back)
{
    if (back >= history->count)
        return NULL;
    return &history->entries[place_of(history, back)];
}

enum history_result history_result_of(int error)
{
    if (error == -ECANCELED)
        return HISTORY_CANCELLED;
    return error ? HISTORY_FAILED : HISTORY_OK;
}

const char *history_result_name(enum history_result result)
{
    static const char *const names[] = {"ok", "failed", "cancelled", "forked", "refused"};
    return names[result];
}
