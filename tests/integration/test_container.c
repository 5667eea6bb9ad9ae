/* A server in a control group with little memory left: real groups, of either version. */
#include "answers.h"
#include "buffered.h"
#include "fill.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUPS_OF_TESTS "rdb_uffd-test-"
#define LARGE_KEYS      40000

struct group {
    char *directory;
    const char *limit; /* its file */
};

static struct group group;

static bool write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return false;
    bool written = fputs(text, file) >= 0;
    return fclose(file) == 0 && written;
}

static void remove_group(void)
{
    for (int i = 0; i < 100 && rmdir(group.directory) < 0 && errno == EBUSY; i++)
        sleep_msec(50);
}

/* What cases that failed have left. A group is empty before its server begins, so that
 * the one who made it must be gone. */
static void remove_left(const char *parent)
{
    DIR *listing = opendir(parent);
    if (!listing)
        return;
    size_t prefix = strlen(GROUPS_OF_TESTS);
    for (struct dirent *entry; (entry = readdir(listing));)
        if (strncmp(entry->d_name, GROUPS_OF_TESTS, prefix) == 0 &&
            kill(atoi(entry->d_name + prefix), 0) < 0)
            rmdir(format_text("%s/%s", parent, entry->d_name));
    closedir(listing);
}

static bool make_group_in(const char *parent, const char *limit)
{
    remove_left(parent);
    group.limit = limit;
    group.directory = format_text("%s/" GROUPS_OF_TESTS "%d", parent, getpid());
    if (mkdir(group.directory, 0755) < 0)
        return false;
    if (access(format_text("%s/%s", group.directory, limit), W_OK) == 0)
        return true;
    rmdir(group.directory);
    return false;
}

static void make_group(void)
{
    if (make_group_in("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
        return;
    write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
    if (!make_group_in("/sys/fs/cgroup", "memory.max"))
        skip("control groups that limit memory cannot be made here");
}

static void set_limit(double bytes)
{
    CHECK(write_file(format_text("%s/%s", group.directory, group.limit),
                     format_text("%.0f", bytes)),
          "the group does not take a limit of %.0f bytes", bytes);
}

/* A server that joins the group before it begins. */
static struct server *start_in_group(const char *arguments)
{
    const char *command = getenv("SERVER_COMMAND");
    char *script = format_text("%s/join", test_directory());
    make_group();
    CHECK(write_file(script, format_text("echo $$ >%s/cgroup.procs || exit 126\n"
                                         "exec %s \"$@\"\n",
                                         group.directory,
                                         command && *command ? command : "redis-server")),
          "no script");
    return server_start(&(struct server_options){.config = FILL_CONFIG,
                                                 .command = format_text("sh %s", script),
                                                 .module_arguments = arguments});
}

/* Every page is written to, and there is room for half of them: without a look at the
 * group, the kernel would end the server. */
static void lives_with_little_room(void)
{
    uint64_t seed = test_seed();
    needs_module();
    struct server *server = start_in_group("compression no");
    CHECK(strncmp(finding(server, "container"), "OK", 2) == 0, "without a limit: %s",
          finding(server, "container"));
    json_fill(server->connection, LARGE_KEYS, BYTES, seed);
    server_config_set(server, "rdb-key-save-delay", "30");
    sleep_msec(1500); /* chores of the module: memory made ready */
    set_limit((double)process_resident(server) + 24 * MEGABYTE);
    sleep_msec(1500); /* it is seen */
    CHECK(strncmp(finding(server, "container"), "WARN", 4) == 0, "with one: %s",
          finding(server, "container"));
    for (int save = 1; save <= (test_is_soak() ? 10 : 1); save++) {
        struct snapshot snapshot = snapshot_begin(server);
        struct overwriter *overwriter = overwriter_start(
            server, LARGE_KEYS, BYTES, OVERWRITE_IN_PLACE, seed + (uint64_t)save);
        while (saving(server))
            sleep_msec(20);
        note_result(server, overwriter_stop(overwriter, NULL));
        check_exact(&snapshot);
        check_fork_free(server, save);
        CHECK(number(server, "buffer_peak_bytes") < 32 * MEGABYTE,
              "the buffer took more than the group leaves");
        CHECK(number(server, "last_spool_peak_bytes") > 0, "nothing was spooled");
    }
    server_stop(server);
    remove_group();
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"lives_with_little_room", lives_with_little_room, 120},
        {0},
    };
    return test_run("container", cases, argc, argv);
}
