#include <sys/mman.h>
#include <sys/uio.h>

#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "memory/preserved_internal.h"

/* Memory that is handed back in one call when the limit was lowered. */
#define COOL_STEP 32

uint32_t slots_allowed(const struct preserved *preserved)
{
    uint64_t limit = preserved_limit(preserved);
    if (fault_point(FAULT_IGNORE_LIMIT))
        return preserved->slot_count;
    if (limit <= preserved->fixed_bytes)
        return 0;
    uint64_t allowed = (limit - preserved->fixed_bytes) / SLOT_BYTES;
    return allowed < preserved->slot_count ? (uint32_t)allowed : preserved->slot_count;
}

uint32_t slots_in_use(const struct preserved *preserved)
{
    uint32_t resident =
        atomic_load_explicit(&preserved->slots_resident, memory_order_relaxed);
    uint32_t until =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    uint32_t unused = atomic_load_explicit(&preserved->unused_from, memory_order_relaxed);
    uint32_t empty = preserved->warm_count + (until - unused);
    /* The upkeep thread counts memory before it makes it available. */
    return resident > empty ? resident - empty : 0;
}

bool slots_take_resident(struct preserved *preserved, uint32_t more)
{
    uint32_t allowed = slots_allowed(preserved);
    uint32_t now = atomic_load_explicit(&preserved->slots_resident, memory_order_relaxed);
    do {
        if (now + more > allowed)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&preserved->slots_resident, &now,
                                                    now + more, memory_order_relaxed,
                                                    memory_order_relaxed));
    uint64_t bytes = preserved->fixed_bytes + SLOT_BYTES * (uint64_t)(now + more);
    uint64_t peak = atomic_load_explicit(&preserved->bytes_peak, memory_order_relaxed);
    while (bytes > peak && !atomic_compare_exchange_weak_explicit(
                               &preserved->bytes_peak, &peak, bytes, memory_order_relaxed,
                               memory_order_relaxed))
        ;
    return true;
}

static uint32_t unlink_first(struct preserved *preserved, uint32_t *list)
{
    uint32_t slot = *list;
    *list = slot_word(preserved, slot);
    return slot;
}

/* A slot that was never used. */
static uint32_t slot_first_use(struct preserved *preserved)
{
    uint32_t slot = atomic_load_explicit(&preserved->unused_from, memory_order_relaxed);
    uint32_t until =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    /* The upkeep thread may move it on at the same moment: then there is a slot. */
    if (slot == until &&
        (slot == preserved->slot_count || !slots_take_resident(preserved, 1)))
        return NO_SLOT;
    if (slot == until && !atomic_compare_exchange_strong_explicit(
                             &preserved->populated_until, &until, until + 1,
                             memory_order_relaxed, memory_order_relaxed))
        atomic_fetch_sub_explicit(&preserved->slots_resident, 1, memory_order_relaxed);
    atomic_store_explicit(&preserved->unused_from, slot + 1, memory_order_relaxed);
    return slot;
}

static uint32_t slot_find(struct preserved *preserved)
{
    if (preserved->first_warm != NO_SLOT) {
        preserved->warm_count--;
        return unlink_first(preserved, &preserved->first_warm);
    }
    if (preserved->first_cold != NO_SLOT && slots_take_resident(preserved, 1))
        return unlink_first(preserved, &preserved->first_cold);
    return slot_first_use(preserved);
}

uint32_t slot_take(struct preserved *preserved, enum slot_kind kind)
{
    uint32_t slot = slot_find(preserved);
    if (slot != NO_SLOT)
        preserved->slot_kinds[slot] = (uint8_t)kind;
    return slot;
}

void slot_free(struct preserved *preserved, uint32_t slot)
{
    preserved->slot_kinds[slot] = SLOT_FREE;
    slot_set_word(preserved, slot, preserved->first_warm);
    preserved->first_warm = slot;
    preserved->warm_count++;
}

/* A free slot that has memory becomes one without. */
static uint32_t cool_one(struct preserved *preserved)
{
    uint32_t slot;
    if (preserved->first_warm != NO_SLOT) {
        slot = unlink_first(preserved, &preserved->first_warm);
        preserved->warm_count--;
    } else if (atomic_load_explicit(&preserved->unused_from, memory_order_relaxed) <
               atomic_load_explicit(&preserved->populated_until, memory_order_relaxed)) {
        slot = slot_first_use(preserved);
    } else {
        return NO_SLOT;
    }
    preserved->slot_kinds[slot] = SLOT_FREE;
    slot_set_word(preserved, slot, preserved->first_cold);
    preserved->first_cold = slot;
    return slot;
}

bool slots_cool(struct preserved *preserved, uint32_t count)
{
    struct iovec given[COOL_STEP];
    uint32_t cooled = 0;
    for (uint32_t slot; cooled < count && cooled < COOL_STEP; cooled++) {
        slot = cool_one(preserved);
        if (slot == NO_SLOT)
            break;
        given[cooled] = (struct iovec){slot_bytes(preserved, slot), PAGE_BYTES};
    }
    if (!cooled)
        return false;
    advice_give_many(given, cooled, MADV_DONTNEED);
    atomic_fetch_sub_explicit(&preserved->slots_resident, cooled, memory_order_relaxed);
    return true;
}
