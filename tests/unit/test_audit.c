/* The audit finds every page that has lost its protection without being preserved, also
 * when it was copied afterwards for another reason than a fault; and takes nothing for
 * lost that is not. */
#include "view/audit.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/ability.h"
#include "kernel/fault_points.h"
#include "kernel/mark_probe.h"
#include "kernel/memory.h"
#include "kernel/pagemap.h"
#include "kernel/userfaultfd.h"
#include "view/fault_server.h"

#include <cmocka.h>

#define TOY_BYTES (UINT64_C(48) << 20)
/* Never touched before the freeze: the last third. */
#define TOUCHED_BYTES (UINT64_C(32) << 20)
#define LIMIT         (UINT64_C(64) << 20)
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#endif

/* The fault server's too: never protected. */
struct toy {
    char *bytes;
    int userfaultfd;
    int pagemap;
    struct preserved preserved;
    struct view view;
    struct fault_server server;
    struct region region[1], content_region[4];
    struct region_set regions, content;
};
static struct toy *toy;

static uint64_t address_of(uint64_t offset)
{
    return (uintptr_t)toy->bytes + offset;
}

static void on_failure(void *context, int error)
{
    (void)context, (void)error;
}

static void map_toy(void)
{
    toy->bytes = mmap(NULL, TOY_BYTES + (2 << 20), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    toy->bytes += -(uintptr_t)toy->bytes % (2 << 20);
    /* Half in huge pages, half in small ones. */
    madvise(toy->bytes, TOUCHED_BYTES / 2, MADV_HUGEPAGE);
    madvise(toy->bytes + TOUCHED_BYTES / 2, TOUCHED_BYTES / 2, MADV_NOHUGEPAGE);
    memset(toy->bytes, 'p', TOUCHED_BYTES);
}

static int set_up(void **state)
{
    (void)state;
    struct ability ability;
    toy = memory_map(sizeof(*toy));
    if (!toy || ability_probe(&ability) != 0)
        return -1;
    map_toy();
    toy->pagemap = pagemap_open();
    toy->userfaultfd = userfaultfd_open();
    if (userfaultfd_handshake(toy->userfaultfd, ability_features(&ability), NULL) ||
        userfaultfd_register(toy->userfaultfd, address_of(0), TOY_BYTES))
        return -1;
    regions_init(&toy->regions, toy->region, 1);
    regions_init(&toy->content, toy->content_region, 4);
    regions_add(&toy->regions, address_of(0), address_of(TOY_BYTES));
    regions_add(&toy->content, address_of(0), address_of(TOY_BYTES));
    return preserved_create(&toy->preserved) ||
           view_create(&toy->view, &toy->preserved) ||
           fault_server_start(&toy->server, &toy->view, on_failure, NULL);
}

static int tear_down(void **state)
{
    (void)state;
    fault_server_stop(&toy->server);
    view_destroy(&toy->view);
    preserved_destroy(&toy->preserved);
    close(toy->userfaultfd);
    close(toy->pagemap);
    munmap(toy->bytes, TOY_BYTES);
    memory_unmap(toy, sizeof(*toy));
    return 0;
}

static void freeze(uint64_t limit, enum buffer_policy policy)
{
    struct preserved_settings settings = {
        .limit = limit, .policy = policy, .spool_directory = "/tmp"};
    assert_int_equal(view_set_regions(&toy->view, &toy->regions), 0);
    assert_int_equal(preserved_begin(&toy->preserved, toy->view.chunk_count, &settings),
                     0);
    fault_server_arm(&toy->server, toy->userfaultfd, true);
    for (size_t i = 0; i < toy->content.count; i++)
        assert_int_equal(userfaultfd_protect(
                             toy->userfaultfd, toy->content.regions[i].start,
                             toy->content.regions[i].end - toy->content.regions[i].start),
                         0);
    audit_begin(&toy->server.audit, &toy->view, toy->pagemap, &toy->content);
}

static void release(void)
{
    view_fail(&toy->view, -ECANCELED);
    audit_end(&toy->server.audit);
    userfaultfd_unprotect(toy->userfaultfd, address_of(0), TOY_BYTES);
    fault_server_disarm(&toy->server);
    preserved_end(&toy->preserved);
}

/* With PAGEMAP_SCAN, and as before Linux 6.7. */
static void check_audit(int expected, uint64_t lost)
{
    for (int old = 0; old < 2; old++) {
        fault_point_set("no_pagemap_scan", old);
        atomic_store(&toy->server.audit.lost, 0);
        assert_int_equal(audit_all(&toy->server.audit), expected);
        assert_int_equal(atomic_load(&toy->server.audit.lost), lost);
    }
    fault_point_set("no_pagemap_scan", false);
}

static void write_every(uint64_t step)
{
    for (uint64_t at = 0; at < TOY_BYTES; at += step)
        toy->bytes[at] = 'w';
}

/* Written, written to for the first time, dropped after it was kept. */
static void takes_nothing_for_lost(void **state)
{
    (void)state;
    freeze(LIMIT, BUFFER_SPOOL);
    check_audit(0, 0);
    write_every(5 * PAGE_BYTES);
    check_audit(0, 0);
    assert_int_equal(
        fault_server_preserve(&toy->server, address_of(4 << 20), address_of(6 << 20)), 0);
    madvise(toy->bytes + (4 << 20), 2 << 20, MADV_DONTNEED);
    madvise(toy->bytes + (8 << 20), 2 << 20, MADV_PAGEOUT);
    madvise(toy->bytes + (10 << 20), PAGE_BYTES, MADV_COLD); /* splits a huge page */
    check_audit(0, 0);
    release();
}

static void knows_guard_pages(void **state)
{
    (void)state;
    if (madvise(toy->bytes + TOUCHED_BYTES + (1 << 20), 1 << 20, MADV_GUARD_INSTALL) != 0)
        skip();
    freeze(LIMIT, BUFFER_SPOOL);
    check_audit(0, 0);
    release();
}

/* The zeros of huge pages that the kernel splits keep their marks, or it is known not to
 * keep them. */
static void split_zeros_are_known(void **state)
{
    (void)state;
    struct ability ability;
    ability_probe(&ability);
    int keeps = mark_probe_split(&ability);
    if (keeps < 0)
        skip();
    madvise(toy->bytes + TOUCHED_BYTES, TOY_BYTES - TOUCHED_BYTES, MADV_HUGEPAGE);
    for (uint64_t at = TOUCHED_BYTES; at < TOY_BYTES; at += 2 << 20)
        toy->bytes[at] = 'h';
    freeze(LIMIT, BUFFER_SPOOL);
    madvise(toy->bytes + TOUCHED_BYTES + (1 << 20), PAGE_BYTES, MADV_COLD);
    assert_int_equal(audit_all(&toy->server.audit), keeps ? 0 : AUDIT_LOST);
    release();
}

static enum { BEGINS, WAITS, PROBES, ENDED } _Atomic probing;

static void *probe_again_and_again(void *argument)
{
    (void)argument;
    struct ability ability;
    ability_probe(&ability);
    mark_probe_split(&ability);
    atomic_store(&probing, WAITS);
    while (atomic_load(&probing) == WAITS)
        usleep(100);
    for (int i = 0; i < 200; i++)
        mark_probe_split(&ability);
    atomic_store(&probing, ENDED);
    return NULL;
}

/* The mapping around an address, as the kernel lists it. */
static void find_mapping(const void *address, uintptr_t bounds[2])
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps))
        if (sscanf(line, "%lx-%lx", &bounds[0], &bounds[1]) == 2 &&
            (uintptr_t)address >= bounds[0] && (uintptr_t)address < bounds[1])
            break;
    fclose(maps);
}

/* What is mapped next comes beside this. Were it one mapping with it, the heap's
 * userfaultfd would be refused all of it while the probe's has a part. */
static void probe_joins_no_mapping(void **state)
{
    (void)state;
    pthread_t thread;
    uintptr_t before[2], now[2];
    size_t bytes = 4 << 20; /* begins where a huge page does */
    atomic_store(&probing, BEGINS);
    assert_int_equal(pthread_create(&thread, NULL, probe_again_and_again, NULL), 0);
    while (atomic_load(&probing) == BEGINS)
        usleep(100);
    char *beside =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    find_mapping(beside, before);
    atomic_store(&probing, PROBES);
    while (atomic_load(&probing) == PROBES) {
        find_mapping(beside, now);
        assert_memory_equal(now, before, sizeof(now));
    }
    pthread_join(thread, NULL);
    munmap(beside, bytes);
}

/* What the freeze has left out says nothing. */
static void leaves_out_what_was_not_protected(void **state)
{
    (void)state;
    regions_remove(&toy->content, address_of(2 << 20), address_of(3 << 20));
    regions_remove(&toy->content, address_of(17 << 20), address_of(18 << 20));
    freeze(LIMIT, BUFFER_SPOOL);
    toy->bytes[2 << 20] = 'w';
    assert_int_equal(fault_server_preserve(&toy->server, address_of(17 << 20),
                                           address_of((17 << 20) + (1 << 19))),
                     0);
    check_audit(0, 0);
    release();
}

/* ---- ways to lose pages ------------------------------------------------------------ */

static void lift(uint64_t offset, uint64_t length)
{
    assert_int_equal(userfaultfd_unprotect(toy->userfaultfd, address_of(offset), length),
                     0);
}

static void drop(uint64_t offset, uint64_t length)
{
    assert_int_equal(madvise(toy->bytes + offset, length, MADV_DONTNEED), 0);
}

static void unmap(uint64_t offset, uint64_t length)
{
    assert_int_equal(munmap(toy->bytes + offset, length), 0);
}

static void map_over(uint64_t offset, uint64_t length)
{
    void *mapped = mmap(toy->bytes + offset, length, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    assert_ptr_equal(mapped, toy->bytes + offset);
    memset(mapped, 'n', length / 2);
}

static void move_away(uint64_t offset, uint64_t length)
{
    uint64_t moved_length = 2 * length;
    void *moved = mremap(toy->bytes + offset, length, moved_length, MREMAP_MAYMOVE, NULL);
    assert_ptr_not_equal(moved, MAP_FAILED);
    munmap(moved, moved_length);
}

static void check_lost(void (*lose)(uint64_t offset, uint64_t length), bool more)
{
    static const uint64_t places[] = {3 << 20, 20 << 20,
                                      40 << 20}; /* huge, small, none */
    for (int i = 0; i < 3; i++) {
        set_up(NULL);
        freeze(LIMIT, BUFFER_SPOOL);
        write_every(64 * PAGE_BYTES); /* some of them are preserved: not lost */
        lose(places[i] + PAGE_BYTES, 200 * PAGE_BYTES);
        check_audit(AUDIT_LOST, 200 - 3);
        if (more) {
            lose(places[i] + (1 << 20) + PAGE_BYTES, PAGE_BYTES);
            check_audit(AUDIT_LOST, 201 - 3);
        }
        release();
        tear_down(NULL);
    }
}

static void finds_what_lost_its_mark(void **state)
{
    (void)state;
    check_lost(lift, true);
}

static void finds_what_was_dropped(void **state)
{
    (void)state;
    check_lost(drop, true);
}

static void finds_what_was_unmapped(void **state)
{
    (void)state;
    check_lost(unmap, true);
}

static void finds_what_was_mapped_anew(void **state)
{
    (void)state;
    check_lost(map_over, true);
}

static void finds_what_was_moved(void **state)
{
    (void)state;
    check_lost(move_away, false);
}

/* ---- lost, overwritten, and only then preserved, for no fault ---------------------- */

static void check_given_up(void)
{
    assert_int_equal(atomic_load(&toy->view.error), AUDIT_LOST);
    assert_int_equal(atomic_load(&toy->server.audit.lost), 1);
    release();
}

static void lose_and_write(uint64_t offset)
{
    lift(offset, PAGE_BYTES);
    toy->bytes[offset] = 'w';
}

static void looks_before_memory_is_given_back(void **state)
{
    (void)state;
    freeze(LIMIT, BUFFER_SPOOL);
    lose_and_write(70 * PAGE_BYTES);
    assert_int_equal(
        fault_server_preserve(&toy->server, address_of(0), address_of(50 * PAGE_BYTES)),
        0);
    assert_int_equal(fault_server_preserve(&toy->server, address_of(50 * PAGE_BYTES),
                                           address_of(90 * PAGE_BYTES)),
                     -EAGAIN);
    check_given_up();
}

static int spool(uint64_t first, size_t count)
{
    static struct spool_batch batch;
    uint64_t pages[SPOOL_BATCH_PAGES];
    uint32_t page, place;
    for (size_t i = 0; i < count; i++) {
        /* Not all neighbours. */
        pages[i] = address_of((first + i + (i > count / 2 ? 10 : 0)) * PAGE_BYTES);
        assert_true(view_page_of(&toy->view, pages[i], &page));
        spool_batch_add(&batch, page, (void *)pages[i]);
    }
    assert_int_equal(spool_write_batch(&toy->preserved.spool, &batch, &place), 0);
    return fault_server_take_spooled(&toy->server, pages, count, place);
}

static void looks_before_pages_are_evicted(void **state)
{
    (void)state;
    freeze(LIMIT, BUFFER_SPOOL);
    toy->bytes[104 * PAGE_BYTES] = 'w';
    assert_int_equal(spool(100, 20), 0);
    lose_and_write(216 * PAGE_BYTES);
    spool(200, 20); /* the 17th is page 226 */
    assert_int_equal(atomic_load(&toy->view.error), 0);
    lose_and_write(326 * PAGE_BYTES);
    spool(300, 20);
    check_given_up();
}

static void looks_before_a_block_is_forgone(void **state)
{
    (void)state;
    freeze(LIMIT, BUFFER_SPOOL);
    fault_point_set("wrong_metadata", true);
    toy->bytes[(4 << 20) + 5 * PAGE_BYTES] = 'w';
    assert_int_equal(atomic_load(&toy->view.error), 0);
    check_audit(0, 0);
    lose_and_write((8 << 20) + 300 * PAGE_BYTES);
    toy->bytes[(8 << 20) + 5 * PAGE_BYTES] = 'w';
    fault_point_set("wrong_metadata", false);
    check_given_up();
}

static void *write_byte(void *at)
{
    *(volatile char *)at = 'w';
    return NULL;
}

static void looks_after_a_wait_for_room(void **state)
{
    (void)state;
    uint64_t offset = TOUCHED_BYTES - PAGE_BYTES, written = 0;
    pthread_t writer;
    freeze(UINT64_C(4) << 20, BUFFER_BLOCK);
    /* Fill it up. */
    while (preserved_bytes(&toy->preserved) + 8 * PAGE_BYTES < UINT64_C(4) << 20) {
        toy->bytes[written] = 'w';
        written += PAGE_BYTES;
    }
    pthread_create(&writer, NULL, write_byte, toy->bytes + offset);
    for (int i = 0; i < 20; i++) { /* its page finds no room, or it takes the last */
        pthread_t more;
        pthread_create(&more, NULL, write_byte,
                       toy->bytes + TOUCHED_BYTES / 2 + (uint64_t)i * PAGE_BYTES);
        pthread_detach(more);
    }
    while (!atomic_load(&toy->server.blocked_by_policy))
        usleep(1000);
    /* Whichever waits: none of those that are not preserved keeps its mark. */
    lift(TOUCHED_BYTES / 2, 20 * PAGE_BYTES);
    lift(offset, PAGE_BYTES);
    preserved_set_limit(&toy->preserved, LIMIT);
    fault_server_nudge(&toy->server);
    for (int i = 0; i < 2000 && !atomic_load(&toy->view.error); i++)
        usleep(1000);
    assert_int_equal(atomic_load(&toy->view.error), AUDIT_LOST);
    release();
    pthread_join(writer, NULL);
}

int main(void)
{
    struct ability ability;
    if (ability_probe(&ability) != 0) {
        fprintf(stderr, "no userfaultfd here: %s\n", ability.reason);
        return getenv("STRICT") ? 1 : 77;
    }
    setenv("RDB_UFFD_FAULT", "", 1);
    fault_points_init();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_nothing_for_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(knows_guard_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(split_zeros_are_known, set_up, tear_down),
        cmocka_unit_test(probe_joins_no_mapping),
        cmocka_unit_test_setup_teardown(leaves_out_what_was_not_protected, set_up,
                                        tear_down),
        cmocka_unit_test(finds_what_lost_its_mark),
        cmocka_unit_test(finds_what_was_dropped),
        cmocka_unit_test(finds_what_was_unmapped),
        cmocka_unit_test(finds_what_was_mapped_anew),
        cmocka_unit_test(finds_what_was_moved),
        cmocka_unit_test_setup_teardown(looks_before_memory_is_given_back, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(looks_before_pages_are_evicted, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(looks_before_a_block_is_forgone, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(looks_after_a_wait_for_room, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
