#include "memory/preserved.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "memory/packing.h"
#include "memory/preserved_internal.h"

/* Slots whose memory stays for the next snapshot: 8 MB. */
#define RESERVE_SLOTS 2048u
/* Memory is touched so many slots ahead of need, a few at a time: one step
 * must not make a fault wait longer than its own copy takes twice over. */
#define POPULATE_AHEAD 256u
#define POPULATE_STEP  8u
/* Packing starts when this share of the limit is in use. */
#define PACK_ABOVE(allowed) ((allowed) / 4 * 3)
/* Pages packed in a fault, at most, to find room before the spool is used. */
#define PACK_IN_FAULT 3

int preserved_create(struct preserved *preserved)
{
    memset(preserved, 0, sizeof(*preserved));
    atomic_store_explicit(&preserved->spool.file, -1, memory_order_relaxed);
    preserved->packing = memory_map(sizeof(struct packing));
    return preserved->packing ? 0 : -ENOMEM;
}

static void unmap_slots(struct preserved *preserved)
{
    uint64_t count = preserved->slot_count;
    memory_unmap(preserved->slots, count * PAGE_BYTES);
    memory_unmap(preserved->slot_table, count * sizeof(uint32_t));
    memory_unmap(preserved->slot_kinds, count);
    memory_unmap((void *)preserved->directory, preserved->directory_bytes);
    preserved->slots = NULL;
    preserved->slot_table = NULL;
    preserved->slot_kinds = NULL;
    preserved->directory = NULL;
    preserved->slot_count = 0;
    preserved->populated_until = 0;
}

void preserved_destroy(struct preserved *preserved)
{
    spool_close(&preserved->spool);
    unmap_slots(preserved);
    memory_unmap(preserved->packing, sizeof(struct packing));
    preserved->packing = NULL;
}

/* Address space for every page of every chunk and a leaf for each; memory is
 * taken as it is touched. Grows by half more than asked, so that a growing
 * heap does not map anew at each snapshot. */
static int map_slots(struct preserved *preserved, uint32_t chunk_count)
{
    uint64_t count =
        (uint64_t)(chunk_count + chunk_count / 2 + 16) * (PAGES_PER_CHUNK + 1);
    if (count >= UINT32_MAX / 4)
        count = UINT32_MAX / 4;
    unmap_slots(preserved);
    preserved->slot_count = (uint32_t)count;
    preserved->directory_bytes =
        round_up((chunk_count + chunk_count / 2 + 16) * sizeof(uint32_t), PAGE_BYTES);
    preserved->slots = memory_map(count * PAGE_BYTES);
    preserved->slot_table = memory_map(count * sizeof(uint32_t));
    preserved->slot_kinds = memory_map(count);
    preserved->directory = memory_map(preserved->directory_bytes);
    if (preserved->slots && preserved->slot_table && preserved->slot_kinds &&
        preserved->directory && !fault_point(FAULT_NO_MEMORY))
        return 0;
    unmap_slots(preserved);
    return -ENOMEM;
}

static void reset(struct preserved *preserved)
{
    preserved->unused_from = 0;
    preserved->first_warm = NO_SLOT;
    preserved->first_cold = NO_SLOT;
    preserved->raw_count = 0;
    preserved->sweep = 0;
    preserved->open_block = NO_SLOT;
    preserved->open_block_used = 0;
    atomic_store_explicit(&preserved->pages, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_packed, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->packed_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_spooled, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->slots_resident, preserved->populated_until,
                          memory_order_relaxed);
    atomic_store_explicit(&preserved->bytes_peak, preserved_bytes(preserved),
                          memory_order_relaxed);
}

uint64_t preserved_least_limit(uint32_t chunk_count)
{
    /* The directory, a leaf for every chunk, and a little room to work in. */
    return round_up(chunk_count * sizeof(uint32_t), PAGE_BYTES) +
           ((uint64_t)chunk_count + 64) * SLOT_BYTES;
}

int preserved_begin(struct preserved *preserved, uint32_t chunk_count,
                    const struct preserved_settings *settings)
{
    if (settings->limit < preserved_least_limit(chunk_count))
        return -EDQUOT;
    if ((uint64_t)chunk_count * (PAGES_PER_CHUNK + 1) > preserved->slot_count) {
        int error = map_slots(preserved, chunk_count);
        if (error)
            return error;
    }
    preserved->chunk_count = chunk_count;
    preserved->policy = settings->policy;
    preserved->compress = settings->compress;
    atomic_store_explicit(&preserved->limit, settings->limit, memory_order_relaxed);
    reset(preserved);
    if (settings->policy != BUFFER_SPOOL)
        return 0;
    return fault_point(FAULT_SPOOL_OPEN)
               ? -EIO
               : spool_open(&preserved->spool, settings->spool_directory);
}

void preserved_end(struct preserved *preserved)
{
    spool_close(&preserved->spool);
    if (!preserved->slots)
        return;
    uint64_t kept = preserved->populated_until < RESERVE_SLOTS
                        ? preserved->populated_until
                        : RESERVE_SLOTS;
    uint64_t had = preserved->populated_until;
    struct iovec ranges[4] = {
        {(void *)preserved->directory, preserved->directory_bytes},
        {preserved->slots + kept * PAGE_BYTES, (had - kept) * PAGE_BYTES},
        {preserved->slot_table, round_up(had * sizeof(uint32_t), PAGE_BYTES)},
        {preserved->slot_kinds, round_up(had, PAGE_BYTES)},
    };
    /* Nothing was preserved, nothing to clear: the next freeze is as quick. */
    size_t count = 0;
    struct iovec given[4];
    for (size_t i = 0; i < 4; i++)
        if (ranges[i].iov_len)
            given[count++] = ranges[i];
    advice_give_many(given, count, MADV_REMOVE);
    /* Cold slots below the reserve lost their memory: touch it again later. */
    preserved->populated_until = preserved->first_cold == NO_SLOT ? (uint32_t)kept : 0;
    reset(preserved);
}

uint64_t preserved_bytes(const struct preserved *preserved)
{
    return preserved->directory_bytes +
           SLOT_BYTES * (uint64_t)atomic_load_explicit(&preserved->slots_resident,
                                                       memory_order_relaxed);
}

void preserved_set_limit(struct preserved *preserved, uint64_t limit)
{
    atomic_store_explicit(&preserved->limit, limit, memory_order_release);
}

/* ---- slots ----------------------------------------------------------------------- */

uint32_t slots_allowed(const struct preserved *preserved)
{
    uint64_t limit = atomic_load_explicit(&preserved->limit, memory_order_relaxed);
    if (limit <= preserved->directory_bytes)
        return 0;
    uint64_t allowed = (limit - preserved->directory_bytes) / SLOT_BYTES;
    return allowed < preserved->slot_count ? (uint32_t)allowed : preserved->slot_count;
}

static void count_resident(struct preserved *preserved, uint32_t more)
{
    atomic_fetch_add_explicit(&preserved->slots_resident, more, memory_order_relaxed);
    uint64_t bytes = preserved_bytes(preserved);
    if (bytes > atomic_load_explicit(&preserved->bytes_peak, memory_order_relaxed))
        atomic_store_explicit(&preserved->bytes_peak, bytes, memory_order_relaxed);
}

static uint32_t unlink_first(struct preserved *preserved, uint32_t *list)
{
    uint32_t slot = *list;
    *list = preserved->slot_table[slot];
    return slot;
}

static uint32_t slot_find(struct preserved *preserved)
{
    if (preserved->first_warm != NO_SLOT)
        return unlink_first(preserved, &preserved->first_warm);
    if (preserved->unused_from < preserved->populated_until)
        return preserved->unused_from++;
    if (atomic_load_explicit(&preserved->slots_resident, memory_order_relaxed) >=
        slots_allowed(preserved))
        return NO_SLOT;
    count_resident(preserved, 1);
    if (preserved->first_cold != NO_SLOT)
        return unlink_first(preserved, &preserved->first_cold);
    preserved->populated_until++;
    return preserved->unused_from++;
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
    preserved->slot_table[slot] = preserved->first_warm;
    preserved->first_warm = slot;
}

bool slot_cool_one(struct preserved *preserved)
{
    uint32_t slot;
    if (preserved->first_warm != NO_SLOT)
        slot = unlink_first(preserved, &preserved->first_warm);
    else if (preserved->unused_from < preserved->populated_until)
        slot = preserved->unused_from++;
    else
        return false;
    preserved->slot_kinds[slot] = SLOT_FREE;
    preserved->slot_table[slot] = preserved->first_cold;
    preserved->first_cold = slot;
    memory_give_back(slot_bytes(preserved, slot), PAGE_BYTES);
    atomic_fetch_sub_explicit(&preserved->slots_resident, 1, memory_order_relaxed);
    return true;
}

/* ---- keeping a page -------------------------------------------------------------- */

/* Room for something that must be in memory: packs or spools other pages. */
static uint32_t slot_take_making_room(struct preserved *preserved, enum slot_kind kind)
{
    for (;;) {
        uint32_t slot = slot_take(preserved, kind);
        if (slot != NO_SLOT)
            return slot;
        if (preserved->compress && moving_pack_one(preserved) == 0)
            continue;
        if (preserved->policy != BUFFER_SPOOL || moving_spool_one(preserved) != 0)
            return NO_SLOT;
    }
}

static _Atomic uint32_t *entry_or_new_leaf(struct preserved *preserved, uint32_t page)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    if (entry)
        return entry;
    uint32_t leaf = slot_take_making_room(preserved, SLOT_LEAF);
    if (leaf == NO_SLOT)
        return NULL;
    memset(slot_bytes(preserved, leaf), 0, PAGE_BYTES);
    preserved->slot_table[leaf] = NO_PAGE;
    atomic_store_explicit(&preserved->directory[page / PAGES_PER_CHUNK], leaf + 1,
                          memory_order_release);
    return entry_of(preserved, page);
}

static uint32_t slot_for_page(struct preserved *preserved)
{
    uint32_t slot = slot_take(preserved, SLOT_RAW);
    for (int i = 0; slot == NO_SLOT && preserved->compress && i < PACK_IN_FAULT; i++) {
        if (moving_pack_one(preserved) != 0)
            break;
        slot = slot_take(preserved, SLOT_RAW);
    }
    return slot;
}

int preserved_put(struct preserved *preserved, uint32_t page, const void *live)
{
    _Atomic uint32_t *entry = entry_or_new_leaf(preserved, page);
    if (!entry)
        return -ENOBUFS;
    if (atomic_load_explicit(entry, memory_order_relaxed))
        return 0;
    uint32_t slot = slot_for_page(preserved);
    uint32_t published;
    if (slot != NO_SLOT) {
        memcpy(slot_bytes(preserved, slot), live, PAGE_BYTES);
        preserved->slot_table[slot] = page;
        preserved->raw_count++;
        published = ENTRY_MAKE(ENTRY_RAW, slot);
    } else if (preserved->policy == BUFFER_SPOOL) {
        uint32_t number;
        int error = spool_write(&preserved->spool, live, &number);
        if (error)
            return error;
        published = ENTRY_MAKE(ENTRY_SPOOLED, number);
        atomic_fetch_add_explicit(&preserved->pages_spooled, 1, memory_order_relaxed);
    } else {
        return -ENOBUFS;
    }
    /* Before the caller lifts the protection: the order all readers rest on. */
    atomic_store_explicit(entry, published, memory_order_release);
    atomic_fetch_add_explicit(&preserved->pages, 1, memory_order_relaxed);
    return 0;
}

/* ---- work between faults --------------------------------------------------------- */

static int shrink_to_limit(struct preserved *preserved)
{
    if (slot_cool_one(preserved))
        return 1;
    if (preserved->compress && moving_pack_one(preserved) == 0)
        return 1;
    if (preserved->policy != BUFFER_SPOOL)
        return 0;
    int error = moving_spool_one(preserved);
    return error == -ENOENT ? 0 : error ? error : 1;
}

static bool populate_ahead(struct preserved *preserved, uint32_t resident,
                           uint32_t allowed)
{
    if (preserved->populated_until - preserved->unused_from >= POPULATE_AHEAD ||
        preserved->first_warm != NO_SLOT || preserved->first_cold != NO_SLOT ||
        resident + POPULATE_STEP > allowed ||
        preserved->populated_until + POPULATE_STEP > preserved->slot_count)
        return false;
    uint32_t from = preserved->populated_until;
    if (memory_populate(slot_bytes(preserved, from), POPULATE_STEP * PAGE_BYTES) != 0)
        return false;
    preserved->populated_until += POPULATE_STEP;
    count_resident(preserved, POPULATE_STEP);
    return true;
}

int preserved_work(struct preserved *preserved)
{
    uint32_t resident =
        atomic_load_explicit(&preserved->slots_resident, memory_order_relaxed);
    uint32_t allowed = slots_allowed(preserved);
    if (resident > allowed)
        return shrink_to_limit(preserved);
    if (populate_ahead(preserved, resident, allowed))
        return 1;
    if (preserved->compress && preserved->first_warm == NO_SLOT &&
        resident > PACK_ABOVE(allowed) && moving_pack_one(preserved) == 0)
        return 1;
    return 0;
}

/* ---- reading --------------------------------------------------------------------- */

bool preserved_has(const struct preserved *preserved, uint32_t page)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    return entry && atomic_load_explicit(entry, memory_order_acquire) != 0;
}

static int read_packed(const struct preserved *preserved, _Atomic uint32_t *entry,
                       uint32_t seen, size_t offset, void *to, size_t length)
{
    unsigned char piece[PACKED_BYTES_MAX + PACKED_UNIT];
    unsigned char page[PAGE_BYTES];
    uint64_t at = (uint64_t)ENTRY_PLACE(seen) * PACKED_UNIT;
    size_t room = PAGE_BYTES - at % PAGE_BYTES;
    size_t taken = room < sizeof(piece) ? room : sizeof(piece);
    memcpy(piece, preserved->slots + at, taken);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(entry, memory_order_relaxed) != seen)
        return -EAGAIN;
    int error = packing_unpack(piece, taken, page);
    if (!error)
        memcpy(to, page + offset, length);
    return error;
}

/* One attempt: -EAGAIN when the page moved meanwhile. */
static int read_once(struct preserved *preserved, _Atomic uint32_t *entry, uint32_t seen,
                     size_t offset, void *to, size_t length)
{
    switch (ENTRY_TAG(seen)) {
    case ENTRY_RAW:
        memcpy(to, (unsigned char *)slot_bytes(preserved, ENTRY_PLACE(seen)) + offset,
               length);
        atomic_thread_fence(memory_order_acquire);
        return atomic_load_explicit(entry, memory_order_relaxed) == seen ? 0 : -EAGAIN;
    case ENTRY_PACKED:
        return read_packed(preserved, entry, seen, offset, to, length);
    case ENTRY_SPOOLED:
        return spool_read(&preserved->spool, ENTRY_PLACE(seen), offset, to, length) ? -EIO
                                                                                    : 0;
    default: /* ENTRY_MOVING: for the time of one small copy */
        return -EAGAIN;
    }
}

int preserved_read(struct preserved *preserved, uint32_t page, size_t offset, void *to,
                   size_t length)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    if (!entry)
        return -ENOENT;
    for (;;) {
        uint32_t seen = atomic_load_explicit(entry, memory_order_acquire);
        if (!seen)
            return -ENOENT;
        int result = read_once(preserved, entry, seen, offset, to, length);
        if (result != -EAGAIN)
            return result;
    }
}
