/* How much memory this process may still take: its control groups' limits, by which
 * containers and units are kept to a part of the machine. Who takes more than memory.max is
 * killed, who takes more than memory.high is slowed down until he stands still. */
#ifndef RDB_UFFD_KERNEL_MEMORY_ROOM_H
#define RDB_UFFD_KERNEL_MEMORY_ROOM_H

#include <stdbool.h>
#include <stdint.h>

/* Of the group, among those that the process is in, that leaves the least. */
struct memory_room {
    uint64_t limit; /* bytes; 0: there is none, or it cannot be seen */
    uint64_t used;  /* without what the kernel can take back at once: clean files */
    uint64_t left;  /* of the limit; UINT64_MAX when there is none */
    bool high;      /* it is memory.high */
};

/* Looks at memory.max and memory.high, or memory.limit_in_bytes in the first version's
 * hierarchy. What can be taken back is only asked for, which takes longer, where less than
 * `enough` bytes are left without it. `root`: as in control_group.h. Reads a few files;
 * neither allocates nor locks. */
void memory_room_find(const char *root, uint64_t enough, struct memory_room *room);

/* What should be kept free of such a limit, bytes: what the server takes between two
 * looks. */
uint64_t memory_room_reserve(uint64_t limit);
#define MEMORY_ROOM_RESERVE_MOST (UINT64_C(64) << 20)

#endif
