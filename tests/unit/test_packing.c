/* Pieces, and the packed logs under the preserved pages: packed by
 * the packer's thread, moved to the spool, read by other threads all the while. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernel/fault_points.h"
#include "memory/packer.h"
#include "memory/preserved.h"

static uint64_t random_state;

static uint64_t next_of(uint64_t *state)
{
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint32_t below(uint32_t limit)
{
    return (uint32_t)(next_of(&random_state) % limit);
}

static int seed(void **state)
{
    (void)state;
    const char *text = getenv("SEED");
    random_state = text ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
    print_message("SEED=%llu\n", (unsigned long long)random_state);
    return 0;
}

/* ---- pages ----------------------------------------------------------------------- */

enum kind { JSON, TEXT, NOISE, ZEROS, HALF_NOISE, ENTRIES, KINDS };

static size_t json_record(uint64_t *random, char *to, size_t room)
{
    static const char *const cities[] = {"Lisbon", "Oslo", "Quito", "Seoul", "Turin"};
    unsigned a = (unsigned)next_of(random), b = (unsigned)next_of(random);
    int length = snprintf(
        to, room,
        "{\"id\":%u,\"session\":\"%08x%08x\",\"email\":\"user%u@example.com\","
        "\"created\":\"2024-%02u-%02uT%02u:%02u:00Z\",\"city\":\"%s\",\"balance\":%u.%"
        "02u,"
        "\"active\":%s,\"visits\":%u}",
        a % 10000000, b, a ^ b * 7, b % 100000, a % 12 + 1, b % 28 + 1, a % 24, b % 60,
        cities[a % 5], b % 9000, a % 100, a & 64 ? "true" : "false", b % 500);
    return (size_t)length < room ? (size_t)length : room;
}

/* Of a hash table, as servers have them: two pointers into a heap of 1 to 128 GB, and one to
 * the next entry, if there is one. */
static void entries(uint64_t *random, unsigned char page[PAGE_BYTES])
{
    const uint64_t heap = UINT64_C(0x7f12c0000000), bytes = UINT64_C(1)
                                                            << (30 + next_of(random) % 8);
    for (size_t at = 0; at < PAGE_BYTES; at += 8) {
        uint64_t word = next_of(random) % bytes;
        word = at / 8 % 3 == 2 && next_of(random) % 3 ? 0 : heap + word;
        memcpy(page + at, &word, 8);
    }
}

/* What page `number` holds, the same each time it is asked. */
static void make_page(uint64_t seed_of_run, uint32_t number, enum kind kind,
                      unsigned char page[PAGE_BYTES])
{
    uint64_t random = seed_of_run + number * UINT64_C(0x100000001b3);
    size_t noise = kind == NOISE ? PAGE_BYTES : kind == HALF_NOISE ? PAGE_BYTES / 2 : 0;
    memset(page, 0, PAGE_BYTES);
    for (size_t at = 0; at < noise; at += 8) {
        uint64_t word = next_of(&random);
        memcpy(page + at, &word, 8);
    }
    for (size_t at = noise; kind == JSON && at < PAGE_BYTES;)
        at += json_record(&random, (char *)page + at, PAGE_BYTES - at);
    for (size_t at = noise; kind == TEXT && at < PAGE_BYTES; at++)
        page[at] = (unsigned char)"etaoin shrdlu"[next_of(&random) % 13];
    if (kind == ENTRIES)
        entries(&random, page);
    memcpy(page, &number, sizeof(number));
}

static enum kind kind_of(uint32_t number)
{
    return (enum kind)(number * 2654435761u >> 16) % KINDS;
}

/* ---- pieces ---------------------------------------------------------------------- */

static LZ4_stream_t work_space;

static void every_kind_comes_back(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], back[PAGE_BYTES];
    struct piece piece;
    for (uint32_t i = 0; i < 500; i++) {
        make_page(random_state, i, kind_of(i), page);
        size_t bytes = piece_pack(&piece, &work_space, i, page);
        if (kind_of(i) == NOISE)
            assert_int_equal(bytes, 0);
        if (!bytes)
            bytes = piece_of_raw(&piece, i, page);
        else
            assert_true(bytes <= PIECE_BYTES_MAX);
        assert_int_equal(piece_unpack(&piece, bytes, i, back, PAGE_BYTES), 0);
        assert_memory_equal(page, back, PAGE_BYTES);
        assert_int_equal(piece_unpack(&piece, bytes, i + 1, back, PAGE_BYTES), -EIO);
        assert_int_equal(piece_unpack(&piece, bytes - 1, i, back, PAGE_BYTES), -EIO);
    }
}

static void damage_is_found(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], back[PAGE_BYTES];
    struct piece piece;
    for (uint32_t i = 0; i < 2000; i++) {
        make_page(random_state, i, JSON, page);
        size_t bytes = i % 2 ? piece_pack(&piece, &work_space, i, page)
                             : piece_of_raw(&piece, i, page);
        ((unsigned char *)&piece)[below((uint32_t)bytes)] ^=
            (unsigned char)(1u << below(8));
        assert_int_equal(piece_unpack(&piece, bytes, i, back, PAGE_BYTES), -EIO);
    }
}

/* Into any room, and nothing beside it; each part is the same whether it is had alone or
 * not. */
static void parts_of_words_come_back(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES], kept[PAGE_BYTES + 1], whole[PAGE_BYTES],
        part[PAGE_BYTES];
    struct word_classes classes;
    unsigned low_bytes, packed[WORD_LOW_BYTES + 2] = {0}, refused = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        make_page(random_state, i, i % 4 ? ENTRIES : kind_of(i), page);
        size_t room = 1000 + below(2000);
        memset(kept + room, 0xee, sizeof(kept) - room);
        size_t bytes = words_pack(&classes, kept, room, &low_bytes, page);
        assert_int_equal(kept[room], 0xee);
        refused += bytes == room + 1;
        if (bytes > room)
            continue;
        packed[low_bytes]++;
        words_unpack(&classes, low_bytes, kept, 0, PAGE_BYTES, whole);
        assert_memory_equal(whole, page, PAGE_BYTES);
        size_t offset = below(PAGE_BYTES);
        size_t length = 1 + below((uint32_t)(PAGE_BYTES - offset));
        if (i % 2 && length > 24)
            length = 24;
        struct word_span span = words_span(&classes, low_bytes, offset, length);
        assert_true(span.start + span.bytes <= bytes);
        words_unpack(&classes, low_bytes, kept + span.start, offset, length, part);
        assert_memory_equal(part, page + offset, length);
    }
    print_message("%u with 4 bytes a pointer, %u with 5, %u refused\n",
                  packed[WORD_LOW_BYTES], packed[WORD_LOW_BYTES + 1], refused);
    assert_true(packed[WORD_LOW_BYTES] > 100 && packed[WORD_LOW_BYTES + 1] > 100);
    assert_true(refused > 100);
}

/* What a reader copies while it changes is any bytes: thrown away later, and nothing is
 * written or read beside what is there until then. */
static void any_bytes_pass_for_words(void **state)
{
    (void)state;
    struct word_classes classes;
    unsigned char *span = malloc(PAGE_BYTES), *part;
    for (uint32_t i = 0; i < 20000; i++) {
        for (size_t at = 0; at < sizeof(classes); at += 8) {
            uint64_t word = next_of(&random_state) | (i % 3 ? 0 : UINT64_MAX);
            memcpy((char *)&classes + at, &word, 8);
        }
        size_t offset = below(PAGE_BYTES);
        size_t length = 1 + below((uint32_t)(PAGE_BYTES - offset));
        unsigned low_bytes = below(9);
        struct word_span of = words_span(&classes, low_bytes, offset, length);
        assert_true(of.start + of.bytes <= PAGE_BYTES);
        span = realloc(span, of.bytes + 1);
        part = malloc(length);
        words_unpack(&classes, low_bytes, span, offset, length, part);
        free(part);
    }
    free(span);
}

/* Of most heaps half is left, and of one that no pointer's head tells apart from another's a
 * little more. */
static void entries_are_packed_as_words(void **state)
{
    (void)state;
    unsigned char page[PAGE_BYTES];
    struct piece piece;
    size_t bytes = 0;
    for (uint32_t i = 0; i < 500; i++) {
        make_page(random_state, i, ENTRIES, page);
        bytes += piece_pack(&piece, &work_space, i, page);
        assert_int_equal(piece.header.form, PIECE_WORDS);
    }
    print_message("a page of entries takes %zu bytes\n", bytes / 500);
    assert_true(bytes / 500 < 2250);
}

/* ---- the packed logs ------------------------------------------------------------- */

#define CHUNKS 6u
#define PAGES  (CHUNKS * PAGES_PER_CHUNK)

static struct run {
    struct preserved preserved;
    uint64_t seed;
    bool mixed; /* pages of all kinds, else JSON */
    _Atomic bool stop;
    _Atomic uint32_t put; /* the first so many pages in `order` */
    _Atomic uint64_t reads, wrong;
    uint32_t order[PAGES];
    unsigned char pages[PAGES][PAGE_BYTES]; /* what they hold */
} run;

static bool reads_right(uint32_t number, size_t offset, size_t length)
{
    unsigned char got[PAGE_BYTES];
    return preserved_read(&run.preserved, number, offset, got, length) == 0 &&
           memcmp(run.pages[number] + offset, got, length) == 0;
}

/* Mostly the pages put last: those are the ones that move. */
static void *reader(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument + run.seed;
    while (!atomic_load(&run.stop)) {
        uint32_t put = atomic_load_explicit(&run.put, memory_order_acquire);
        if (!put)
            continue;
        uint32_t back =
            (uint32_t)(next_of(&random) % (random & 3 && put > 32 ? 32 : put));
        uint32_t number = run.order[put - 1 - back];
        size_t offset = next_of(&random) % (PAGE_BYTES / 2);
        size_t length = 1 + next_of(&random) % (PAGE_BYTES - offset);
        if (!reads_right(number, offset, length))
            atomic_fetch_add(&run.wrong, 1);
        atomic_fetch_add(&run.reads, 1);
    }
    return NULL;
}

static void begin_run(uint64_t limit, enum buffer_policy policy, bool compress)
{
    struct preserved_settings settings = {.limit = limit,
                                          .policy = policy,
                                          .compress = compress,
                                          .spool_directory = "/tmp"};
    run.seed = next_of(&random_state);
    atomic_store(&run.put, 0);
    for (uint32_t i = 0; i < PAGES; i++)
        run.order[i] = i;
    for (uint32_t i = PAGES - 1; i; i--) {
        uint32_t other = below(i + 1), page = run.order[i];
        run.order[i] = run.order[other];
        run.order[other] = page;
    }
    for (uint32_t i = 0; i < PAGES; i++)
        make_page(run.seed, i, run.mixed ? kind_of(i) : JSON, run.pages[i]);
    assert_int_equal(preserved_begin(&run.preserved, CHUNKS, &settings), 0);
}

/* Puts pages until there is no room; what preserved_put() said. */
static int put_more(uint32_t count)
{
    unsigned char page[PAGE_BYTES];
    for (; count && run.put < PAGES; count--) {
        memcpy(page, run.pages[run.order[run.put]], PAGE_BYTES);
        int error = preserved_put(&run.preserved, run.order[run.put], page);
        if (error)
            return error;
        memset(page, 0xee, sizeof(page));
        atomic_fetch_add_explicit(&run.put, 1, memory_order_release);
        preserved_tend(&run.preserved);
    }
    return 0;
}

static void work(void)
{
    for (int i = 0; i < 20000; i++) {
        int more = preserved_work(&run.preserved);
        assert_true(more >= 0);
        if (more == 0)
            break;
    }
}

static void check_all(void)
{
    for (uint32_t i = 0; i < run.put; i++)
        assert_true(reads_right(run.order[i], 0, PAGE_BYTES));
    assert_int_equal(atomic_load(&run.preserved.pages), run.put);
    assert_int_equal(atomic_load(&run.wrong), 0);
}

static void check_within(uint64_t limit)
{
    assert_true(preserved_bytes(&run.preserved) <= limit);
    assert_true(atomic_load(&run.preserved.bytes_peak) <= limit);
}

static void drained(void *context)
{
    (void)context;
}

static int create_run(void **state)
{
    (void)state;
    memset(&run, 0, sizeof(run));
    return preserved_create(&run.preserved);
}

static int create_run_with_thread(void **state)
{
    return create_run(state) || preserved_start_packer(&run.preserved, drained, NULL);
}

static int destroy_run(void **state)
{
    (void)state;
    fault_points_init();
    preserved_end(&run.preserved);
    preserved_stop_packer(&run.preserved);
    preserved_destroy(&run.preserved);
    return 0;
}

/* The promise: twice the pages of JSON, index and all. */
static uint32_t pages_held(bool compress)
{
    const uint64_t limit = 4 << 20;
    begin_run(limit, BUFFER_BLOCK, compress);
    while (put_more(1) == 0 && run.put < PAGES)
        work();
    check_within(limit);
    check_all();
    uint32_t held = run.put;
    preserved_end(&run.preserved);
    return held;
}

static void json_takes_half_the_room(void **state)
{
    (void)state;
    uint32_t raw = pages_held(false), packed = pages_held(true);
    print_message("4 MB hold %u pages raw, %u packed: %.2f times\n", raw, packed,
                  (double)packed / raw);
    assert_true(raw > 800);
    assert_true(packed >= 2 * raw);
}

/* Without idle time, in the course of faults alone. */
static void packs_in_faults_alone(void **state)
{
    (void)state;
    const uint64_t limit = 4 << 20;
    begin_run(limit, BUFFER_ABORT, true);
    assert_int_equal(put_more(2000), 0);
    check_within(limit);
    check_all();
}

static void moves_with_readers(bool mixed)
{
    pthread_t readers[2];
    run.mixed = mixed;
    for (int round = 0; round < 5; round++) {
        uint64_t limit = (UINT64_C(1) << 20) + below(5 << 20);
        begin_run(limit, BUFFER_SPOOL, true);
        atomic_store(&run.stop, false);
        for (size_t i = 0; i < 2; i++)
            pthread_create(&readers[i], NULL, reader, (void *)i);
        while (run.put < PAGES) {
            assert_int_equal(put_more(1 + below(40)), 0);
            check_within(limit);
            if (below(3) == 0)
                work();
        }
        /* Down to the least, so that the log's oldest pieces leave it. */
        while (limit > 1 << 20) {
            limit -= limit / 4;
            preserved_set_limit(&run.preserved, limit);
            work();
        }
        atomic_store(&run.stop, true);
        for (size_t i = 0; i < 2; i++)
            pthread_join(readers[i], NULL);
        check_all();
        preserved_end(&run.preserved);
    }
    print_message("%llu reads meanwhile\n", (unsigned long long)atomic_load(&run.reads));
    assert_true(atomic_load(&run.reads) > 100);
}

static void json_moves_with_readers(void **state)
{
    (void)state;
    moves_with_readers(false);
}

static void all_kinds_move_with_readers(void **state)
{
    (void)state;
    moves_with_readers(true);
}

/* All of the log leaves, also the slot that is being filled, and begins anew. */
static void log_empties_and_fills_again(void **state)
{
    (void)state;
    uint64_t high = 4 << 20, low = preserved_least_limit(CHUNKS);
    begin_run(high, BUFFER_SPOOL, true);
    for (int round = 0; round < 4; round++) {
        assert_int_equal(put_more(1200), 0);
        work();
        preserved_set_limit(&run.preserved, low);
        work();
        assert_true(preserved_bytes(&run.preserved) <= low);
        check_all();
        preserved_set_limit(&run.preserved, high);
    }
    assert_true(atomic_load(&run.preserved.pages_spooled) > 4000);
}

static uint32_t form_of(uint32_t number)
{
    struct piece piece;
    return piece_pack(&piece, &work_space, number, run.pages[number]) ? piece.header.form
                                                                      : PIECE_RAW;
}

/* Returns how many there are. */
static uint32_t entries_first(void)
{
    uint32_t first = 0;
    for (uint32_t i = 0; i < PAGES; i++) {
        uint32_t page = run.order[i];
        if (form_of(page) != PIECE_WORDS)
            continue;
        run.order[i] = run.order[first];
        run.order[first++] = page;
    }
    return first;
}

/* They are the oldest, and all else is in the spool before the first of them is. */
static void entries_stay_in_memory(void **state)
{
    (void)state;
    uint32_t in_memory = 0;
    run.mixed = true;
    begin_run(16 << 20, BUFFER_SPOOL, true);
    uint32_t words = entries_first();
    assert_int_equal(put_more(PAGES), 0);
    for (uint64_t limit = 15 << 20; limit > 1 << 20; limit -= 128 << 10) {
        preserved_set_limit(&run.preserved, limit);
        work();
        if (atomic_load(&run.preserved.pages_spooled) >= PAGES - words)
            break;
    }
    uint64_t spooled = atomic_load(&run.preserved.pages_spooled);
    fault_point_set("spool_read", true);
    for (uint32_t i = 0; i < words; i++)
        in_memory += reads_right(run.order[i], 8, 24);
    fault_point_set("spool_read", false);
    print_message("%u pages of entries, %u in memory; %u others, %llu spooled\n", words,
                  in_memory, PAGES - words, (unsigned long long)spooled);
    assert_true(spooled >= PAGES - words);
    assert_int_equal(spooled - (PAGES - words), words - in_memory);
    assert_true(in_memory > words / 2);
    check_all();
}

static void expect_damage(const char *fault, uint32_t least)
{
    unsigned char got[PAGE_BYTES];
    uint32_t refused = 0;
    fault_point_set(fault, true);
    for (uint32_t i = 0; i < run.put; i++)
        refused += preserved_read(&run.preserved, run.order[i], 0, got, 64) == -EIO;
    fault_point_set(fault, false);
    assert_true(refused > least);
    check_all();
}

static void damage_fails_reads(void **state)
{
    (void)state;
    begin_run(4 << 20, BUFFER_SPOOL, true);
    assert_int_equal(put_more(1500), 0);
    work();
    assert_true(atomic_load(&run.preserved.pages_packed) > 10);
    expect_damage("damaged_page", 10);
    preserved_set_limit(&run.preserved, 0);
    work();
    expect_damage("damaged_spool", run.put / 10);
}

/* A spool that takes 2 ms for a page: packing is preferred, and what is spooled
 * is packed. */
static void slow_spool_gets_packed_pages(void **state)
{
    (void)state;
    begin_run(1 << 20, BUFFER_SPOOL, true);
    fault_point_set("spool_slow", true);
    assert_int_equal(put_more(800), 0);
    uint64_t spooled = atomic_load(&run.preserved.pages_spooled);
    uint64_t bytes = atomic_load(&run.preserved.spool.bytes);
    print_message("%llu pages spooled in %llu bytes\n", (unsigned long long)spooled,
                  (unsigned long long)bytes);
    assert_true(spooled > 50);
    assert_true(bytes < spooled * PAGE_BYTES * 2 / 3);
    check_all();
}

#define WITH_RUN(test) cmocka_unit_test_setup_teardown(test, create_run, destroy_run)
#define WITH_THREAD(test)                                                                \
    {                                                                                    \
#test "_by_thread", test, create_run_with_thread, destroy_run, NULL              \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_comes_back),
        cmocka_unit_test(damage_is_found),
        cmocka_unit_test(parts_of_words_come_back),
        cmocka_unit_test(any_bytes_pass_for_words),
        cmocka_unit_test(entries_are_packed_as_words),
        WITH_RUN(json_takes_half_the_room),
        WITH_RUN(packs_in_faults_alone),
        WITH_THREAD(packs_in_faults_alone),
        WITH_RUN(json_moves_with_readers),
        WITH_THREAD(json_moves_with_readers),
        WITH_RUN(all_kinds_move_with_readers),
        WITH_THREAD(all_kinds_move_with_readers),
        WITH_RUN(log_empties_and_fills_again),
        WITH_RUN(entries_stay_in_memory),
        WITH_RUN(damage_fails_reads),
        WITH_THREAD(slow_spool_gets_packed_pages),
    };
    return cmocka_run_group_tests(tests, seed, NULL);
}
