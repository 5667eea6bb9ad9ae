#include "memory/preserved.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "kernel/advice.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/packer.h"
#include "memory/preserved_internal.h"

/* Memory is touched ahead of need, this part of the limit and no more than so
 * many slots (32 MB), and as much stays for the next snapshot. */
#define RESERVE_SHARE 8u
#define RESERVE_SLOTS 8192u
#define TOUCH_STEP    64u
/* Pages that the least limit has room for, besides the index. */
#define LEAST_PAGES 64u
/* Packing keeps this part of the limit free. */
#define ROOM_SHARE 32u
/* In the course of faults the packer is given so many pages at a time: to wake it
 * for each would cost more than it saves. */
#define PACK_BATCH 16
/* Pages packed in a fault, at most, to find room: before the (slow) spool is
 * used, and before a writer must wait or the snapshot is given up. */
#define PACK_BEFORE_SPOOL 4
#define PACK_BEFORE_WAIT  64
/* Memory that is handed back in one call when the limit was lowered. */
#define COOL_STEP 32

int preserved_create(struct preserved *preserved)
{
    memset(preserved, 0, sizeof(*preserved));
    atomic_store_explicit(&preserved->spool.file, -1, memory_order_relaxed);
    preserved->packer = packer_create();
    return preserved->packer ? 0 : -ENOMEM;
}

int preserved_start_packer(struct preserved *preserved, void (*drained)(void *context),
                           void *context)
{
    return packer_start(preserved->packer, drained, context);
}

void preserved_stop_packer(struct preserved *preserved)
{
    if (preserved->packer)
        packer_stop(preserved->packer);
}

static void unmap_slots(struct preserved *preserved)
{
    uint64_t count = preserved->slot_count;
    memory_unmap_private(preserved->slots);
    memory_unmap(preserved->slot_table, count * sizeof(uint32_t));
    memory_unmap(preserved->slot_kinds, count);
    memory_unmap((void *)preserved->directory, preserved->directory_bytes);
    memory_unmap((void *)preserved->marks, preserved->marks_bytes);
    preserved->slots = NULL;
    preserved->slot_table = NULL;
    preserved->slot_kinds = NULL;
    preserved->directory = NULL;
    preserved->marks = NULL;
    preserved->slot_count = 0;
    atomic_store_explicit(&preserved->populated_until, 0, memory_order_relaxed);
}

void preserved_destroy(struct preserved *preserved)
{
    spool_close(&preserved->spool);
    unmap_slots(preserved);
    if (preserved->packer)
        packer_destroy(preserved->packer);
    preserved->packer = NULL;
}

static size_t directory_bytes(uint32_t chunk_count)
{
    return round_up(((uint64_t)chunk_count + chunk_count / 2 + 16) * sizeof(uint32_t),
                    PAGE_BYTES);
}

static size_t marks_bytes(uint32_t chunk_count)
{
    return round_up(((uint64_t)chunk_count + chunk_count / 2 + 16) * PAGES_PER_CHUNK / 8,
                    PAGE_BYTES);
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
    preserved->directory_bytes = directory_bytes(chunk_count);
    preserved->marks_bytes = marks_bytes(chunk_count);
    preserved->fixed_bytes =
        preserved->directory_bytes + preserved->marks_bytes + sizeof(struct packer);
    preserved->slots = memory_map_private(count * PAGE_BYTES);
    preserved->slot_table = memory_map(count * sizeof(uint32_t));
    preserved->slot_kinds = memory_map(count);
    preserved->directory = memory_map(preserved->directory_bytes);
    preserved->marks = memory_map(preserved->marks_bytes);
    if (preserved->slots && preserved->slot_table && preserved->slot_kinds &&
        preserved->directory && preserved->marks)
        return 0;
    unmap_slots(preserved);
    return -ENOMEM;
}

static void reset(struct preserved *preserved)
{
    atomic_store_explicit(&preserved->unused_from, 0, memory_order_relaxed);
    preserved->first_warm = NO_SLOT;
    preserved->warm_count = 0;
    preserved->first_cold = NO_SLOT;
    preserved->raw_count = 0;
    preserved->sweep = 0;
    preserved->log_first = preserved->log_last = NO_SLOT;
    preserved->log_start = preserved->log_used = 0;
    preserved->waits = preserved->wait_usec = 0;
    atomic_store_explicit(&preserved->pages, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_packed, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->packed_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_spooled, 0, memory_order_relaxed);
    atomic_store_explicit(
        &preserved->slots_resident,
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed),
        memory_order_relaxed);
    atomic_store_explicit(&preserved->bytes_peak, preserved_bytes(preserved),
                          memory_order_relaxed);
}

uint64_t preserved_least_limit(uint32_t chunk_count)
{
    /* The directory, a leaf for every chunk, the packer, and a little room. */
    return directory_bytes(chunk_count) + marks_bytes(chunk_count) +
           sizeof(struct packer) + ((uint64_t)chunk_count + LEAST_PAGES) * SLOT_BYTES;
}

static void lock_touching(struct preserved *preserved)
{
    while (atomic_exchange_explicit(&preserved->touching, 1, memory_order_acquire))
        sleep_usec(10);
}

static void unlock_touching(struct preserved *preserved)
{
    atomic_store_explicit(&preserved->touching, 0, memory_order_release);
}

/* The least limit with what is mapped, which may be for a larger heap. */
static uint64_t least_with(const struct preserved *preserved, uint32_t chunk_count)
{
    return preserved->fixed_bytes + ((uint64_t)chunk_count + LEAST_PAGES) * SLOT_BYTES;
}

/* What is mapped stays, unless it is too small, or its index too large for the
 * limit: the heap was larger then. */
static int make_address_space(struct preserved *preserved, uint32_t chunk_count,
                              uint64_t limit)
{
    if ((uint64_t)chunk_count * (PAGES_PER_CHUNK + 1) <= preserved->slot_count &&
        least_with(preserved, chunk_count) <= limit)
        return 0;
    lock_touching(preserved);
    int error = map_slots(preserved, chunk_count);
    unlock_touching(preserved);
    return error;
}

void preserved_prepare(struct preserved *preserved, uint32_t chunk_count, uint64_t limit)
{
    atomic_store_explicit(&preserved->limit, limit, memory_order_relaxed);
    /* An error will be found again by preserved_begin(), and told. */
    (void)make_address_space(preserved, chunk_count, UINT64_MAX);
}

/* What stayed from the last snapshot counts too. */
static void cut_reserve(struct preserved *preserved)
{
    uint32_t allowed = slots_allowed(preserved);
    uint32_t had =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    if (had <= allowed)
        return;
    advice_give(slot_bytes(preserved, allowed), (uint64_t)(had - allowed) * PAGE_BYTES,
                MADV_DONTNEED);
    atomic_store_explicit(&preserved->populated_until, allowed, memory_order_relaxed);
}

int preserved_begin(struct preserved *preserved, uint32_t chunk_count,
                    const struct preserved_settings *settings)
{
    if (settings->limit < preserved_least_limit(chunk_count))
        return -EDQUOT;
    int error = fault_point(FAULT_NO_MEMORY)
                    ? -ENOMEM
                    : make_address_space(preserved, chunk_count, settings->limit);
    if (error)
        return error;
    preserved->chunk_count = chunk_count;
    preserved->policy = settings->policy;
    preserved->compress = settings->compress;
    atomic_store_explicit(&preserved->limit, settings->limit, memory_order_relaxed);
    lock_touching(preserved);
    cut_reserve(preserved);
    reset(preserved);
    unlock_touching(preserved);
    packer_begin(preserved->packer);
    if (settings->policy == BUFFER_SPOOL)
        error = fault_point(FAULT_SPOOL_OPEN)
                    ? -EIO
                    : spool_open(&preserved->spool, settings->spool_directory);
    preserved->open = !error;
    return error;
}

static uint32_t reserve_slots(const struct preserved *preserved)
{
    uint32_t share = slots_allowed(preserved) / RESERVE_SHARE;
    return share < RESERVE_SLOTS ? share : RESERVE_SLOTS;
}

static void give_back(struct preserved *preserved, uint32_t had, uint32_t kept)
{
    struct iovec slots = {preserved->slots + (uint64_t)kept * PAGE_BYTES,
                          (uint64_t)(had - kept) * PAGE_BYTES};
    struct iovec tables[4] = {
        {(void *)preserved->directory, preserved->directory_bytes},
        {(void *)preserved->marks, preserved->marks_bytes},
        {preserved->slot_table, round_up(had * sizeof(uint32_t), PAGE_BYTES)},
        {preserved->slot_kinds, round_up(had, PAGE_BYTES)},
    };
    /* Nothing was preserved, nothing to clear: the next freeze is as quick. */
    if (!had)
        return;
    advice_give_many(tables, 4, MADV_REMOVE);
    if (slots.iov_len)
        advice_give_many(&slots, 1, MADV_DONTNEED);
}

void preserved_end(struct preserved *preserved)
{
    packer_end(preserved->packer);
    spool_close(&preserved->spool);
    if (!preserved->slots)
        return;
    lock_touching(preserved);
    preserved->open = false;
    uint32_t had =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    uint32_t kept = reserve_slots(preserved) < had ? reserve_slots(preserved) : had;
    /* A reserve with holes could not be counted. */
    if (preserved->first_cold != NO_SLOT)
        kept = 0;
    give_back(preserved, had, kept);
    atomic_store_explicit(&preserved->populated_until, kept, memory_order_relaxed);
    reset(preserved);
    unlock_touching(preserved);
}

uint64_t preserved_bytes(const struct preserved *preserved)
{
    return preserved->fixed_bytes +
           SLOT_BYTES * (uint64_t)atomic_load_explicit(&preserved->slots_resident,
                                                       memory_order_relaxed);
}

void preserved_set_limit(struct preserved *preserved, uint64_t limit)
{
    uint64_t least = least_with(preserved, preserved->chunk_count);
    atomic_store_explicit(&preserved->limit, limit < least ? least : limit,
                          memory_order_release);
}

/* ---- slots ----------------------------------------------------------------------- */

uint32_t slots_allowed(const struct preserved *preserved)
{
    uint64_t limit = atomic_load_explicit(&preserved->limit, memory_order_relaxed);
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
    /* The keeper counts memory before it makes it available. */
    return resident > empty ? resident - empty : 0;
}

/* Counts `more` slots as having memory, unless that passed the limit: the fault
 * server and the keeper both take. */
static bool take_resident(struct preserved *preserved, uint32_t more)
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
    *list = preserved->slot_table[slot];
    return slot;
}

/* A slot that was never used. */
static uint32_t slot_first_use(struct preserved *preserved)
{
    uint32_t slot = atomic_load_explicit(&preserved->unused_from, memory_order_relaxed);
    uint32_t until =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    /* The keeper may move it on at the same moment: then there is a slot. */
    if (slot == until && (slot == preserved->slot_count || !take_resident(preserved, 1)))
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
    if (preserved->first_cold != NO_SLOT && take_resident(preserved, 1))
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
    preserved->slot_table[slot] = preserved->first_warm;
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
    preserved->slot_table[slot] = preserved->first_cold;
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

/* ---- keeping a page -------------------------------------------------------------- */

/* Room for something that must be in memory: packs or spools other pages. */
static uint32_t slot_take_making_room(struct preserved *preserved, enum slot_kind kind)
{
    bool spools = preserved->policy == BUFFER_SPOOL;
    int tries = spools ? PACK_BEFORE_SPOOL : PACK_BEFORE_WAIT;
    moving_collect(preserved);
    for (;;) {
        uint32_t slot = slot_take(preserved, kind);
        if (slot != NO_SLOT)
            return slot;
        if (preserved->compress && tries-- > 0 && moving_pack_one(preserved) == 0)
            continue;
        if (!spools || moving_spool_one(preserved) != 0)
            return NO_SLOT;
    }
}

static _Atomic uint32_t *entry_or_new_leaf(struct preserved *preserved, uint32_t page)
{
    _Atomic uint32_t *entry = entry_of(preserved, page);
    if (entry)
        return entry;
    uint32_t leaf = slot_take(preserved, SLOT_LEAF);
    if (leaf == NO_SLOT)
        leaf = slot_take_making_room(preserved, SLOT_LEAF);
    if (leaf == NO_SLOT)
        return NULL;
    memset(slot_bytes(preserved, leaf), 0, PAGE_BYTES);
    preserved->slot_table[leaf] = NO_PAGE;
    atomic_store_explicit(&preserved->directory[page / PAGES_PER_CHUNK], leaf + 1,
                          memory_order_release);
    return entry_of(preserved, page);
}

static uint32_t keep_raw(struct preserved *preserved, uint32_t slot, uint32_t page,
                         const void *live)
{
    memcpy(slot_bytes(preserved, slot), live, PAGE_BYTES);
    preserved->slot_table[slot] = page;
    preserved->raw_count++;
    return ENTRY_MAKE(ENTRY_RAW, slot);
}

/* A slot for a page at the limit, as long as that costs less than the spool. */
static uint32_t slot_by_packing(struct preserved *preserved, bool pack, int tries)
{
    moving_collect(preserved);
    uint32_t slot = slot_take(preserved, SLOT_RAW);
    for (int i = 0; slot == NO_SLOT && pack && i < tries; i++) {
        if (moving_pack_one(preserved) != 0)
            break;
        slot = slot_take(preserved, SLOT_RAW);
    }
    return slot;
}

/* The buffer is full: the writer waits while another page makes room, or while
 * this one goes to the spool. */
static int keep_at_limit(struct preserved *preserved, uint32_t page, const void *live,
                         uint32_t *entry)
{
    bool spools = preserved->policy == BUFFER_SPOOL;
    bool pack = preserved->compress && (!spools || moving_pack_is_faster(preserved));
    uint32_t slot =
        slot_by_packing(preserved, pack, spools ? PACK_BEFORE_SPOOL : PACK_BEFORE_WAIT);
    if (slot != NO_SLOT) {
        *entry = keep_raw(preserved, slot, page, live);
        return 0;
    }
    return spools ? moving_spool_page(preserved, page, live, pack, entry) : -ENOBUFS;
}

static int keep_page(struct preserved *preserved, uint32_t page, const void *live,
                     uint32_t *entry)
{
    uint32_t slot = slot_take(preserved, SLOT_RAW);
    if (slot != NO_SLOT) {
        *entry = keep_raw(preserved, slot, page, live);
        return 0;
    }
    uint64_t began = clock_usec();
    int error = keep_at_limit(preserved, page, live, entry);
    preserved->wait_usec += clock_usec() - began;
    preserved->waits += !error;
    return error;
}

int preserved_put(struct preserved *preserved, uint32_t page, const void *live)
{
    _Atomic uint32_t *entry = entry_or_new_leaf(preserved, page);
    if (!entry)
        return -ENOBUFS;
    if (atomic_load_explicit(entry, memory_order_relaxed))
        return 0;
    uint32_t published;
    int error = keep_page(preserved, page, live, &published);
    if (error)
        return error;
    /* Before the caller lifts the protection: the order all readers rest on. */
    atomic_store_explicit(entry, published, memory_order_release);
    atomic_fetch_or_explicit(&preserved->marks[page / 64], UINT64_C(1) << (page % 64),
                             memory_order_release);
    atomic_fetch_add_explicit(&preserved->pages, 1, memory_order_relaxed);
    return 0;
}

/* ---- work between faults --------------------------------------------------------- */

/* Nothing is packed before the buffer is nearly full, and then no more than keeps
 * this much room: most snapshots never get there, every packed page costs the saver
 * some microseconds at each read, and the packer's CPU makes faults expensive. */
static bool is_filling(const struct preserved *preserved)
{
    uint32_t allowed = slots_allowed(preserved);
    return preserved->compress &&
           slots_in_use(preserved) > allowed - allowed / ROOM_SHARE;
}

void preserved_tend(struct preserved *preserved)
{
    moving_collect(preserved);
    if (preserved->raw_count >= PACK_BATCH && is_filling(preserved))
        moving_post(preserved, PACK_BATCH);
}

static int shrink_to_limit(struct preserved *preserved, uint32_t excess)
{
    if (slots_cool(preserved, excess))
        return 1;
    if (preserved->compress && moving_pack_one(preserved) == 0)
        return 1;
    if (preserved->policy != BUFFER_SPOOL)
        return 0;
    int error = moving_spool_one(preserved);
    return error == -ENOENT ? 0 : error ? error : 1;
}

/* One step: first the places are taken, then touched; the fault server may write
 * to them meanwhile. */
static bool touch_step(struct preserved *preserved, uint32_t ahead)
{
    uint32_t from =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    uint32_t unused = atomic_load_explicit(&preserved->unused_from, memory_order_relaxed);
    uint32_t step = TOUCH_STEP - from % TOUCH_STEP;
    if (from + step > preserved->slot_count || from + step - unused > ahead ||
        !take_resident(preserved, step))
        return false;
    while (!atomic_compare_exchange_weak_explicit(&preserved->populated_until, &from,
                                                  from + step, memory_order_relaxed,
                                                  memory_order_relaxed))
        ;
    memory_touch(slot_bytes(preserved, from), (size_t)step * PAGE_BYTES);
    return true;
}

bool preserved_touch_ahead(struct preserved *preserved)
{
    lock_touching(preserved);
    bool more = preserved->slots && touch_step(preserved, reserve_slots(preserved));
    unlock_touching(preserved);
    return more;
}

int preserved_work(struct preserved *preserved)
{
    moving_collect(preserved);
    uint32_t resident =
        atomic_load_explicit(&preserved->slots_resident, memory_order_relaxed);
    uint32_t allowed = slots_allowed(preserved);
    if (resident > allowed)
        return shrink_to_limit(preserved, resident - allowed);
    if (!is_filling(preserved))
        return 0;
    if (!preserved->packer->thread.running)
        return moving_pack_one(preserved) == 0;
    moving_post(preserved, 1);
    return 0;
}
