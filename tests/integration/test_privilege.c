/* An ordinary user: with access to userfaultfd saves need no fork, without it
 * there is the server's own fork, said and counted; never a wrong file. */
#include "answers.h"
#include "fill.h"
#include "privacy.h"
#include "snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ORDINARY_USER "nobody"

/* Where everybody may use userfaultfd anyway, nobody lacks the privilege. */
static void needs_restricted_kernel(void)
{
    FILE *file = fopen("/proc/sys/vm/unprivileged_userfaultfd", "r");
    int permitted = 0;
    if (file && fscanf(file, "%d", &permitted) == 1 && permitted)
        skip("vm.unprivileged_userfaultfd is set");
    if (file)
        fclose(file);
}

static struct server *start_as_ordinary_user(const char *arguments)
{
    if (geteuid() != 0)
        skip("only root can start a server as another user");
    struct server *server = server_start(&(struct server_options){
        .config = FILL_CONFIG, .user = ORDINARY_USER, .module_arguments = arguments});
    fill(server->connection, FILL_ALL, 100, test_seed());
    return server;
}

static void with_access(void)
{
    needs_module();
    userfaultfd_node(0666);
    struct server *server = start_as_ordinary_user("");
    check_saved_both_ways(server);
    check_fork_free(server, 1);
    check_finding_says(server, "privilege", "OK ", "/dev/userfaultfd");
    CHECK(server_log_lines(server, "remedy") == 0, "the log");
    server_stop(server);
}

static void without_access(void)
{
    needs_module();
    needs_restricted_kernel();
    userfaultfd_node(0600);
    struct server *server = start_as_ordinary_user("");
    for (int saves = 1; saves <= 3; saves++) {
        check_saved_both_ways(server);
        CHECK(server_info_number(server, "uffd_fork_fallbacks") == saves,
              "uffd_fork_fallbacks is %s", server_info(server, "uffd_fork_fallbacks"));
    }
    CHECK(server_info_number(server, "uffd_forks_replaced") == 0, "uffd_forks_replaced");
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    test_note("reason: %s", reason);
    CHECK(reason && strstr(reason, "/dev/userfaultfd"),
          "the reason does not say what to grant");
    /* Once when it is loaded, not at every save. */
    int told = server_log_lines(server, "/dev/userfaultfd");
    CHECK(told == 1, "the log says %d times what to grant", told);
    CHECK(server_log_lines(server, "uffd: ") == 2, "more lines of the module than two");
    check_finding_says(server, "privilege", "FAIL ", "chgrp nogroup /dev/userfaultfd");
    server_stop(server);
}

static void device_hidden(void)
{
    needs_module();
    needs_restricted_kernel();
    if (access("/dev/userfaultfd", F_OK) != 0)
        skip("no /dev/userfaultfd to hide");
    devices_become_few();
    struct server *server = start_as_ordinary_user("");
    check_finding_says(server, "privilege", "FAIL ",
                       "/dev/userfaultfd is hidden from it");
    server_stop(server);
}

/* A kernel that gives nobody huge pages, as far as one process can be told so. */
static void no_huge_pages(void)
{
    needs_module();
    mounts_become_private();
    file_pretends("/sys/kernel/mm/transparent_hugepage/enabled",
                  "always madvise [never]\n");
    struct server *server = server_start(NULL);
    check_finding_says(server, "huge-pages", "WARN ", "(transparent_hugepage: never)");
    check_finding_says(server, "huge-pages", "WARN ", " - remedy: echo madvise > ");
    server_stop(server);
}

static void without_access_nor_fallback(void)
{
    needs_module();
    needs_restricted_kernel();
    userfaultfd_node(0600);
    struct server *server = start_as_ordinary_user("fallback no");
    test_note("%s", server_error(server, "BGSAVE"));
    CHECK(server_children(server) == 0, "a child was made");
    CHECK(strcmp(server_info(server, "rdb_last_bgsave_status"), "err") == 0,
          "rdb_last_bgsave_status");
    CHECK(!server_temporary_file(server), "a temporary file was left");
    CHECK(access(server_path(server, "dump.rdb"), F_OK) != 0, "there is a dump");
    /* Changed at run time, saving works again. */
    server_config_set(server, "uffd.fallback", "yes");
    check_saved_both_ways(server);
    server_stop(server);
}

/* The same for root, by the fault point: needs no mounts and no other user. */
static void pretended(void)
{
    needs_module();
    struct server *server = server_start(
        &(struct server_options){.config = FILL_CONFIG, .fault = "no_userfaultfd"});
    fill(server->connection, FILL_ALL, 100, test_seed());
    check_saved_both_ways(server);
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 1, "uffd_fork_fallbacks");
    server_stop(server);
}

/* A sandbox that ends the process when it places its threads, as Debian's unit does. */
static void deadly_sandbox(void)
{
    needs_module();
    const char *sandbox = getenv("TEST_SANDBOX"), *command = getenv("SERVER_COMMAND");
    command = strdup(command && *command ? command : "redis-server");
    setenv("SERVER_COMMAND",
           format_text("%s %s", sandbox ? sandbox : "build/tests/sandbox/no-placing",
                       command),
           1);
    struct server *server = server_start(&(struct server_options){.config = FILL_CONFIG});
    fill(server->connection, FILL_ALL, 100, test_seed());
    struct snapshot snapshot = snapshot_begin(server);
    setenv("SERVER_COMMAND", command, 1);
    const char *wrong = snapshot_fault(&snapshot, FILL_CONFIG);
    CHECK(!wrong, "%s", wrong);
    check_fork_free(server, 1);
    check_finding(server, "seccomp", "WARN ");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"with_access", with_access, 20},
        {"without_access", without_access, 30},
        {"device_hidden", device_hidden, 20},
        {"no_huge_pages", no_huge_pages, 20},
        {"without_access_nor_fallback", without_access_nor_fallback, 20},
        {"pretended", pretended, 20},
        {"deadly_sandbox", deadly_sandbox, 60},
        {0},
    };
    return test_run("privilege", cases, argc, argv);
}
