#include "memory/preserved.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "kernel/advice.h"
#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/guarded_copy.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "memory/packer.h"
#include "memory/preserved_internal.h"

/* Memory is touched ahead of need, this part of the limit and no more than so
 * many slots (32 MB), and as much stays for the next snapshot. */
#define RESERVE_SHARE 8u
#define RESERVE_SLOTS 8192u
#define TOUCH_STEP    64u
/* And no more than this part of the heap, since it is memory that the server takes for
 * good; what was mapped for it has room for half as much again. */
#define RESERVE_HEAP_SHARE  48u
#define RESERVE_SLOTS_LEAST 512u
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

int preserved_create(struct preserved *preserved)
{
    DEMAND_MAIN_THREAD();
    memset(preserved, 0, sizeof(*preserved));
    atomic_store_explicit(&preserved->spool.file, -1, memory_order_relaxed);
    atomic_store_explicit(&preserved->ceiling, UINT64_MAX, memory_order_relaxed);
    preserved->packer = packer_create();
    return preserved->packer ? spool_create(&preserved->spool) : -ENOMEM;
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
    memory_unmap(preserved->slots, count * PAGE_BYTES);
    memory_unmap(preserved->slot_table, count * sizeof(uint32_t));
    memory_unmap(preserved->slot_kinds, count);
    memory_unmap((void *)preserved->directory, preserved->directory_bytes);
    memory_unmap((void *)preserved->marks, preserved->marks_bytes);
    memory_unmap((void *)preserved->checked, preserved->marks_bytes);
    preserved->slots = NULL;
    preserved->slot_table = NULL;
    preserved->slot_kinds = NULL;
    preserved->directory = NULL;
    preserved->marks = preserved->checked = NULL;
    preserved->slot_count = 0;
    preserved->mapped_chunks = 0;
    atomic_store_explicit(&preserved->populated_until, 0, memory_order_relaxed);
}

void preserved_destroy(struct preserved *preserved)
{
    DEMAND_MAIN_THREAD();
    spool_close(&preserved->spool);
    spool_destroy(&preserved->spool);
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

static int map_so_many(struct preserved *preserved, uint64_t count)
{
    preserved->slot_count = (uint32_t)count;
    preserved->slots = memory_map_private(count * PAGE_BYTES);
    preserved->slot_table = memory_map(count * sizeof(uint32_t));
    preserved->slot_kinds = memory_map(count);
    preserved->directory = memory_map(preserved->directory_bytes);
    preserved->marks = memory_map(preserved->marks_bytes);
    preserved->checked = memory_map(preserved->marks_bytes);
    if (preserved->slots && preserved->slot_table && preserved->slot_kinds &&
        preserved->directory && preserved->marks && preserved->checked)
        return 0;
    unmap_slots(preserved);
    return -ENOMEM;
}

/* Address space for every page of every chunk and a leaf for each; memory is
 * taken as it is touched. Grows by half more than asked, so that a growing
 * heap does not map anew at each snapshot. Where address space is counted like
 * memory (vm.overcommit_memory 2) it may be too much: then for the limit only, and a
 * limit raised during the snapshot has no effect beyond that. */
static int map_slots(struct preserved *preserved, uint32_t chunk_count)
{
    uint64_t count =
        (uint64_t)(chunk_count + chunk_count / 2 + 16) * (PAGES_PER_CHUNK + 1);
    uint64_t for_limit =
        atomic_load_explicit(&preserved->limit, memory_order_relaxed) / SLOT_BYTES;
    if (count >= UINT32_MAX / 4)
        count = UINT32_MAX / 4;
    unmap_slots(preserved);
    preserved->directory_bytes = directory_bytes(chunk_count);
    preserved->marks_bytes = marks_bytes(chunk_count);
    preserved->fixed_bytes =
        preserved->directory_bytes + 2 * preserved->marks_bytes + sizeof(struct packer);
    int error = map_so_many(preserved, count);
    if (error && for_limit < count)
        error = map_so_many(preserved, for_limit);
    if (!error)
        preserved->mapped_chunks = chunk_count + chunk_count / 2;
    return error;
}

static void reset(struct preserved *preserved)
{
    atomic_store_explicit(&preserved->unused_from, 0, memory_order_relaxed);
    preserved->first_warm = NO_SLOT;
    preserved->warm_count = 0;
    preserved->first_cold = NO_SLOT;
    preserved->raw_count = 0;
    preserved->sweep = 0;
    preserved->words_log = preserved->lz4_log =
        (struct packed_log){.first = NO_SLOT, .last = NO_SLOT};
    preserved->waits = preserved->wait_usec = 0;
    atomic_store_explicit(&preserved->pages, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_packed, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->packed_bytes, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_spooled, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->pages_spooled_at_limit, 0, memory_order_relaxed);
    atomic_store_explicit(&preserved->leaves, 0, memory_order_relaxed);
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
    return directory_bytes(chunk_count) + 2 * marks_bytes(chunk_count) +
           sizeof(struct packer) + ((uint64_t)chunk_count + LEAST_PAGES) * SLOT_BYTES;
}

/* The least limit with what is mapped, which may be for a larger heap. */
static uint64_t least_with(const struct preserved *preserved, uint32_t chunk_count)
{
    return preserved->fixed_bytes + ((uint64_t)chunk_count + LEAST_PAGES) * SLOT_BYTES;
}

/* What is mapped stays, unless it is too small, or its index too large for the
 * limit: the heap was larger then. With `touching` held. */
static int make_address_space(struct preserved *preserved, uint32_t chunk_count,
                              uint64_t limit)
{
    if (preserved->slots && chunk_count <= preserved->mapped_chunks &&
        least_with(preserved, chunk_count) <= limit)
        return 0;
    return map_slots(preserved, chunk_count);
}

void preserved_prepare(struct preserved *preserved, uint32_t chunk_count, uint64_t limit)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    DEMAND(!preserved->open);
    atomic_store_explicit(&preserved->limit, limit, memory_order_relaxed);
    /* An error will be found again by preserved_begin(), and told. */
    short_lock_take(&preserved->touching);
    (void)make_address_space(preserved, chunk_count, UINT64_MAX);
    short_lock_release(&preserved->touching);
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

static int take_from_toucher(struct preserved *preserved)
{
    int error = short_lock_take_within(
        &preserved->touching, preserved->toucher_is_late ? 0 : LOCK_IN_TIME_USEC);
    preserved->toucher_is_late = error != 0;
    return error;
}

/* Empty, and of the right size. */
static int make_room(struct preserved *preserved, uint32_t chunk_count, uint64_t limit)
{
    int error = take_from_toucher(preserved);
    if (error)
        return error;
    error = fault_point(FAULT_NO_MEMORY)
                ? -ENOMEM
                : make_address_space(preserved, chunk_count, limit);
    if (!error) {
        preserved->chunk_count = chunk_count;
        cut_reserve(preserved);
        reset(preserved);
    }
    short_lock_release(&preserved->touching);
    return error;
}

int preserved_begin(struct preserved *preserved, uint32_t chunk_count,
                    const struct preserved_settings *settings)
{
    DEMAND_MAIN_THREAD();
    DEMAND(!preserved->open);
    if (settings->limit < preserved_least_limit(chunk_count))
        return -EDQUOT;
    atomic_store_explicit(&preserved->limit, settings->limit, memory_order_relaxed);
    int error = make_room(preserved, chunk_count, settings->limit);
    if (error)
        return error;
    preserved->policy = settings->policy;
    preserved->compress = settings->compress;
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
    uint64_t of_heap =
        (uint64_t)preserved->mapped_chunks * PAGES_PER_CHUNK / RESERVE_HEAP_SHARE;
    if (of_heap < RESERVE_SLOTS_LEAST)
        of_heap = RESERVE_SLOTS_LEAST;
    if (share > of_heap)
        share = (uint32_t)of_heap;
    return share < RESERVE_SLOTS ? share : RESERVE_SLOTS;
}

static void give_memory_back(struct preserved *preserved, uint32_t had, uint32_t kept)
{
    struct iovec slots = {preserved->slots + (uint64_t)kept * PAGE_BYTES,
                          (uint64_t)(had - kept) * PAGE_BYTES};
    struct iovec tables[5] = {
        {(void *)preserved->directory, preserved->directory_bytes},
        {(void *)preserved->marks, preserved->marks_bytes},
        {(void *)preserved->checked, preserved->marks_bytes},
        {preserved->slot_table, round_up(had * sizeof(uint32_t), PAGE_BYTES)},
        {preserved->slot_kinds, round_up(had, PAGE_BYTES)},
    };
    /* Nothing was preserved, nothing to clear: the next freeze is as quick. */
    if (!had)
        return;
    /* What is left in the index would be taken for pages of the next snapshot. Locked
     * memory cannot be removed. */
    if (advice_give_many(tables, 5, MADV_REMOVE) != 0) {
        memset((void *)preserved->directory, 0, preserved->directory_bytes);
        memset((void *)preserved->marks, 0, preserved->marks_bytes);
        memset((void *)preserved->checked, 0, preserved->marks_bytes);
    }
    if (slots.iov_len)
        advice_give_many(&slots, 1, MADV_DONTNEED);
}

void preserved_end(struct preserved *preserved)
{
    DEMAND_NOT_THREAD(THREAD_FAULT_SERVER);
    packer_end(preserved->packer);
    spool_close(&preserved->spool);
    if (!preserved->slots)
        return;
    short_lock_take(&preserved->touching);
    preserved->open = false;
    uint32_t had =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    uint32_t kept = reserve_slots(preserved) < had ? reserve_slots(preserved) : had;
    /* A reserve with holes could not be counted. */
    if (preserved->first_cold != NO_SLOT)
        kept = 0;
    give_memory_back(preserved, had, kept);
    atomic_store_explicit(&preserved->populated_until, kept, memory_order_relaxed);
    reset(preserved);
    short_lock_release(&preserved->touching);
}

/* The count of what is populated stays: nobody touches it again, or fills it anew when the
 * server lives on. */
void preserved_abandon_reserve(struct preserved *preserved)
{
    size_t slots =
        atomic_load_explicit(&preserved->populated_until, memory_order_relaxed);
    if (!preserved->open && preserved->slots)
        advice_give(preserved->slots, slots * SLOT_BYTES, MADV_DONTNEED);
}

uint64_t preserved_bytes(const struct preserved *preserved)
{
    return preserved->fixed_bytes +
           SLOT_BYTES * (uint64_t)atomic_load_explicit(&preserved->slots_resident,
                                                       memory_order_relaxed);
}

uint64_t preserved_index_bytes(const struct preserved *preserved)
{
    return preserved->fixed_bytes +
           SLOT_BYTES *
               (uint64_t)atomic_load_explicit(&preserved->leaves, memory_order_relaxed);
}

void preserved_set_limit(struct preserved *preserved, uint64_t limit)
{
    uint64_t least = least_with(preserved, preserved->chunk_count);
    atomic_store_explicit(&preserved->limit, limit < least ? least : limit,
                          memory_order_release);
}

void preserved_set_ceiling(struct preserved *preserved, uint64_t ceiling)
{
    DEMAND_THREAD(THREAD_UPKEEP);
    atomic_store_explicit(&preserved->ceiling, ceiling, memory_order_release);
}

uint64_t preserved_limit(const struct preserved *preserved)
{
    uint64_t limit = atomic_load_explicit(&preserved->limit, memory_order_relaxed);
    uint64_t ceiling = atomic_load_explicit(&preserved->ceiling, memory_order_relaxed);
    if (ceiling >= limit)
        return limit;
    /* The index has its memory whatever there is room for. */
    uint64_t least = least_with(preserved, preserved->chunk_count);
    return ceiling > least ? ceiling : least < limit ? least : limit;
}

/* ---- keeping a page -------------------------------------------------------------- */

/* Room for something that must be in memory: packs or spools other pages. 0, -ENOBUFS
 * when there is none, or the spool's -errno. */
static int take_making_room(struct preserved *preserved, enum slot_kind kind,
                            uint32_t *slot)
{
    bool spools = preserved->policy == BUFFER_SPOOL;
    int tries = spools ? PACK_BEFORE_SPOOL : PACK_BEFORE_WAIT;
    moving_collect(preserved);
    while ((*slot = slot_take(preserved, kind)) == NO_SLOT) {
        if (preserved->compress && tries-- > 0 && moving_pack_one(preserved) == 0)
            continue;
        int error = spools ? moving_spool_one(preserved) : -ENOBUFS;
        if (error)
            return error == -ENOENT ? -ENOBUFS : error;
    }
    return 0;
}

/* The entry of a page, in a new leaf if its chunk has none. As above. */
static int find_entry(struct preserved *preserved, uint32_t page,
                      _Atomic uint32_t **entry)
{
    uint32_t leaf;
    *entry = entry_of(preserved, page);
    if (*entry)
        return 0;
    int error = take_making_room(preserved, SLOT_LEAF, &leaf);
    if (error)
        return error;
    memset(slot_bytes(preserved, leaf), 0, PAGE_BYTES);
    slot_set_word(preserved, leaf, NO_PAGE);
    atomic_fetch_add_explicit(&preserved->leaves, 1, memory_order_relaxed);
    atomic_store_explicit(&preserved->directory[page / PAGES_PER_CHUNK], leaf + 1,
                          memory_order_release);
    *entry = entry_of(preserved, page);
    return 0;
}

static int store_raw(struct preserved *preserved, uint32_t slot, uint32_t page,
                     const void *live, uint32_t *entry)
{
    int error = guarded_copy(slot_bytes(preserved, slot),
                             fault_point_lost(FAULT_LOST_PRESERVING, live), PAGE_BYTES);
    if (error) {
        slot_free(preserved, slot);
        return error;
    }
    slot_set_word(preserved, slot, page);
    preserved->raw_count++;
    *entry = ENTRY_MAKE(ENTRY_RAW, slot);
    return 0;
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
static int store_at_limit(struct preserved *preserved, uint32_t page, const void *live,
                          uint32_t *entry)
{
    bool spools = preserved->policy == BUFFER_SPOOL;
    bool pack = preserved->compress && (!spools || moving_pack_is_faster(preserved));
    uint32_t slot =
        slot_by_packing(preserved, pack, spools ? PACK_BEFORE_SPOOL : PACK_BEFORE_WAIT);
    if (slot != NO_SLOT)
        return store_raw(preserved, slot, page, live, entry);
    return spools ? moving_spool_page(preserved, page, live, pack, entry) : -ENOBUFS;
}

static int store_page(struct preserved *preserved, uint32_t page, const void *live,
                      uint32_t *entry)
{
    uint32_t slot = slot_take(preserved, SLOT_RAW);
    if (slot != NO_SLOT)
        return store_raw(preserved, slot, page, live, entry);
    uint64_t began = clock_usec();
    int error = store_at_limit(preserved, page, live, entry);
    preserved->wait_usec += clock_usec() - began;
    preserved->waits += !error;
    return error;
}

/* Before the caller lifts the protection: the order all readers rest on. */
static void publish_first(struct preserved *preserved, uint32_t page,
                          _Atomic uint32_t *entry, uint32_t published)
{
    atomic_store_explicit(entry, published, memory_order_release);
    atomic_fetch_or_explicit(&preserved->marks[page / 64], UINT64_C(1) << (page % 64),
                             memory_order_release);
}

static void publish_kept(struct preserved *preserved, uint32_t page,
                         _Atomic uint32_t *entry, uint32_t published)
{
    publish_first(preserved, page, entry, published);
    atomic_fetch_add_explicit(&preserved->pages, 1, memory_order_relaxed);
}

int preserved_put(struct preserved *preserved, uint32_t page, const void *live)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    _Atomic uint32_t *entry;
    uint32_t published;
    int error = find_entry(preserved, page, &entry);
    if (error)
        return error;
    if (atomic_load_explicit(entry, memory_order_relaxed))
        return 0;
    error = store_page(preserved, page, live, &published);
    if (!error)
        publish_kept(preserved, page, entry, published);
    return error;
}

int preserved_forgo(struct preserved *preserved, uint32_t first, uint32_t count)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    DEMAND(first / PAGES_PER_CHUNK == (first + count - 1) / PAGES_PER_CHUNK);
    _Atomic uint32_t *entries;
    int error = find_entry(preserved, first, &entries);
    for (uint32_t i = 0; i < count && !error; i++)
        if (!atomic_load_explicit(&entries[i], memory_order_relaxed))
            publish_first(preserved, first + i, &entries[i], ENTRY_FORGONE);
    return error;
}

int preserved_put_spooled(struct preserved *preserved, uint32_t page, uint32_t place)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
    DEMAND(preserved->policy == BUFFER_SPOOL);
    _Atomic uint32_t *entry;
    int error = find_entry(preserved, page, &entry);
    if (error || atomic_load_explicit(entry, memory_order_relaxed))
        return error;
    publish_kept(preserved, page, entry, ENTRY_MAKE(ENTRY_SPOOLED, place));
    atomic_fetch_add_explicit(&preserved->pages_spooled, 1, memory_order_relaxed);
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
    DEMAND_THREAD(THREAD_FAULT_SERVER);
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
        !slots_take_resident(preserved, step))
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
    DEMAND_THREAD(THREAD_UPKEEP);
    short_lock_take(&preserved->touching);
    fault_point_hang(FAULT_HUNG_WITH_BUFFER);
    bool more = preserved->slots && touch_step(preserved, reserve_slots(preserved));
    short_lock_release(&preserved->touching);
    return more;
}

int preserved_work(struct preserved *preserved)
{
    DEMAND_THREAD(THREAD_FAULT_SERVER);
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
