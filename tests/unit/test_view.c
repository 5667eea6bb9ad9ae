/* View and fault server against a toy process: threads write to memory that was
 * frozen while a reader checks every byte it gets against what stood there. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernel/ability.h"
#include "kernel/fault_points.h"
#include "kernel/memory.h"
#include "kernel/userfaultfd.h"
#include "memory/pages.h"
#include "memory/preserved.h"
#include "memory/regions.h"
#include "view/fault_server.h"
#include "view/view.h"

#define TOY_BYTES (UINT64_C(24) << 20)
#define WORDS     (TOY_BYTES / sizeof(uint64_t))
#define WRITERS   3
#define READS     60000
/* Pages, of 6,144. */
#define WRITTEN_LEAST 1024

/* What the toy consists of, all of it in memory that is never protected. */
struct toy {
    uint64_t *words; /* word i holds mark(i) at the freeze */
    int userfaultfd;
    struct preserved preserved;
    struct view view;
    struct fault_server server;
    struct region_set regions;
    struct region region[4];
    atomic_bool stopping;
    atomic_int failures;
    uint64_t seed;
};
static struct toy *toy;

static uint64_t mark(uint64_t index)
{
    return index * 0x9E3779B97F4A7C15u + 12345;
}

static uint64_t number(uint64_t *state, uint64_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (*state >> 33) % below;
}

static void on_failure(void *context, int error)
{
    (void)context, (void)error;
    atomic_fetch_add(&toy->failures, 1);
}

static int set_up_with(int advice)
{
    struct ability ability;
    toy = memory_map(sizeof(*toy));
    if (!toy || ability_probe(&ability) != 0)
        return -1;
    toy->words =
        mmap(NULL, TOY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (advice)
        madvise(toy->words, TOY_BYTES, advice);
    for (uint64_t i = 0; i < WORDS; i++)
        toy->words[i] = mark(i);
    toy->userfaultfd = userfaultfd_open();
    if (userfaultfd_handshake(toy->userfaultfd, ability_features(&ability), NULL) ||
        userfaultfd_register(toy->userfaultfd, (uintptr_t)toy->words, TOY_BYTES))
        return -1;
    regions_init(&toy->regions, toy->region, 4);
    regions_add(&toy->regions, (uintptr_t)toy->words, (uintptr_t)toy->words + TOY_BYTES);
    toy->seed = (uint64_t)time(NULL);
    printf("SEED=%llu\n", (unsigned long long)toy->seed);
    return preserved_create(&toy->preserved) ||
           view_create(&toy->view, &toy->preserved) ||
           fault_server_start(&toy->server, &toy->view, on_failure, NULL);
}

static int set_up(void **state)
{
    (void)state;
    return set_up_with(0);
}

static int set_up_huge(void **state)
{
    (void)state;
    return set_up_with(MADV_HUGEPAGE);
}

static int tear_down(void **state)
{
    (void)state;
    fault_server_stop(&toy->server);
    view_destroy(&toy->view);
    preserved_destroy(&toy->preserved);
    close(toy->userfaultfd);
    munmap(toy->words, TOY_BYTES);
    memory_unmap(toy, sizeof(*toy));
    return 0;
}

static void freeze_with(uint64_t limit, enum buffer_policy policy, bool may_forgo)
{
    struct preserved_settings settings = {
        .limit = limit, .policy = policy, .compress = true, .spool_directory = "/tmp"};
    assert_int_equal(view_set_regions(&toy->view, &toy->regions), 0);
    assert_int_equal(preserved_begin(&toy->preserved, toy->view.chunk_count, &settings),
                     0);
    fault_server_arm(&toy->server, toy->userfaultfd, may_forgo);
    assert_int_equal(
        userfaultfd_protect(toy->userfaultfd, (uintptr_t)toy->words,
                            fault_point(FAULT_SKIP_PROTECT) ? 4096 : TOY_BYTES),
        0);
}

static void freeze(uint64_t limit, enum buffer_policy policy)
{
    freeze_with(limit, policy, true);
}

static void release(void)
{
    view_fail(&toy->view, -ECANCELED);
    userfaultfd_unprotect(toy->userfaultfd, (uintptr_t)toy->words, TOY_BYTES);
    fault_server_disarm(&toy->server);
    preserved_end(&toy->preserved);
    for (uint64_t i = 0; i < WORDS; i++)
        toy->words[i] = mark(i);
}

static void *write_at_random(void *argument)
{
    uint64_t state = toy->seed + (uintptr_t)argument * 977;
    while (!atomic_load(&toy->stopping))
        __atomic_store_n(&toy->words[number(&state, WORDS)], state, __ATOMIC_RELAXED);
    return NULL;
}

/* How many words the reader got wrong. */
static unsigned read_at_random(unsigned reads)
{
    struct view_reader reader;
    uint64_t got[2048], state = toy->seed;
    unsigned wrong = 0;
    view_reader_init(&reader, &toy->view);
    for (unsigned i = 0; i < reads; i++) {
        uint64_t count = 1 + number(&state, i % 16 ? 8 : 2048);
        uint64_t first = number(&state, WORDS - count);
        view_hint(&reader, (uintptr_t)(toy->words + first));
        if (i % 4 == 0) {
            view_hint(&reader,
                      i % 64 ? (uintptr_t)(toy->words + number(&state, WORDS)) : state);
            view_give_hints(&reader);
        }
        assert_int_equal(
            view_read(&reader, got, (uintptr_t)(toy->words + first), count * 8), 0);
        for (uint64_t k = 0; k < count; k++)
            wrong += got[k] != mark(first + k);
    }
    return wrong;
}

static int read_word(struct view_reader *reader, uint64_t index, uint64_t *word)
{
    return view_read(reader, word, (uintptr_t)(toy->words + index), sizeof(*word));
}

static void *write_one(void *word)
{
    __atomic_store_n((uint64_t *)word, 1, __ATOMIC_RELAXED);
    return NULL;
}

/* On a busy machine the reader may have been at it alone. */
static void wait_for_writers(void)
{
    for (int tries = 0;
         tries < 3000 && atomic_load(&toy->preserved.pages) < WRITTEN_LEAST; tries++)
        usleep(10000);
    assert_true(atomic_load(&toy->preserved.pages) >= WRITTEN_LEAST);
}

static unsigned wrong_words_under_writes(uint64_t limit, enum buffer_policy policy)
{
    pthread_t writers[WRITERS];
    freeze(limit, policy);
    atomic_store(&toy->stopping, false);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, write_at_random, (void *)i);
    unsigned wrong = read_at_random(READS);
    wait_for_writers();
    atomic_store(&toy->stopping, true);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    wrong += read_at_random(READS / 10);
    assert_true(atomic_load(&toy->preserved.bytes_peak) <= limit);
    release();
    return wrong;
}

static void reads_the_past(void **state)
{
    (void)state;
    assert_int_equal(wrong_words_under_writes(UINT64_C(64) << 20, BUFFER_SPOOL), 0);
}

/* A buffer for a tenth of the pages: the others are packed, moved, spooled. */
static void reads_the_past_from_the_spool(void **state)
{
    (void)state;
    assert_int_equal(wrong_words_under_writes(UINT64_C(3) << 20, BUFFER_SPOOL), 0);
    assert_true(atomic_load(&toy->failures) == 0);
}

/* The test must be able to fail. */
static void finds_what_was_not_preserved(void **state)
{
    (void)state;
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    assert_true(fault_point_set("skip_protect", true));
    pthread_t writer;
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    atomic_store(&toy->stopping, false);
    pthread_create(&writer, NULL, write_at_random, NULL);
    unsigned wrong = read_at_random(READS);
    atomic_store(&toy->stopping, true);
    pthread_join(writer, NULL);
    release();
    fault_point_set("skip_protect", false);
    assert_true(wrong > 0);
}

/* A system call that writes to a frozen page. */
static void kernel_may_write(void **state)
{
    (void)state;
    int ends[2];
    uint64_t sent[512], got[512];
    struct view_reader reader;
    assert_int_equal(pipe(ends), 0);
    memset(sent, 0xA5, sizeof(sent));
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    assert_int_equal(write(ends[1], sent, sizeof(sent)), sizeof(sent));
    assert_int_equal(read(ends[0], toy->words + 100000, sizeof(sent)), sizeof(sent));
    assert_memory_equal(toy->words + 100000, sent, sizeof(sent));
    view_reader_init(&reader, &toy->view);
    assert_int_equal(
        view_read(&reader, got, (uintptr_t)(toy->words + 100000), sizeof(got)), 0);
    for (uint64_t i = 0; i < 512; i++)
        assert_int_equal(got[i], mark(100000 + i));
    release();
    close(ends[0]);
    close(ends[1]);
}

/* What is about to be dropped is kept first, on request. */
static void dropped_pages_are_kept(void **state)
{
    (void)state;
    uint64_t start = (uintptr_t)toy->words + (UINT64_C(5) << 20), got;
    struct view_reader reader;
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    assert_int_equal(fault_server_preserve(&toy->server, start, start + (2 << 20)), 0);
    assert_int_equal(madvise((void *)start, 2 << 20, MADV_DONTNEED), 0);
    view_reader_init(&reader, &toy->view);
    for (uint64_t at = start; at < start + (2 << 20); at += 4096) {
        assert_int_equal(view_read(&reader, &got, at, 8), 0);
        assert_int_equal(got, mark((at - (uintptr_t)toy->words) / 8));
    }
    release();
}

static void *read_and_compare(void *argument)
{
    struct view_reader reader;
    uint64_t state = toy->seed + 3, wrong = 0, got;
    view_reader_init(&reader, &toy->view);
    while (!atomic_load(&toy->stopping)) {
        uint64_t index = number(&state, WORDS);
        int error = view_read(&reader, &got, (uintptr_t)(toy->words + index), 8);
        wrong += error || got != mark(index);
    }
    *(uint64_t *)argument = wrong;
    return NULL;
}

#define SPOOLED_AT_ONCE 24

/* As the upkeep thread does it: the pages' bytes as they are, then word to the fault
 * server. */
static void spool_pages(const uint64_t *starts)
{
    static struct spool_batch batch;
    uint32_t page, place;
    for (int i = 0; i < SPOOLED_AT_ONCE; i++) {
        assert_true(view_page_of(&toy->view, starts[i], &page));
        spool_batch_add(&batch, page, (void *)starts[i]);
    }
    assert_int_equal(spool_write_batch(&toy->preserved.spool, &batch, &place), 0);
    assert_int_equal(
        fault_server_take_spooled(&toy->server, starts, SPOOLED_AT_ONCE, place), 0);
}

/* Pages that go to the spool and then away, while others read and write. Some are
 * spooled when they are gone already, or have been preserved: the first place stays. */
static void spooled_pages_may_be_dropped(void **state)
{
    (void)state;
    pthread_t reader, writer;
    uint64_t random = toy->seed, wrong = 0;
    freeze(UINT64_C(2) << 20, BUFFER_SPOOL);
    atomic_store(&toy->stopping, false);
    pthread_create(&reader, NULL, read_and_compare, &wrong);
    pthread_create(&writer, NULL, write_at_random, NULL);
    for (int request = 0; request < 300; request++) {
        uint64_t starts[SPOOLED_AT_ONCE];
        for (int i = 0; i < SPOOLED_AT_ONCE; i++)
            starts[i] = (uintptr_t)toy->words +
                        number(&random, TOY_BYTES / PAGE_BYTES) * PAGE_BYTES;
        spool_pages(starts);
        for (int i = 0; i < SPOOLED_AT_ONCE; i++)
            madvise((void *)starts[i], PAGE_BYTES, MADV_DONTNEED);
    }
    atomic_store(&toy->stopping, true);
    pthread_join(reader, NULL);
    pthread_join(writer, NULL);
    assert_int_equal(wrong, 0);
    /* The writer's pages are preserved as well, in slots while there are any. */
    assert_true(atomic_load(&toy->preserved.pages_spooled) > 1000);
    assert_true(atomic_load(&toy->preserved.pages_spooled) <=
                atomic_load(&toy->preserved.pages));
    assert_true(atomic_load(&toy->preserved.pages) > 3000);
    release();
}

static void *preserve_many(void *argument)
{
    fault_server_preserve(&toy->server, (uintptr_t)argument,
                          (uintptr_t)argument + 400 * PAGE_BYTES);
    atomic_store(&toy->stopping, true);
    return NULL;
}

/* A large range that is kept on request, slowly, does not keep a writer waiting. */
static void faults_come_between_requested_pages(void **state)
{
    (void)state;
    pthread_t thread;
    freeze(UINT64_C(2) << 20, BUFFER_SPOOL);
    for (uint64_t i = 0; i < 600; i++) /* the buffer is full now */
        toy->words[i * 512] = 1;
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    assert_true(fault_point_set("spool_slow", true));
    atomic_store(&toy->stopping, false);
    pthread_create(&thread, NULL, preserve_many, toy->words + WORDS / 2);
    usleep(50000);
    toy->words[WORDS - 1] = 1;
    assert_false(atomic_load(&toy->stopping));
    pthread_join(thread, NULL);
    fault_point_set("spool_slow", false);
    release();
}

static void *preserve_first_page(void *argument)
{
    *(int *)argument = fault_server_preserve(&toy->server, (uintptr_t)toy->words,
                                             (uintptr_t)toy->words + PAGE_BYTES);
    return NULL;
}

/* A request of a frozen server for the first page, which finds the fault server, parked
 * before, about to answer requests as one that is parked. False: on a busy machine it came
 * to that later, and has seen the freeze. */
static bool request_at_a_stale_duty(int *result)
{
    pthread_t thread;
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    assert_true(fault_point_set("stale_duty", true));
    fault_server_nudge(&toy->server);
    usleep(100000);
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    pthread_create(&thread, NULL, preserve_first_page, result);
    usleep(100000);
    bool held = atomic_load(&toy->server.on_duty) == FAULTS_PARKED &&
                atomic_load(&toy->server.request_state) != 0;
    fault_point_set("stale_duty", false);
    pthread_join(thread, NULL);
    return held;
}

/* The server lost its CPU before the freeze, and finds a request from after it: the past
 * is dropped when that is answered with "nothing to preserve". */
static void a_request_waits_for_the_right_duty(void **state)
{
    (void)state;
    int result = 1;
    for (int tries = 0; !request_at_a_stale_duty(&result); tries++) {
        assert_true(tries < 20);
        release();
    }
    assert_int_equal(result, 0);
    assert_int_equal(atomic_load(&toy->preserved.pages), 1);
    release();
}

static void refuses_what_was_not_frozen(void **state)
{
    (void)state;
    uint64_t start = (uintptr_t)toy->words, got[4];
    struct view_reader reader;
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    view_reader_init(&reader, &toy->view);
    assert_int_equal(view_read(&reader, got, 0, 8), -EFAULT);
    assert_int_equal(view_read(&reader, got, start - 8, 16), -EFAULT);
    assert_int_equal(view_read(&reader, got, start + TOY_BYTES - 8, 16), -EFAULT);
    assert_int_equal(view_read(&reader, got, UINT64_MAX - 4, 8), -EFAULT);
    assert_int_equal(view_read(&reader, got, start + TOY_BYTES - 8, 8), 0);
    assert_int_equal(view_read(&reader, got, start, 0), 0);
    view_fail(&toy->view, -EIO);
    view_fail(&toy->view, -ECANCELED);
    assert_int_equal(view_read(&reader, got, start, 8), -EIO);
    release();
}

/* The bucket that leads to an entry was read in another region. Looked for in that alone, the
 * page was taken for one that is live. */
static void hints_go_to_the_region_they_are_in(void **state)
{
    (void)state;
    uint64_t start = (uintptr_t)toy->words, got;
    uint64_t parts[] = {start, start + TOY_BYTES / 2};
    struct view_reader reader;
    regions_init(&toy->regions, toy->region, 4);
    for (size_t i = 0; i < 2; i++)
        regions_add(&toy->regions, parts[i], parts[i] + TOY_BYTES / 4);
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    view_reader_init(&reader, &toy->view);
    assert_int_equal(view_read(&reader, &got, parts[0], 8), 0);
    view_hint(&reader, parts[1] + 8);
    assert_true(reader.region_start == parts[0]);
    view_give_hints(&reader);
    assert_true(reader.region_start == parts[1]);
    view_hint(&reader, 0);
    view_hint(&reader, UINT64_MAX);
    view_hint(&reader, start - 1);
    view_give_hints(&reader);
    assert_true(reader.region_start == parts[1]);
    for (unsigned i = 0; i < VIEW_HINTS; i++)
        view_hint(&reader, parts[0] + i);
    assert_true(reader.region_start == parts[0]);
    assert_int_equal(view_read(&reader, &got, parts[0], 8), 0);
    assert_true(got == mark(0));
    release();
}

/* A request is answered after the faults before it have been counted. */
static uint64_t faults_so_far(uint64_t kept)
{
    assert_int_equal(fault_server_preserve(&toy->server, kept, kept + 1), 0);
    return atomic_load(&toy->server.statistics.faults);
}

/* Of the last block in the view there is one page. */
static uint64_t end_of_part(void)
{
    uint64_t end = (uintptr_t)toy->words + TOY_BYTES;
    return round_down(end - PAGE_BYTES, HUGE_PAGE_BYTES) + PAGE_BYTES;
}

/* The toy's first block that is all in the view, by words; before it there is a part of one. */
static uint64_t freeze_part(bool may_forgo)
{
    uint64_t start = (uintptr_t)toy->words + PAGE_BYTES;
    fault_points_init();
    regions_init(&toy->regions, toy->region, 4);
    regions_add(&toy->regions, start, end_of_part());
    freeze_with(UINT64_C(64) << 20, BUFFER_SPOOL, may_forgo);
    return (round_up(start + 1, HUGE_PAGE_BYTES) - (uintptr_t)toy->words) / 8;
}

/* All of the block at once, but what was preserved before. */
static void the_allocators_blocks_are_forgone(void **state)
{
    (void)state;
    uint64_t page = PAGE_BYTES / 8, block = HUGE_PAGE_BYTES / 8, got;
    uint64_t first = freeze_part(true), kept = first + 3 * page;
    struct view_reader reader;
    view_reader_init(&reader, &toy->view);
    toy->words[kept] = 1;
    fault_point_set("wrong_metadata", true);
    toy->words[first + 8 * page] = 1;
    toy->words[first + 9 * page] = 1;
    toy->words[first + block - 1] = 1;
    assert_int_equal(faults_so_far((uintptr_t)&toy->words[kept]), 2);
    assert_int_equal(atomic_load(&toy->preserved.pages), 1);
    assert_int_equal(read_word(&reader, kept, &got), 0);
    assert_true(got == mark(kept));
    assert_int_equal(read_word(&reader, first + 8 * page, &got), -EFAULT);
    assert_int_equal(read_word(&reader, first, &got), -EFAULT);
    assert_int_equal(read_word(&reader, first + block - 1, &got), -EFAULT);
    assert_int_equal(read_word(&reader, first + block, &got), 0);
    fault_point_set("wrong_metadata", false);
    release();
}

static void check_kept(uint64_t written, uint64_t neighbour)
{
    struct view_reader reader;
    uint64_t got;
    view_reader_init(&reader, &toy->view);
    assert_int_equal(read_word(&reader, written, &got), 0);
    assert_true(got == mark(written));
    assert_int_equal(read_word(&reader, neighbour, &got), 0);
    assert_true(got == mark(neighbour));
}

/* Blocks of which a part is in no region, what another thread writes to, and all of them
 * where a child is to have them. */
static void no_others_are_forgone(void **state)
{
    (void)state;
    uint64_t page = PAGE_BYTES / 8, block = HUGE_PAGE_BYTES / 8;
    uint64_t first = freeze_part(true);
    uint64_t last = (end_of_part() - (uintptr_t)toy->words) / 8 - 1;
    pthread_t thread;
    fault_point_set("wrong_metadata", true);
    toy->words[first - 1] = 1;
    check_kept(first - 1, page);
    toy->words[last] = 1;
    check_kept(last, last - page);
    pthread_create(&thread, NULL, write_one, &toy->words[first]);
    pthread_join(thread, NULL);
    check_kept(first, first + block - 1);
    fault_point_set("wrong_metadata", false);
    release();
    first = freeze_part(false);
    fault_point_set("wrong_metadata", true);
    toy->words[first + page] = 1;
    check_kept(first + page, first);
    fault_point_set("wrong_metadata", false);
    release();
}

/* With no room and the policy to give up, the writer goes on and the reader is told. */
static void gives_up_when_told_to(void **state)
{
    (void)state;
    uint64_t got = 0;
    struct view_reader reader;
    freeze(UINT64_C(600) << 10, BUFFER_ABORT);
    for (uint64_t i = 0; i < WORDS; i += 512)
        toy->words[i] = 1;
    view_reader_init(&reader, &toy->view);
    assert_int_equal(view_read(&reader, &got, (uintptr_t)toy->words, 8), -ENOBUFS);
    assert_int_equal(atomic_load(&toy->failures), 1);
    release();
}

/* The kernel's KPF_THP: a page is part of a huge one, however that is mapped. -1: it does
 * not say. */
static int pages_of_huge_ones(void)
{
    int pagemap = open("/proc/self/pagemap", O_RDONLY);
    int flags = open("/proc/kpageflags", O_RDONLY);
    uint64_t page = 0, flag = 0;
    int found = 0;
    for (uint64_t i = 0; i < TOY_BYTES / PAGE_BYTES && found >= 0; i++) {
        off_t at = (off_t)(((uintptr_t)toy->words / PAGE_BYTES + i) * 8);
        bool told = pread(pagemap, &page, 8, at) == 8 &&
                    (page &= (UINT64_C(1) << 55) - 1) != 0 &&
                    pread(flags, &flag, 8, (off_t)(page * 8)) == 8;
        found = told ? found + (int)(flag >> 22 & 1) : -1;
    }
    close(pagemap);
    close(flags);
    return found;
}

/* What stays of them when writers have met a reader. */
static int left_of_huge_pages(bool slow)
{
    atomic_store(&toy->server.splitter.keeps_marks, 1);
    atomic_store(&toy->view.slow, slow);
    assert_int_equal(wrong_words_under_writes(UINT64_C(64) << 20, BUFFER_SPOOL), 0);
    return pages_of_huge_ones();
}

static void huge_pages_are_split_where_reads_are_slow(void **state)
{
    (void)state;
    int before = pages_of_huge_ones();
    if (before == 0)
        skip();
    int left = left_of_huge_pages(false);
    if (!view_is_slow(&toy->view)) { /* else this machine is one of those */
        assert_int_equal(atomic_load(&toy->server.splitter.splits), 0);
        assert_int_equal(left, before);
    }
    left = left_of_huge_pages(true);
    assert_true(atomic_load(&toy->server.splitter.splits) > 0);
    assert_true(before < 0 || left < before / 4);
}

/* Sixteen pages of each are written to before that is known, and none any more. */
static void those_due_before_are_caught_up_with(void **state)
{
    (void)state;
    const uint64_t page_words = PAGE_BYTES / sizeof(uint64_t);
    if (pages_of_huge_ones() == 0)
        skip();
    atomic_store(&toy->server.splitter.keeps_marks, 1);
    freeze(UINT64_C(64) << 20, BUFFER_SPOOL);
    for (uint64_t i = 0; i < WORDS; i += 32 * page_words)
        toy->words[i] = 1;
    assert_int_equal(atomic_load(&toy->server.splitter.splits), 0);
    atomic_store(&toy->view.slow, true);
    fault_server_nudge(&toy->server);
    /* They need not begin where the toy does. */
    const uint64_t least = TOY_BYTES / HUGE_PAGE_BYTES - 1;
    for (int tries = 0;
         tries < 500 &&
         (pages_of_huge_ones() > 0 || atomic_load(&toy->server.splitter.splits) < least);
         tries++)
        usleep(10000);
    assert_in_range(atomic_load(&toy->server.splitter.splits), least, least + 2);
    assert_true(pages_of_huge_ones() <= 0);
    release();
}

/* Where the kernel would lose the marks. Readers find out that they are slow all the same. */
static void huge_pages_stay_where_they_must(void **state)
{
    (void)state;
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    fault_point_set("slow_reads", true);
    assert_int_equal(wrong_words_under_writes(UINT64_C(64) << 20, BUFFER_SPOOL), 0);
    fault_point_set("slow_reads", false);
    assert_true(view_is_slow(&toy->view));
    assert_int_equal(atomic_load(&toy->server.splitter.splits), 0);
}

int main(void)
{
    struct ability ability;
    if (ability_probe(&ability) != 0) {
        fprintf(stderr, "no userfaultfd here: %s\n", ability.reason);
        return getenv("STRICT") ? 1 : 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reads_the_past, set_up, tear_down),
        cmocka_unit_test_setup_teardown(reads_the_past_from_the_spool, set_up, tear_down),
        cmocka_unit_test_setup_teardown(finds_what_was_not_preserved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(kernel_may_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(dropped_pages_are_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(spooled_pages_may_be_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(faults_come_between_requested_pages, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_request_waits_for_the_right_duty, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(refuses_what_was_not_frozen, set_up, tear_down),
        cmocka_unit_test_setup_teardown(hints_go_to_the_region_they_are_in, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(the_allocators_blocks_are_forgone, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(no_others_are_forgone, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gives_up_when_told_to, set_up, tear_down),
        cmocka_unit_test_setup_teardown(huge_pages_are_split_where_reads_are_slow,
                                        set_up_huge, tear_down),
        cmocka_unit_test_setup_teardown(those_due_before_are_caught_up_with, set_up_huge,
                                        tear_down),
        cmocka_unit_test_setup_teardown(huge_pages_stay_where_they_must, set_up_huge,
                                        tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
