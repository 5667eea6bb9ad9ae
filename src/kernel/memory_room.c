#include "kernel/memory_room.h"

#include <stdlib.h>
#include <string.h>

#include "kernel/control_group.h"

/* Of the group's limit, within bounds: what the server takes between two looks, some
 * 40 ms, at several hundred MB a second. */
#define RESERVE_SHARE 16
#define RESERVE_LEAST (UINT64_C(8) << 20)

/* The first version says "no limit" with a number near 2^63. */
#define NO_LIMIT   (UINT64_C(1) << 60)
#define STAT_BYTES 8192

struct search {
    uint64_t enough;
    struct memory_room *room;
};

/* NO_LIMIT when there is no number. */
static uint64_t read_bytes(const char *directory, const char *file)
{
    char text[64], *end;
    if (!control_group_read(directory, file, text, sizeof(text)))
        return NO_LIMIT;
    unsigned long long bytes = strtoull(text, &end, 10);
    return end == text || bytes > NO_LIMIT ? NO_LIMIT : bytes;
}

/* The number behind a name at the start of a line. */
static uint64_t figure(const char *text, const char *name)
{
    size_t length = strlen(name);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == ' ')
            return strtoull(line + length + 1, NULL, 10);
    }
    return 0;
}

/* Pages of files, spool and dump among them, that need not be written first. Those of
 * tmpfs are not among them. */
static uint64_t reclaimable(const char *directory, bool unified)
{
    char text[STAT_BYTES];
    if (!control_group_read(directory, "memory.stat", text, sizeof(text)))
        return 0;
    uint64_t files =
        unified ? figure(text, "inactive_file") + figure(text, "active_file")
                : figure(text, "total_inactive_file") + figure(text, "total_active_file");
    uint64_t unwritten =
        unified ? figure(text, "file_dirty") + figure(text, "file_writeback")
                : figure(text, "total_dirty") + figure(text, "total_writeback");
    return files > unwritten ? files - unwritten : 0;
}

static void look_at_group(const char *directory, bool unified, void *context)
{
    struct search *search = context;
    uint64_t limit =
        read_bytes(directory, unified ? "memory.max" : "memory.limit_in_bytes");
    uint64_t high = unified ? read_bytes(directory, "memory.high") : NO_LIMIT;
    uint64_t least = high < limit ? high : limit;
    uint64_t used =
        read_bytes(directory, unified ? "memory.current" : "memory.usage_in_bytes");
    if (least == NO_LIMIT || used == NO_LIMIT)
        return;
    if (used + search->enough > least) {
        uint64_t free = reclaimable(directory, unified);
        used -= free < used ? free : used;
    }
    uint64_t left = used < least ? least - used : 0;
    if (left < search->room->left)
        *search->room = (struct memory_room){least, used, left, high < limit};
}

void memory_room_find(const char *root, uint64_t enough, struct memory_room *room)
{
    *room = (struct memory_room){.left = UINT64_MAX};
    struct search search = {enough, room};
    control_groups_visit(root, "memory", look_at_group, &search);
}

uint64_t memory_room_reserve(uint64_t limit)
{
    uint64_t share = limit / RESERVE_SHARE;
    return share < RESERVE_LEAST              ? RESERVE_LEAST
           : share > MEMORY_ROOM_RESERVE_MOST ? MEMORY_ROOM_RESERVE_MOST
                                              : share;
}
