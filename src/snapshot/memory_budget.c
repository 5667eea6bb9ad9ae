#include "memory_budget.h"

#include "kernel/contract.h"
#include "kernel/memory_room.h"

/* What the buffer may hold, given what it holds: more by what is left above the reserve,
 * or less by what of the reserve is gone. */
static uint64_t ceiling_with(const struct memory_room *room, uint64_t held)
{
    uint64_t reserve = memory_room_reserve(room->limit);
    if (room->left >= reserve)
        return held + (room->left - reserve);
    uint64_t gone = reserve - room->left;
    return held > gone ? held - gone : 0;
}

void memory_budget_update(struct snapshot *snapshot)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    struct preserved *preserved = &snapshot->preserved;
    uint64_t ceiling = UINT64_MAX, spare = UINT64_MAX;
    struct memory_room room;
    /* Where that much is left, what files take makes no difference. */
    uint64_t enough = 2 * atomic_load_explicit(&preserved->limit, memory_order_relaxed) +
                      MEMORY_ROOM_RESERVE_MOST;
    memory_room_find("", enough, &room);
    if (room.limit) {
        uint64_t held = preserved_bytes(preserved);
        uint64_t reserve = memory_room_reserve(room.limit);
        ceiling = ceiling_with(&room, held);
        spare = room.left > reserve ? room.left - reserve : 0;
    }
    atomic_store_explicit(&snapshot->memory_spare, spare, memory_order_relaxed);
    preserved_set_ceiling(preserved, ceiling);
    /* What is held above it goes to the spool. */
    if (snapshot_phase(snapshot) != PHASE_NONE && preserved_bytes(preserved) > ceiling)
        fault_server_nudge(&snapshot->fault_server);
}

uint64_t memory_budget_spare(const struct snapshot *snapshot)
{
    return atomic_load_explicit(&snapshot->memory_spare, memory_order_relaxed);
}
