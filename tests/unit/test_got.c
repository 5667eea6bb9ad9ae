/* GOT patching, tried on this program's own table.
 *
 *   getppid   only called: a slot that is bound lazily, on a writable page
 *   getpgrp   its address is taken: a GLOB_DAT slot in the read-only RELRO part
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

#include "host/got.h"

#define ANSWER 123456

static pid_t replaced(void)
{
    return ANSWER;
}

/* What the table says, looked at anew each time: inlined, the address would be
 * fetched once for all calls. */
__attribute__((noinline)) static pid_t call_by_address(void)
{
    pid_t (*volatile function)(void) = getpgrp;
    return function();
}

static struct got_object executable(void)
{
    struct got_object object;
    assert_int_equal(got_find_executable(&object), 0);
    return object;
}

/* "r--p" and the like, of the page that holds `address`. */
static void protection_of(const void *address, char protection[5])
{
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    protection[0] = '\0';
    while (fgets(line, sizeof(line), maps)) {
        unsigned long start, end;
        char flags[8];
        if (sscanf(line, "%lx-%lx %4s", &start, &end, flags) == 3 &&
            (uintptr_t)address >= start && (uintptr_t)address < end)
            memcpy(protection, flags, 5);
    }
    fclose(maps);
    assert_int_equal(strlen(protection), 4);
}

/* ---- finding objects ------------------------------------------------------------- */

static void finds_the_executable(void **state)
{
    (void)state;
    struct got_object object = executable();
    extern const char __executable_start[];
    assert_int_equal(object.base, (unsigned long)__executable_start);
    assert_non_null(object.dynamic);
}

static void finds_the_object_of_an_address(void **state)
{
    (void)state;
    struct got_object own, library, first = executable();
    assert_int_equal(got_find_object((void *)replaced, &own), 0);
    assert_ptr_equal(own.dynamic, first.dynamic);
    assert_int_equal(got_find_object((void *)getpgrp, &library), 0);
    assert_non_null(strstr(library.name, "libc"));
    assert_ptr_not_equal(library.dynamic, first.dynamic);
}

static void finds_no_object_elsewhere(void **state)
{
    (void)state;
    struct got_object object;
    int on_the_stack = 0;
    assert_int_equal(got_find_object(&on_the_stack, &object), -ENOENT);
    assert_int_equal(got_find_object(NULL, &object), -ENOENT);
}

/* ---- replacing ------------------------------------------------------------------- */

static void replaces_a_called_function(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    pid_t parent = getppid();
    assert_int_equal(got_replace(&object, "getppid", (void *)replaced, &patch), 0);
    assert_int_equal(patch.count, 1);
    assert_int_equal(getppid(), ANSWER);
    assert_int_equal(getppid(), ANSWER);
    assert_int_equal(got_restore(&patch), 0);
    assert_int_equal(getppid(), parent);
}

/* What stood there is the stub that binds the slot at its first call. */
static void replaces_a_function_never_called_before(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    assert_int_equal(got_replace(&object, "getegid", (void *)replaced, &patch), 0);
    assert_int_equal(getegid(), ANSWER);
    assert_int_equal(got_restore(&patch), 0);
    assert_int_equal(getegid(), getgid());
}

static void replaces_a_slot_in_read_only_memory(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    char protection[5];
    pid_t group = call_by_address();
    assert_int_equal(got_replace(&object, "getpgrp", (void *)replaced, &patch), 0);
    assert_true(patch.count >= 1);
    assert_int_equal(call_by_address(), ANSWER);
    protection_of(patch.slots[0], protection);
    assert_string_equal(protection, "r--p");
    assert_int_equal(got_restore(&patch), 0);
    protection_of(patch.slots[0], protection);
    assert_string_equal(protection, "r--p");
    assert_int_equal(call_by_address(), group);
}

static void leaves_a_writable_page_writable(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    char protection[5];
    assert_int_equal(got_replace(&object, "getppid", (void *)replaced, &patch), 0);
    protection_of(patch.slots[0], protection);
    assert_int_equal(got_restore(&patch), 0);
    assert_string_equal(protection, "rw-p");
}

/* A server at its limit of open files must not lose a writable page. */
static void needs_no_descriptor(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    struct rlimit limit, none;
    char before[5], after[5];
    assert_int_equal(got_replace(&object, "getppid", (void *)replaced, &patch), 0);
    protection_of(patch.slots[0], before);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = limit;
    none.rlim_cur = 0;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int error = got_restore(&patch);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(error, 0);
    protection_of(patch.slots[0], after);
    assert_string_equal(after, before);
}

/* ---- one object at a time -------------------------------------------------------- */

/* volatile: the compiler knows that malloc() changes no variable of ours. */
static volatile int allocations;

static void *counting_malloc(size_t length)
{
    allocations++;
    return calloc(1, length);
}

static int own_allocations(void)
{
    allocations = 0;
    void *volatile block = malloc(10);
    free(block);
    return allocations;
}

/* By the library of the unit tests, an object like any other. */
static int library_allocations(void)
{
    allocations = 0;
    test_free(test_malloc(10));
    return allocations;
}

static void patches_the_executable_alone(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    assert_int_equal(got_replace(&object, "malloc", (void *)counting_malloc, &patch), 0);
    int own = own_allocations(), library = library_allocations();
    assert_int_equal(got_restore(&patch), 0);
    assert_int_equal(own, 1);
    assert_int_equal(library, 0);
}

static void patches_a_library_alone(void **state)
{
    (void)state;
    struct got_object object;
    struct got_patch patch;
    assert_int_equal(got_find_object((void *)_test_malloc, &object), 0);
    assert_int_equal(got_replace(&object, "malloc", (void *)counting_malloc, &patch), 0);
    int own = own_allocations(), library = library_allocations();
    assert_int_equal(got_restore(&patch), 0);
    assert_int_equal(own, 0);
    assert_int_equal(library, 1);
    assert_int_equal(library_allocations(), 0);
}

static void refuses_what_is_not_imported(void **state)
{
    (void)state;
    struct got_object object = executable();
    struct got_patch patch;
    assert_int_equal(got_replace(&object, "no_such_function", (void *)replaced, &patch),
                     -ENOENT);
    assert_int_equal(patch.count, 0);
    assert_int_equal(got_restore(&patch), 0);
    /* The beginning of a name is not the name. */
    assert_int_equal(got_replace(&object, "getppi", (void *)replaced, &patch), -ENOENT);
    assert_int_not_equal(getppid(), ANSWER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_the_executable),
        cmocka_unit_test(finds_the_object_of_an_address),
        cmocka_unit_test(finds_no_object_elsewhere),
        cmocka_unit_test(replaces_a_called_function),
        cmocka_unit_test(replaces_a_function_never_called_before),
        cmocka_unit_test(replaces_a_slot_in_read_only_memory),
        cmocka_unit_test(leaves_a_writable_page_writable),
        cmocka_unit_test(needs_no_descriptor),
        cmocka_unit_test(patches_the_executable_alone),
        cmocka_unit_test(patches_a_library_alone),
        cmocka_unit_test(refuses_what_is_not_imported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
