/* A cluster and a sentinel with the module on every server: slots move and
 * replicas take over while background saves run. */
#include "fill.h"
#include "nodes.h"
#include "rdbfile.h"
#include "replicas.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MASTERS   3
#define SERVERS   (2 * MASTERS)
#define KEYS      2500
#define SLOW      "700" /* microseconds a key */
#define REDIRECTS 50

#define QUIET_CONFIG "repl-diskless-sync-delay 0\nrepl-ping-replica-period 3600\n"

static struct server *servers[SERVERS];

static const char *address_of(struct server *server)
{
    return format_text("127.0.0.1:%d", server->port);
}

static void run_tool(const char *const *arguments, const char *what)
{
    const char *output = format_text("%s/tool.txt", test_directory());
    int code = run_program(output, arguments);
    if (code)
        test_note("the tool's output is in %s", output);
    CHECK(code == 0, "%s: redis-cli ended with code %d", what, code);
}

/* Until every server says that all slots are served and knows all the others. */
static void wait_until_agreed(void)
{
    double end = patient_seconds() + 30;
    for (int i = 0; i < SERVERS; i++)
        for (;;) {
            const char *state = server_text(servers[i], "CLUSTER INFO");
            const char *nodes = server_text(servers[i], "CLUSTER NODES");
            if (strstr(state, "cluster_state:ok") && !strstr(nodes, "fail") &&
                strstr(state, format_text("cluster_known_nodes:%d", SERVERS)))
                break;
            CHECK(patient_seconds() < end, "no agreement: %s", state);
            sleep_msec(50);
        }
}

static void start_cluster(void)
{
    const char *arguments[SERVERS + 8] = {"redis-cli", "--cluster", "create"};
    int count = 3;
    for (int i = 0; i < SERVERS; i++) {
        servers[i] = server_start(&(struct server_options){.config = CLUSTER_CONFIG});
        arguments[count++] = address_of(servers[i]);
    }
    arguments[count++] = "--cluster-replicas";
    arguments[count++] = "1";
    arguments[count++] = "--cluster-yes";
    run_tool(arguments, "creating the cluster");
    wait_until_agreed();
}

static struct server *server_at_port(int port)
{
    for (int i = 0; i < SERVERS; i++)
        if (servers[i]->port == port)
            return servers[i];
    fail("redirected to port %d, where nobody is", port);
}

/* Follows redirections, as a client of a cluster does. `place`: where it was
 * answered last. */
static redisReply *cluster_command(struct server **place, const char *command)
{
    for (int i = 0; i < REDIRECTS; i++) {
        redisReply *reply = server_command(*place, command);
        if (reply->type != REDIS_REPLY_ERROR)
            return reply;
        const char *colon = strrchr(reply->str, ':');
        if (strncmp(reply->str, "MOVED", 5) == 0 && colon) {
            *place = server_at_port(atoi(colon + 1));
        } else if (strncmp(reply->str, "ASK", 3) == 0 && colon) {
            struct server *other = server_at_port(atoi(colon + 1));
            server_ok(other, "ASKING");
            reply = server_command(other, command);
            if (reply->type != REDIS_REPLY_ERROR)
                return reply;
        } else {
            CHECK(strncmp(reply->str, "TRYAGAIN", 8) == 0 ||
                      strncmp(reply->str, "CLUSTERDOWN", 11) == 0,
                  "%s: %s", command, reply->str);
        }
        sleep_msec(i < 5 ? 1 : 100);
    }
    fail("%s: redirected for ever", command);
}

static void write_all(int round)
{
    struct server *place = servers[0];
    for (int i = 0; i < KEYS; i++) {
        cluster_command(&place, format_text("SET key:%d %d:%d", i, round, i));
        cluster_command(&place, format_text("INCR {key:%d}:count", i));
    }
}

static void check_all(int round)
{
    struct server *place = servers[0];
    for (int i = 0; i < KEYS; i++) {
        redisReply *value = cluster_command(&place, format_text("GET key:%d", i));
        CHECK(value->str && strcmp(value->str, format_text("%d:%d", round, i)) == 0,
              "key:%d is %s", i, value->str ? value->str : "gone");
        value = cluster_command(&place, format_text("GET {key:%d}:count", i));
        CHECK(value->str && atoi(value->str) == round, "{key:%d}:count is %s, not %d", i,
              value->str ? value->str : "gone", round);
    }
}

static void start_all_saves(void)
{
    for (int i = 0; i < SERVERS; i++) {
        server_config_set(servers[i], "rdb-key-save-delay", SLOW);
        server_save_start(servers[i]);
    }
}

static void end_all_saves(void)
{
    for (int i = 0; i < SERVERS; i++) {
        server_config_set(servers[i], "rdb-key-save-delay", "0");
        CHECK(server_save_wait(servers[i]), "a save failed");
        check_no_temporary_file(servers[i]);
        check_dump(server_path(servers[i], "dump.rdb"), true);
    }
}

static bool is_master(struct server *server)
{
    return strcmp(server_info(server, "role"), "master") == 0;
}

static void move_slots(int from, int to, int count)
{
    const char *source = server_text(servers[from], "CLUSTER MYID");
    const char *target = server_text(servers[to], "CLUSTER MYID");
    run_tool((const char *[]){"redis-cli", "--cluster", "reshard", address_of(servers[0]),
                              "--cluster-from", source, "--cluster-to", target,
                              "--cluster-slots", format_text("%d", count),
                              "--cluster-yes", NULL},
             "moving slots");
}

/* The replica of the first master takes its place. */
static void fail_over(void)
{
    int replica = 0;
    for (int i = 0; i < SERVERS; i++)
        if (!is_master(servers[i]) &&
            atoi(server_info(servers[i], "master_port")) == servers[0]->port)
            replica = i;
    CHECK(replica, "the first master has no replica");
    server_ok(servers[replica], "CLUSTER FAILOVER");
    wait_for_info(servers[replica], "role", "master", 20);
    wait_for_info(servers[0], "role", "slave", 20);
    replica_wait_link(servers[0]);
}

static void check_replicas(void)
{
    for (int i = 0; i < SERVERS; i++) {
        if (is_master(servers[i]))
            continue;
        replica_wait_link(servers[i]);
        check_same_data(server_at_port(atoi(server_info(servers[i], "master_port"))),
                        servers[i]);
    }
}

static void cluster(void)
{
    start_cluster();
    write_all(1);
    start_all_saves();
    move_slots(0, 1, 400);
    write_all(2);
    end_all_saves();
    check_all(2);
    start_all_saves();
    fail_over();
    write_all(3);
    end_all_saves();
    wait_until_agreed();
    check_all(3);
    check_replicas();
    for (int i = 0; i < SERVERS; i++)
        check_fork_free(servers[i], (int)server_info_number(servers[i], "total_forks"));
}

/* ---- slots on their way ---- */

#define SLOT 100

/* What a server says of slots that leave it: "[100->-ID]", "" if nothing. */
static const char *open_slots(struct server *server)
{
    const char *nodes = server_text(server, "CLUSTER NODES");
    const char *open = strchr(strstr(nodes, "myself"), '[');
    return open ? strtok(strdup(open), "\r\n") : "";
}

/* What a new replica learns from its first synchronization about a slot on its way. */
static const char *learned(struct server *both[2], const char *by_module)
{
    if (both[0]->has_module)
        server_config_set(both[0], "uffd.enabled", by_module);
    struct server *replica =
        server_start(&(struct server_options){.config = CLUSTER_CONFIG});
    nodes_meet(both[0], replica);
    server_ok(replica, "CLUSTER REPLICATE %s", server_text(both[0], "CLUSTER MYID"));
    replica_wait_link(replica);
    const char *open = open_slots(replica);
    server_stop(replica);
    wait_until_no_child(both[0], 10);
    return open;
}

static void slot_states(const char *config)
{
    struct server *both[2];
    nodes_start_two(both, config, NULL);
    server_ok(both[0], "CLUSTER SETSLOT %d MIGRATING %s", SLOT,
              server_text(both[1], "CLUSTER MYID"));
    CHECK(*open_slots(both[0]), "the slot does not migrate");
    const char *stock = learned(both, "no"), *own = learned(both, "yes");
    test_note("a replica learns \"%s\"", stock);
    CHECK(strcmp(own, stock) == 0, "\"%s\" without fork, \"%s\" with", own, stock);
    check_fork_free(both[0], 1);
    server_stop(both[0]);
    server_stop(both[1]);
}

static void slot_states_from_file(void)
{
    slot_states("repl-diskless-sync no\n");
}

static void slot_states_through_pipe(void)
{
    each_diskless_way(slot_states, DISKLESS_CONFIG);
}

/* ---- sentinel ---- */

static redisReply *sentinel_command(redisContext *sentinel, const char *command)
{
    redisReply *reply = redisCommand(sentinel, command);
    CHECK(reply && reply->type != REDIS_REPLY_ERROR, "%s: %s", command,
          reply ? reply->str : "no answer");
    return reply;
}

static struct server *start_sentinel(struct server *master)
{
    return server_start(&(struct server_options){
        .config = format_text("sentinel monitor data 127.0.0.1 %d 1\n"
                              "sentinel down-after-milliseconds data 1000\n"
                              "sentinel failover-timeout data 10000\n",
                              master->port),
        .sentinel = true});
}

static int monitored_port(struct server *sentinel)
{
    redisReply *reply =
        sentinel_command(sentinel->connection, "SENTINEL GET-MASTER-ADDR-BY-NAME data");
    return atoi(reply->element[1]->str);
}

static void wait_for_new_master(struct server *sentinel, int old_port)
{
    WAIT_UNTIL(monitored_port(sentinel) != old_port, 30, "no failover after 30 seconds");
}

static void sentinel(void)
{
    static const struct server_options options = {.config = QUIET_CONFIG};
    struct server *master = server_start(&options);
    fill(master->connection, FILL_ALL, 100, test_seed());
    server_ok(master, "DEBUG POPULATE %d key 100", KEYS);
    struct server *replica = replica_start(master, &options);
    replica_wait_link(replica);
    struct server *sentinel = start_sentinel(master);
    WAIT_UNTIL(
        sentinel_command(sentinel->connection, "SENTINEL REPLICAS data")->elements >= 1,
        20, "the sentinel does not find the replica");
    /* The replica may have it all before the master knows that the transfer is over. */
    wait_until_no_child(master, 10);
    server_config_set(master, "rdb-key-save-delay", SLOW);
    server_config_set(replica, "rdb-key-save-delay", SLOW);
    server_save_start(master);
    server_save_start(replica);
    check_same_data(master, replica);
    const char *digest = server_digest(replica);
    int port = master->port;
    server_kill(master);
    wait_for_new_master(sentinel, port);
    /* The sentinel closes the clients' connections when it has promoted a server. */
    sleep_msec(2000);
    replica->connection = server_connect(replica);
    wait_for_info(replica, "role", "master", 20);
    CHECK(strcmp(digest, server_digest(replica)) == 0, "data changed in the failover");
    server_config_set(replica, "rdb-key-save-delay", "0");
    wait_until_no_child(replica, 20);
    server_ok(replica, "SET after failover");
    server_save(replica);
    check_dump(server_path(replica, "dump.rdb"), true);
    check_fork_free(replica, 2);
}

int main(int argc, char **argv)
{
    const struct test_case cases[] = {
        {"cluster", cluster, 180},
        {"slot_states_from_file", slot_states_from_file, 60},
        {"slot_states_through_pipe", slot_states_through_pipe, 120},
        {"sentinel", sentinel, 120},
        {0},
    };
    return test_run("cluster", cases, argc, argv);
}
