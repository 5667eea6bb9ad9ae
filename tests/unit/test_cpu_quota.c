/* Limits of control groups, read from trees like those that kernels show. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file_tree.h"
#include "kernel/cpu_quota.h"

static void nothing_there(void **state)
{
    (void)state;
    assert_int_equal(cpu_quota_percent(root), 0);
    put("proc/self/cgroup", "0::/\\n");
    assert_int_equal(cpu_quota_percent(root), 0);
    put("sys/fs/cgroup/cpu.max", "max 100000\\n");
    assert_int_equal(cpu_quota_percent(root), 0);
}

static void tightest_of_unified(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/pods/one/server\\n");
    put("sys/fs/cgroup/pods/one/server/cpu.max", "max 100000\\n");
    put("sys/fs/cgroup/pods/one/cpu.max", "250000 100000\\n");
    assert_int_equal(cpu_quota_percent(root), 250);
    put("sys/fs/cgroup/pods/cpu.max", "300000 200000\\n");
    assert_int_equal(cpu_quota_percent(root), 150);
}

/* As a container without a namespace of its own sees it: the path is the host's. */
static void only_the_topmost_is_seen(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/host/path/of/container\\n");
    put("sys/fs/cgroup/cpu.max", "50000 100000\\n");
    assert_int_equal(cpu_quota_percent(root), 50);
}

static void first_version(void **state)
{
    (void)state;
    put("proc/self/cgroup",
        "5:cpuset:/a\\n4:cpu,cpuacct:/a/b\\n1:name=systemd:/c\\n0::/\\n");
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_quota_us", "-1\\n");
    put("sys/fs/cgroup/cpu/a/b/cpu.cfs_period_us", "100000\\n");
    assert_int_equal(cpu_quota_percent(root), 0);
    put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "400000\\n");
    put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\\n");
    assert_int_equal(cpu_quota_percent(root), 400);
}

static void nonsense(void **state)
{
    (void)state;
    put("proc/self/cgroup", "what\\n0:\\n:::\\n0::/x\\n");
    put("sys/fs/cgroup/x/cpu.max", "-5 0\\n");
    assert_int_equal(cpu_quota_percent(root), 0);
    put("sys/fs/cgroup/x/cpu.max", "1 100000\\n");
    assert_int_equal(cpu_quota_percent(root), 1);
}

#define IN_A_TREE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_A_TREE(nothing_there),
        IN_A_TREE(tightest_of_unified),
        IN_A_TREE(only_the_topmost_is_seen),
        IN_A_TREE(first_version),
        IN_A_TREE(nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
