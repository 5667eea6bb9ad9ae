/* Memory that control groups leave, read from trees like those that kernels show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "file_tree.h"
#include "kernel/memory_room.h"

#define MB (UINT64_C(1) << 20)

static void put_bytes(const char *path, uint64_t bytes)
{
    char text[32];
    snprintf(text, sizeof(text), "%llu\\n", (unsigned long long)bytes);
    put(path, text);
}

static void no_limit(void **state)
{
    struct memory_room room;
    (void)state;
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 0 && room.left == UINT64_MAX);
    put("proc/self/cgroup", "0::/a\\n");
    put("sys/fs/cgroup/a/memory.max", "max\\n");
    put("sys/fs/cgroup/a/memory.high", "max\\n");
    put_bytes("sys/fs/cgroup/a/memory.current", MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 0 && room.left == UINT64_MAX);
}

/* Not the lowest limit decides: a group above may be full of others. */
static void least_room_of_unified(void **state)
{
    struct memory_room room;
    (void)state;
    put("proc/self/cgroup", "0::/pods/one\\n");
    put_bytes("sys/fs/cgroup/pods/one/memory.max", 100 * MB);
    put_bytes("sys/fs/cgroup/pods/one/memory.current", 60 * MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 100 * MB && room.left == 40 * MB && !room.high);
    put_bytes("sys/fs/cgroup/pods/memory.max", 500 * MB);
    put_bytes("sys/fs/cgroup/pods/memory.current", 470 * MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 500 * MB && room.left == 30 * MB);
    put_bytes("sys/fs/cgroup/pods/one/memory.high", 80 * MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 80 * MB && room.left == 20 * MB && room.high);
}

/* The first version's, with its word for none; other controllers' groups do not count. */
static void first_version(void **state)
{
    struct memory_room room;
    (void)state;
    put("proc/self/cgroup", "5:cpu,cpuset:/b\\n4:memory:/a/b\\n0::/\\n");
    put("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\\n");
    put_bytes("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", 60 * MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 0);
    put_bytes("sys/fs/cgroup/memory/a/memory.limit_in_bytes", 100 * MB);
    put_bytes("sys/fs/cgroup/memory/a/memory.usage_in_bytes", 70 * MB);
    memory_room_find(root, 0, &room);
    assert_true(room.limit == 100 * MB && room.left == 30 * MB);
}

/* Clean pages of files are no use of memory; those that must be written first are. */
static void files_can_go(void **state)
{
    struct memory_room room;
    (void)state;
    put("proc/self/cgroup", "0::/a\\n");
    put_bytes("sys/fs/cgroup/a/memory.max", 100 * MB);
    put_bytes("sys/fs/cgroup/a/memory.current", 90 * MB);
    put("sys/fs/cgroup/a/memory.stat",
        "anon 1\\nfile_dirty 5242880\\nfile_writeback 1048576\\ninactive_file 31457280\\n"
        "active_file 10485760\\n");
    memory_room_find(root, 100 * MB, &room);
    assert_true(room.used == 56 * MB && room.left == 44 * MB);
    /* Nobody needs to know. */
    memory_room_find(root, 5 * MB, &room);
    assert_true(room.left == 10 * MB);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(no_limit, set_up, tear_down),
        cmocka_unit_test_setup_teardown(least_room_of_unified, set_up, tear_down),
        cmocka_unit_test_setup_teardown(first_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(files_can_go, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
