/* The buffer of preserved pages by itself, step by step, with a limit so small that
 * every slot can be counted: what is held, where a page is, what happens at the limit.
 * test_packing.c has pieces, and pages that move under readers;
 * test_view.c has a fault server that fills the buffer. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "address_space.h"
#include "kernel/fault_points.h"
#include "memory/packer.h"
#include "memory/preserved.h"
#include "memory/preserved_internal.h"

#define CHUNKS 2u
/* What the least limit leaves for leaves and pages. */
#define LEAST_SLOTS (CHUNKS + 64)
#define PAGES       40u
#define LINE_BYTES  64u

static struct preserved preserved;
static char directory[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(directory, sizeof(directory), "/tmp/test_preserved-XXXXXX");
    return !mkdtemp(directory) || preserved_create(&preserved);
}

static int tear_down(void **state)
{
    (void)state;
    fault_points_init();
    preserved_end(&preserved);
    preserved_destroy(&preserved);
    return rmdir(directory);
}

/* ---- pages ----------------------------------------------------------------------- */

enum content { TEXT, NOISE };

/* Every line differs from every other one, of this page and of all others. */
static void fill(unsigned char page[PAGE_BYTES], uint32_t number, enum content content)
{
    uint64_t word = number + 1;
    for (uint32_t at = 0; at < PAGE_BYTES; at += LINE_BYTES) {
        char line[LINE_BYTES + 1];
        snprintf(line, sizeof(line), "%-32s page %010u line %010u", "text", number, at);
        memcpy(page + at, line, LINE_BYTES);
    }
    for (uint32_t at = 0; content == NOISE && at < PAGE_BYTES; at += sizeof(word)) {
        word = (word ^ word >> 29) * UINT64_C(0xbf58476d1ce4e5b9) + number;
        memcpy(page + at, &word, sizeof(word));
    }
}

static int put(uint32_t number, enum content content)
{
    unsigned char page[PAGE_BYTES];
    fill(page, number, content);
    return preserved_put(&preserved, number, page);
}

static void put_all(uint32_t first, uint32_t count, enum content content)
{
    for (uint32_t number = first; number < first + count; number++)
        assert_int_equal(put(number, content), 0);
}

static void check_part(uint32_t number, enum content content, size_t offset,
                       size_t length)
{
    unsigned char page[PAGE_BYTES], got[PAGE_BYTES + 1];
    fill(page, number, content);
    memset(got, 0xee, sizeof(got));
    assert_int_equal(preserved_read(&preserved, number, offset, got, length), 0);
    assert_memory_equal(got, page + offset, length);
    assert_int_equal(got[length], 0xee);
}

/* Whole, and in parts that begin and end anywhere. */
static void check(uint32_t first, uint32_t count, enum content content)
{
    for (uint32_t number = first; number < first + count; number++) {
        assert_true(preserved_has(&preserved, number));
        check_part(number, content, 0, PAGE_BYTES);
        check_part(number, content, 0, 1);
        check_part(number, content, 1, PAGE_BYTES - 1);
        check_part(number, content, PAGE_BYTES - 1, 1);
        check_part(number, content, 1000 + number, 70);
    }
}

static void check_absent(uint32_t number)
{
    unsigned char got[8];
    assert_false(preserved_has(&preserved, number));
    assert_int_equal(preserved_read(&preserved, number, 0, got, sizeof(got)), -ENOENT);
}

/* ---- the buffer ------------------------------------------------------------------ */

static uint64_t least(void)
{
    return preserved_least_limit(CHUNKS);
}

static int try_begin(uint32_t chunks, uint64_t limit, enum buffer_policy policy,
                     bool compress)
{
    struct preserved_settings settings = {.limit = limit,
                                          .policy = policy,
                                          .compress = compress,
                                          .spool_directory = directory};
    return preserved_begin(&preserved, chunks, &settings);
}

static void begin(uint64_t limit, enum buffer_policy policy, bool compress)
{
    assert_int_equal(try_begin(CHUNKS, limit, policy, compress), 0);
}

static void check_within(uint64_t limit)
{
    assert_true(preserved_bytes(&preserved) <= limit);
    assert_true(atomic_load(&preserved.bytes_peak) <= limit);
}

/* All there is to do between faults; 0 or -errno. */
static int work(void)
{
    int more;
    while ((more = preserved_work(&preserved)) == 1)
        continue;
    return more;
}

static uint64_t spooled(void)
{
    return atomic_load(&preserved.pages_spooled);
}

static uint64_t packed(void)
{
    return atomic_load(&preserved.pages_packed);
}

static unsigned open_descriptors(void)
{
    unsigned count = 0;
    DIR *descriptors = opendir("/proc/self/fd");
    assert_non_null(descriptors);
    while (readdir(descriptors))
        count++;
    closedir(descriptors);
    return count;
}

/* Slots that have memory, as the kernel sees it. */
static uint32_t slots_with_memory(void)
{
    size_t count = preserved.slot_count;
    unsigned char *resident = malloc(count);
    uint32_t found = 0;
    assert_int_equal(mincore(preserved.slots, count * PAGE_BYTES, resident), 0);
    for (size_t i = 0; i < count; i++)
        found += resident[i] & 1;
    free(resident);
    return found;
}

/* ---- keeping and reading --------------------------------------------------------- */

static void refuses_a_limit_too_small(void **state)
{
    (void)state;
    assert_int_equal(try_begin(CHUNKS, least() - 1, BUFFER_BLOCK, false), -EDQUOT);
    begin(least(), BUFFER_BLOCK, false);
    /* The promise of the least limit: a leaf for every chunk, and 64 pages. */
    put_all(0, 32, NOISE);
    put_all(PAGES_PER_CHUNK, 32, NOISE);
    check_within(least());
}

static void counts_pages_and_index(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_BLOCK, false);
    uint64_t empty = preserved_bytes(&preserved);
    assert_true(empty >= sizeof(struct packer) + 2 * PAGE_BYTES);
    put_all(5, 1, NOISE); /* the page and its chunk's leaf */
    assert_int_equal(preserved_bytes(&preserved), empty + 2 * SLOT_BYTES);
    put_all(6, 1, NOISE);
    assert_int_equal(preserved_bytes(&preserved), empty + 3 * SLOT_BYTES);
    put_all(PAGES_PER_CHUNK, 1, NOISE);
    assert_int_equal(preserved_bytes(&preserved), empty + 5 * SLOT_BYTES);
    assert_int_equal(atomic_load(&preserved.bytes_peak), preserved_bytes(&preserved));
    assert_int_equal(atomic_load(&preserved.pages), 3);
    assert_int_equal(slots_with_memory(), 5);
}

static void keeps_what_stood_there_first(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES];
    begin(4 << 20, BUFFER_BLOCK, false);
    fill(page, 7, TEXT);
    assert_int_equal(preserved_put(&preserved, 7, page), 0);
    uint64_t bytes = preserved_bytes(&preserved);
    memset(page, 0xee, sizeof(page));
    check(7, 1, TEXT);
    assert_int_equal(preserved_put(&preserved, 7, page), 0);
    check(7, 1, TEXT);
    assert_int_equal(preserved_bytes(&preserved), bytes);
    assert_int_equal(atomic_load(&preserved.pages), 1);
}

/* Nothing is kept from then on, nor believed to be. */
static void keeps_nothing_of_what_is_forgone(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES] = {0};
    begin(4 << 20, BUFFER_BLOCK, false);
    put_all(70, 1, TEXT);
    uint64_t bytes = preserved_bytes(&preserved);
    assert_int_equal(preserved_forgo(&preserved, 64, 64), 0);
    for (uint32_t i = 64; i < 128; i++) {
        assert_true(preserved_has(&preserved, i));
        assert_int_equal(preserved_put(&preserved, i, page), 0);
        assert_int_equal(preserved_read(&preserved, i, 8, page, 8),
                         i == 70 ? 0 : -EFAULT);
    }
    check(70, 1, TEXT);
    check_absent(63);
    check_absent(128);
    assert_null(preserved_place(&preserved, 64, 0));
    assert_int_equal(preserved_bytes(&preserved), bytes);
    assert_int_equal(atomic_load(&preserved.pages), 1);
}

static void knows_what_is_not_preserved(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_BLOCK, false);
    assert_true(preserved_chunk_is_empty(&preserved, 0));
    check_absent(64);
    put_all(64, 1, TEXT);
    assert_false(preserved_chunk_is_empty(&preserved, 0));
    assert_true(preserved_chunk_is_empty(&preserved, 1));
    check(64, 1, TEXT);
    check_absent(0);
    check_absent(63);
    check_absent(65);
    check_absent(64 + PAGES_PER_CHUNK);
}

/* ---- moving ---------------------------------------------------------------------- */

static void moves_from_raw_to_packed_to_the_spool(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, true);
    put_all(0, PAGES, TEXT);
    check(0, PAGES, TEXT);
    assert_int_equal(packed(), 0);
    for (uint32_t i = 1; i <= PAGES; i++) {
        assert_int_equal(moving_pack_one(&preserved), 0);
        assert_int_equal(packed(), i);
        check(0, PAGES, TEXT);
    }
    assert_int_equal(moving_pack_one(&preserved), -ENOENT);
    assert_int_equal(slots_in_use(&preserved),
                     1 + (atomic_load(&preserved.packed_bytes) + PAGE_BYTES - 1) /
                             PAGE_BYTES);
    while (moving_spool_one(&preserved) == 0)
        check(0, PAGES, TEXT);
    assert_int_equal(spooled(), PAGES);
    assert_int_equal(packed(), 0);
    assert_int_equal(atomic_load(&preserved.packed_bytes), 0);
    assert_int_equal(slots_in_use(&preserved), 1); /* the leaf */
    check(0, PAGES, TEXT);
}

static void moves_from_raw_to_the_spool(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, false);
    put_all(0, PAGES, TEXT);
    for (uint32_t i = 1; i <= PAGES; i++) {
        assert_int_equal(moving_spool_one(&preserved), 0);
        assert_int_equal(spooled(), i);
        check(0, PAGES, TEXT);
    }
    assert_int_equal(moving_spool_one(&preserved), -ENOENT);
    assert_true(atomic_load(&preserved.spool.bytes) >= PAGES * PAGE_BYTES);
}

/* Tried once, kept as it is, and the first to leave for the spool. */
static void leaves_noise_as_it_is(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, true);
    put_all(0, PAGES, NOISE);
    put_all(PAGES, PAGES, TEXT);
    for (uint32_t i = 0; i < 2 * PAGES; i++)
        assert_int_equal(moving_pack_one(&preserved), 0);
    assert_int_equal(moving_pack_one(&preserved), -ENOENT);
    assert_int_equal(packed(), PAGES);
    check(0, PAGES, NOISE);
    check(PAGES, PAGES, TEXT);
    for (uint32_t i = 0; i < PAGES; i++)
        assert_int_equal(moving_spool_one(&preserved), 0);
    assert_int_equal(packed(), PAGES);
    while (moving_spool_one(&preserved) == 0)
        continue;
    assert_int_equal(spooled(), 2 * PAGES);
    check(0, PAGES, NOISE);
    check(PAGES, PAGES, TEXT);
}

static void spool_has_no_name(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    begin(least(), BUFFER_SPOOL, false);
    put_all(0, 2 * LEAST_SLOTS, NOISE);
    assert_true(spooled() > 0);
    assert_int_equal(open_descriptors(), before + 1);
    DIR *listing = opendir(directory);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing));)
        assert_int_equal(entry->d_name[0], '.');
    closedir(listing);
    preserved_end(&preserved);
    assert_int_equal(open_descriptors(), before);
}

/* ---- at the limit ---------------------------------------------------------------- */

static void spools_at_the_limit(void **state)
{
    (void)state;
    const uint32_t count = 5 * LEAST_SLOTS;
    begin(least(), BUFFER_SPOOL, false);
    for (uint32_t number = 0; number < count; number++) {
        put_all(number, 1, NOISE);
        check_within(least());
    }
    assert_int_equal(preserved.waits, spooled());
    assert_int_equal(spooled(), count - (LEAST_SLOTS - 1));
    check(0, count, NOISE);
    /* A new leaf must be in memory: a page makes room for it. */
    put_all(PAGES_PER_CHUNK, 1, NOISE);
    check_within(least());
    check(0, count, NOISE);
    check(PAGES_PER_CHUNK, 1, NOISE);
}

/* Refused is refused: nothing is kept, nothing is lost, more room helps. */
static void refuses_at_the_limit(enum buffer_policy policy)
{
    const uint32_t room = LEAST_SLOTS - 1; /* one is the leaf */
    begin(least(), policy, false);
    put_all(0, room, NOISE);
    assert_int_equal(put(room, NOISE), -ENOBUFS);
    assert_int_equal(put(PAGES_PER_CHUNK, NOISE), -ENOBUFS);
    assert_true(preserved_chunk_is_empty(&preserved, 1));
    check_absent(room);
    check(0, room, NOISE);
    assert_int_equal(put(0, NOISE), 0); /* there already */
    check_within(least());
    assert_int_equal(atomic_load(&preserved.pages), room);
    preserved_set_limit(&preserved, least() + 3 * SLOT_BYTES);
    put_all(room, 1, NOISE);
    put_all(PAGES_PER_CHUNK, 1, NOISE);
    assert_int_equal(put(room + 1, NOISE), -ENOBUFS);
    check(0, room + 1, NOISE);
    check_within(least() + 3 * SLOT_BYTES);
}

static void refuses_at_the_limit_when_writers_block(void **state)
{
    (void)state;
    refuses_at_the_limit(BUFFER_BLOCK);
}

static void refuses_at_the_limit_when_saves_abort(void **state)
{
    (void)state;
    refuses_at_the_limit(BUFFER_ABORT);
}

/* ---- another limit meanwhile ----------------------------------------------------- */

static void limit_lowered_moves_pages_out(void **state)
{
    (void)state;
    const uint32_t count = 4 * LEAST_SLOTS;
    begin(4 << 20, BUFFER_SPOOL, false);
    put_all(0, count, NOISE);
    assert_int_equal(spooled(), 0);
    preserved_set_limit(&preserved, 0); /* as low as it can be */
    assert_int_equal(atomic_load(&preserved.limit), least());
    assert_int_equal(work(), 0);
    assert_true(preserved_bytes(&preserved) <= least());
    assert_true(slots_with_memory() <= LEAST_SLOTS);
    assert_int_equal(spooled(), count - (LEAST_SLOTS - 1));
    check(0, count, NOISE);
}

static void limit_raised_gives_room_again(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, false);
    put_all(0, 2 * LEAST_SLOTS, NOISE);
    preserved_set_limit(&preserved, least());
    assert_int_equal(work(), 0);
    uint64_t before = spooled();
    preserved_set_limit(&preserved, 4 << 20);
    put_all(2 * LEAST_SLOTS, 2 * LEAST_SLOTS, NOISE);
    assert_int_equal(spooled(), before);
    assert_int_equal(preserved.waits, 0);
    check(0, 4 * LEAST_SLOTS, NOISE);
    check_within(4 << 20);
}

/* What is in memory cannot leave it: it stays, and no more comes. */
static void limit_lowered_without_a_spool(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_BLOCK, true);
    put_all(0, 2 * LEAST_SLOTS, NOISE);
    preserved_set_limit(&preserved, least());
    assert_int_equal(work(), 0);
    assert_int_equal(put(2 * LEAST_SLOTS, NOISE), -ENOBUFS);
    check(0, 2 * LEAST_SLOTS, NOISE);
    preserved_set_limit(&preserved, 4 << 20);
    put_all(2 * LEAST_SLOTS, 1, NOISE);
    check(0, 2 * LEAST_SLOTS + 1, NOISE);
}

/* ---- one snapshot after the other ------------------------------------------------ */

static void end_gives_everything_back(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, false);
    uint64_t empty = preserved_bytes(&preserved);
    put_all(0, 600, NOISE);
    assert_true(slots_with_memory() > 600);
    preserved_end(&preserved);
    /* A reserve stays, for the next one: an eighth of the limit. */
    uint64_t kept = preserved_bytes(&preserved) - empty;
    assert_true(kept <= (4 << 20) / 8);
    assert_int_equal(slots_with_memory() * SLOT_BYTES, kept);
    begin(4 << 20, BUFFER_SPOOL, false);
    assert_int_equal(atomic_load(&preserved.pages), 0);
    for (uint32_t number = 0; number < 600; number++)
        check_absent(number);
    put_all(0, 10, TEXT);
    check(0, 10, TEXT);
    check_absent(10);
}

static void reserve_is_within_the_limit(void **state)
{
    (void)state;
    const uint64_t high = 16 << 20;
    begin(high, BUFFER_BLOCK, false);
    while (preserved_touch_ahead(&preserved))
        check_within(high);
    uint64_t bytes = preserved_bytes(&preserved);
    assert_true(slots_with_memory() > LEAST_SLOTS);
    assert_true(slots_with_memory() * SLOT_BYTES <= high / 8);
    put_all(0, 100, NOISE); /* in memory that was counted before */
    assert_int_equal(preserved_bytes(&preserved), bytes);
    check(0, 100, NOISE);
    preserved_end(&preserved);
    assert_true(slots_with_memory() > LEAST_SLOTS);
    begin(least(), BUFFER_SPOOL, false);
    check_within(least());
    assert_true(slots_with_memory() <= LEAST_SLOTS);
    put_all(0, 2 * LEAST_SLOTS, NOISE);
    check_within(least());
    check(0, 2 * LEAST_SLOTS, NOISE);
}

/* The index of a heap that has shrunk since must not take the room of its pages. */
static void least_limit_does_after_a_larger_heap(void **state)
{
    (void)state;
    assert_int_equal(try_begin(4000, 64 << 20, BUFFER_BLOCK, false), 0);
    put_all(3999 * PAGES_PER_CHUNK, 1, TEXT);
    preserved_end(&preserved);
    begin(least(), BUFFER_BLOCK, false);
    check_within(least());
    put_all(0, LEAST_SLOTS - 1, NOISE);
    check_within(least());
}

/* The larger index is kept as long as there is room: then it counts. */
static void limit_lowered_after_a_larger_heap(void **state)
{
    (void)state;
    assert_int_equal(try_begin(4000, 64 << 20, BUFFER_BLOCK, false), 0);
    preserved_end(&preserved);
    begin(64 << 20, BUFFER_BLOCK, false);
    preserved_set_limit(&preserved, 0);
    check_within(atomic_load(&preserved.limit));
    put_all(0, LEAST_SLOTS - 1, NOISE);
    assert_int_equal(put(LEAST_SLOTS, NOISE), -ENOBUFS);
    check_within(atomic_load(&preserved.limit));
}

/* ---- what fails ------------------------------------------------------------------ */

static void begin_fails_and_leaves_nothing(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    struct preserved_settings nowhere = {.limit = 4 << 20,
                                         .policy = BUFFER_SPOOL,
                                         .spool_directory = "/nonexistent/directory"};
    fault_point_set("no_memory", true);
    assert_int_equal(try_begin(CHUNKS, 4 << 20, BUFFER_SPOOL, true), -ENOMEM);
    fault_point_set("no_memory", false);
    fault_point_set("spool_open", true);
    assert_int_equal(try_begin(CHUNKS, 4 << 20, BUFFER_SPOOL, true), -EIO);
    fault_point_set("spool_open", false);
    assert_int_equal(preserved_begin(&preserved, CHUNKS, &nowhere), -ENOENT);
    assert_int_equal(open_descriptors(), before);
    assert_int_equal(slots_with_memory(), 0);
    nowhere.policy = BUFFER_BLOCK; /* needs no spool */
    assert_int_equal(preserved_begin(&preserved, CHUNKS, &nowhere), 0);
    put_all(0, 1, TEXT);
}

/* A heap of 80 GB where so much address space cannot be had: the limit's worth will do. */
static void little_address_space(void **state)
{
    (void)state;
    const uint64_t limit = UINT64_C(128) << 20;
    struct rlimit before = leave_address_space(UINT64_C(8) << 30);
    int error = try_begin(20000, limit, BUFFER_SPOOL, false);
    assert_int_equal(setrlimit(RLIMIT_AS, &before), 0);
    assert_int_equal(error, 0);
    put_all(0, PAGES, NOISE);
    put_all(19999 * PAGES_PER_CHUNK, PAGES, NOISE);
    check(0, PAGES, NOISE);
    check_part(19999 * PAGES_PER_CHUNK, NOISE, 0, PAGE_BYTES);
    check_within(limit);
    preserved_set_limit(&preserved, 16 * limit); /* more than is there */
    for (uint32_t page = 0; page < 40 * PAGES_PER_CHUNK; page += 8)
        assert_int_equal(put(page, NOISE), 0);
    assert_true(preserved_bytes(&preserved) <= limit + (UINT64_C(8) << 20));
}

static void spool_that_cannot_be_written(void **state)
{
    (void)state;
    const uint32_t room = LEAST_SLOTS - 1;
    begin(least(), BUFFER_SPOOL, false);
    put_all(0, room, NOISE);
    fault_point_set("spool_write", true);
    assert_int_equal(put(room, NOISE), -EIO);
    check_absent(room);
    assert_int_equal(moving_spool_one(&preserved), -EIO);
    /* No room for the leaf either, for the same reason. */
    assert_int_equal(put(PAGES_PER_CHUNK, NOISE), -EIO);
    check(0, room, NOISE);
    fault_point_set("spool_write", false);
    put_all(room, 1, NOISE);
    put_all(PAGES_PER_CHUNK, 1, NOISE);
    check(0, room + 1, NOISE);
}

static void spool_that_fails_when_the_limit_is_lowered(void **state)
{
    (void)state;
    begin(4 << 20, BUFFER_SPOOL, false);
    put_all(0, 2 * LEAST_SLOTS, NOISE);
    preserved_set_limit(&preserved, least());
    fault_point_set("spool_write", true);
    assert_int_equal(work(), -EIO);
    check(0, 2 * LEAST_SLOTS, NOISE);
    fault_point_set("spool_write", false);
    assert_int_equal(work(), 0);
    assert_true(preserved_bytes(&preserved) <= least());
    check(0, 2 * LEAST_SLOTS, NOISE);
}

static void spool_that_cannot_be_read(void **state)
{
    (void)state;
    unsigned char got[8];
    begin(4 << 20, BUFFER_SPOOL, false);
    put_all(0, 2, NOISE);
    assert_int_equal(moving_spool_one(&preserved), 0);
    fault_point_set("spool_read", true);
    assert_int_equal(preserved_read(&preserved, 0, 0, got, sizeof(got)), -EIO);
    check(1, 1, NOISE); /* still in memory */
    fault_point_set("spool_read", false);
    check(0, 2, NOISE);
    assert_int_equal(ftruncate(atomic_load(&preserved.spool.file), 2000), 0);
    assert_int_equal(preserved_read(&preserved, 0, 3000, got, sizeof(got)), -EIO);
}

/* Whoever reads a page first finds damage anywhere in it, whatever bytes he wants; a page
 * that was found whole is then read by its bytes, also when it is another snapshot's. */
static void spooled_pages_are_checked_first(void **state)
{
    (void)state;
    unsigned char got[8];
    for (int snapshot = 0; snapshot < 2; snapshot++) {
        begin(4 << 20, BUFFER_SPOOL, false);
        put_all(0, 2, NOISE);
        assert_int_equal(moving_spool_one(&preserved), 0);
        assert_int_equal(moving_spool_one(&preserved), 0);
        int file = atomic_load(&preserved.spool.file);
        if (snapshot == 0)
            check(0, 2, NOISE);
        /* The last byte of the first piece, and of the second. */
        for (uint64_t i = 0; i < 2; i++)
            assert_int_equal(
                pwrite(file, "?", 1,
                       (off_t)(i * RAW_PIECE_ROOM + sizeof(struct piece) - 1)),
                1);
        for (uint32_t page = 0; page < 2; page++)
            assert_int_equal(preserved_read(&preserved, page, 0, got, sizeof(got)),
                             snapshot == 0 ? 0 : -EIO);
        preserved_end(&preserved);
    }
}

#define WITH_BUFFER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_BUFFER(refuses_a_limit_too_small),
        WITH_BUFFER(counts_pages_and_index),
        WITH_BUFFER(keeps_what_stood_there_first),
        WITH_BUFFER(keeps_nothing_of_what_is_forgone),
        WITH_BUFFER(knows_what_is_not_preserved),
        WITH_BUFFER(moves_from_raw_to_packed_to_the_spool),
        WITH_BUFFER(moves_from_raw_to_the_spool),
        WITH_BUFFER(leaves_noise_as_it_is),
        WITH_BUFFER(spool_has_no_name),
        WITH_BUFFER(spools_at_the_limit),
        WITH_BUFFER(refuses_at_the_limit_when_writers_block),
        WITH_BUFFER(refuses_at_the_limit_when_saves_abort),
        WITH_BUFFER(limit_lowered_moves_pages_out),
        WITH_BUFFER(limit_raised_gives_room_again),
        WITH_BUFFER(limit_lowered_without_a_spool),
        WITH_BUFFER(end_gives_everything_back),
        WITH_BUFFER(reserve_is_within_the_limit),
        WITH_BUFFER(least_limit_does_after_a_larger_heap),
        WITH_BUFFER(limit_lowered_after_a_larger_heap),
        WITH_BUFFER(begin_fails_and_leaves_nothing),
        WITH_BUFFER(little_address_space),
        WITH_BUFFER(spool_that_cannot_be_written),
        WITH_BUFFER(spool_that_fails_when_the_limit_is_lowered),
        WITH_BUFFER(spool_that_cannot_be_read),
        WITH_BUFFER(spooled_pages_are_checked_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
