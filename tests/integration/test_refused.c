/* Transfers to replicas that the module does not make: the server's own fork does,
 * and finds all as it should be; or nobody, and the server goes on. */
#include "fill.h"
#include "replicas.h"

#include <stdlib.h>
#include <string.h>

#define COUNT        100
#define KEYS         10000
#define QUIET_CONFIG FILL_CONFIG "repl-ping-replica-period 3600\n"
#define MASTER       QUIET_CONFIG DISKLESS_CONFIG
/* The second one is that which servers did not survive. A replica tries again after a
 * second or so; one of Valkey 8.0 after six. */
#define REFUSALS        2
#define REFUSAL_SECONDS 60

static const struct server_options follower = {.config = QUIET_CONFIG};

/* What goes wrong in a freeze, at its start and near its end. */
static const char *const faults[] = {"spool_open", "protect_fails"};

static struct server *start_master(const char *config)
{
    struct server *master =
        server_start(&(struct server_options){.config = config, .fault = ""});
    server_ok(master, "DEBUG POPULATE %d key 500", KEYS);
    fill(master->connection, FILL_ALL, COUNT, test_seed());
    return master;
}

static void stop_both(struct server *master, struct server *replica)
{
    server_stop(replica);
    server_stop(master);
}

/* ---- made by fork ---- */

static void by_fork(const char *config)
{
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct server *master = start_master(config);
        server_ok(master, "UFFD.FAULT %s on", faults[i]);
        struct server *replica = replica_start(master, &follower);
        replica_wait_link(replica);
        check_same_data(master, replica);
        CHECK(server_info_number(master, "sync_full") == 1, "%s: sync_full is %s",
              faults[i], server_info(master, "sync_full"));
        CHECK(server_info_number(master, "uffd_fork_fallbacks") == 1,
              "%s: uffd_fork_fallbacks", faults[i]);
        stop_both(master, replica);
    }
}

static void made_by_fork(void)
{
    needs_module();
    each_diskless_way(by_fork, MASTER);
}

/* ---- made by nobody ---- */

static void by_nobody(const char *config)
{
    struct server *master = start_master(config);
    server_config_set(master, "uffd.fallback", "no");
    server_ok(master, "UFFD.FAULT protect_fails on");
    struct server *replica = replica_start(master, &follower);
    wait_for_info_above(master, "uffd_fork_fallbacks", REFUSALS - 1, REFUSAL_SECONDS);
    CHECK(strcmp(server_info(replica, "master_link_status"), "down") == 0,
          "the replica has data");
    CHECK(server_children(master) == 0, "a child was made");
    server_ok(master, "UFFD.FAULT protect_fails off");
    replica_wait_link(replica);
    check_same_data(master, replica);
    wait_until_no_child(master, 10);
    server_save(master);
    CHECK(server_info_number(master, "uffd_forks_replaced") == 2, "uffd_forks_replaced");
    stop_both(master, replica);
}

static void made_by_nobody(void)
{
    needs_module();
    each_diskless_way(by_nobody, MASTER);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"made_by_fork", made_by_fork, 120},
        {"made_by_nobody", made_by_nobody, 120},
        {0},
    };
    return test_run("refused", cases, argc, argv);
}
