/* Several replicas that get the master's data from one save, or come while it runs;
 * replicas that go away, or stand still, in the middle of it; and those that come back. */
#include "masters.h"
#include "rdbfile.h"

#include <signal.h>
#include <string.h>

/* ---- several ---- */

static void several_at_once(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(
        format_text("%srepl-diskless-sync-max-replicas 3\nrepl-diskless-sync-delay 30\n",
                    config),
        seed);
    struct server *replicas[3];
    for (int i = 0; i < 3; i++)
        replicas[i] = server_start(&follower);
    struct writers *writers = master_write(master, seed);
    server_config_set(master, "rdb-key-save-delay", "50");
    for (int i = 0; i < 3; i++)
        replica_follow(replicas[i], master);
    for (int i = 0; i < 3; i++)
        replica_wait_link(replicas[i]);
    writers_stop(writers);
    for (int i = 0; i < 3; i++)
        check_same_data(master, replicas[i]);
    CHECK(server_info_number(master, "connected_slaves") == 3, "connected_slaves");
    CHECK(server_info_number(master, "sync_full") == 3, "sync_full");
    /* Those that came before the first save ended attached to it or to the next. */
    double forks = server_info_number(master, "total_forks");
    CHECK(forks <= 2, "%g saves for three replicas", forks);
    check_fork_free(master, (int)forks);
    check_no_temporary_file(master);
    for (int i = 0; i < 3; i++)
        server_stop(replicas[i]);
    server_stop(master);
}

static void several_from_file(void)
{
    several_at_once(from_disk_config);
}

static void several_through_pipe(void)
{
    each_diskless_way(several_at_once, diskless_config);
}

/* The second comes when the first one's transfer is half done. */
static void joining(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(config, seed);
    struct writers *writers = master_write(master, seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    struct server *first = replica_start(master, &follower);
    master_wait_transfer(master);
    sleep_msec(500);
    struct server *second = replica_start(master, &follower);
    replica_wait_link(first);
    server_config_set(master, "rdb-key-save-delay", "0");
    replica_wait_link(second);
    writers_stop(writers);
    check_same_data(master, first);
    check_same_data(master, second);
    check_fork_free(master, (int)server_info_number(master, "total_forks"));
    server_stop(second);
    master_stop_with(master, first);
}

static void joining_from_file(void)
{
    joining(from_disk_config);
}

static void joining_through_pipe(void)
{
    each_diskless_way(joining, diskless_config);
}

/* A replica asks while somebody's BGSAVE runs, which it cannot use. */
static void joining_during_save(void)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(diskless_config, seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    server_save_start(master);
    struct server *replica = replica_start(master, &follower);
    struct writers *writers = master_write(master, seed);
    CHECK(server_save_wait(master), "the save failed");
    server_config_set(master, "rdb-key-save-delay", "0");
    replica_wait_link(replica);
    writers_stop(writers);
    check_same_data(master, replica);
    check_dump(server_path(master, "dump.rdb"), true);
    check_fork_free(master, 2);
    master_stop_with(master, replica);
}

/* ---- those that go away ---- */

static void one_of_two_is_killed(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(
        format_text("%srepl-diskless-sync-max-replicas 2\nrepl-diskless-sync-delay 30\n",
                    config),
        seed);
    server_config_set(master, "rdb-key-save-delay", SLOW_SAVE);
    struct server *stays = server_start(&follower), *goes = server_start(&follower);
    struct writers *writers = master_write(master, seed);
    replica_follow(stays, master);
    replica_follow(goes, master);
    master_wait_transfer(master);
    sleep_msec(300 + (long)(random_next(&seed) % 500));
    server_kill(goes);
    replica_wait_link(stays);
    writers_stop(writers);
    check_same_data(master, stays);
    CHECK(server_info_number(master, "connected_slaves") == 1, "connected_slaves");
    check_no_temporary_file(master);
    master_stop_with(master, stays);
}

static void killed_from_file(void)
{
    one_of_two_is_killed(from_disk_config);
}

static void killed_through_pipe(void)
{
    each_diskless_way(one_of_two_is_killed, diskless_config);
}

static void all_gone(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(config, seed);
    struct writers *writers = master_write(master, seed);
    /* The master notices when it has something to send: a second at most. */
    server_config_set(master, "rdb-key-save-delay", "500");
    struct server *replica = replica_start(master, &follower);
    master_wait_transfer(master);
    sleep_msec((long)(random_next(&seed) % 500));
    server_kill(replica);
    wait_until_no_child(master, 8);
    check_no_temporary_file(master);
    CHECK(strcmp(server_info(master, "rdb_last_bgsave_status"), "ok") == 0,
          "a transfer without receivers counts as a failed save");
    server_config_set(master, "rdb-key-save-delay", "0");
    replica = replica_start(master, &follower);
    replica_wait_link(replica);
    writers_stop(writers);
    check_same_data(master, replica);
    wait_until_no_child(master, 10);
    server_save(master);
    check_dump(server_path(master, "dump.rdb"), true);
    check_fork_free(master, 3);
    master_stop_with(master, replica);
}

static void all_gone_from_file(void)
{
    all_gone(from_disk_config);
}

static void all_gone_through_pipe(void)
{
    each_diskless_way(all_gone, diskless_config);
}

/* Again and again, the only receiver goes at any moment of a transfer, or just
 * after it. */
static void gone_at_random(const char *config)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(config, seed), *replica;
    int rounds = test_is_soak() ? 300 : 5, early = 0; /* of a save of two seconds */
    double longest = 0, shortest = 8;
    server_config_set(master, "rdb-key-save-delay", "200");
    for (int i = 0; i < rounds; i++) {
        replica = replica_start(master, &follower);
        wait_for_info_above(master, "total_forks", i, 10);
        sleep_msec((long)(random_next(&seed) % 700));
        early += server_info_number(master, "rdb_bgsave_in_progress") == 1;
        server_kill(replica);
        double began = patient_seconds();
        wait_until_no_child(master, 8);
        double took = patient_seconds() - began;
        longest = took > longest ? took : longest;
        shortest = took < shortest ? took : shortest;
        check_no_temporary_file(master);
    }
    test_note("%d of %d were killed while the master saved; the longest end took %.0f ms",
              early, rounds, longest * 1000);
    CHECK(early, "none was killed in time");
    CHECK(shortest < 1.5, "the saves were not ended: the shortest end took %g seconds",
          shortest);
    server_config_set(master, "rdb-key-save-delay", "0");
    replica = replica_start(master, &follower);
    replica_wait_link(replica);
    check_same_data(master, replica);
    check_fork_free(master, rounds + 1);
    master_stop_with(master, replica);
}

static void gone_at_random_from_file(void)
{
    gone_at_random(from_disk_config);
}

static void gone_at_random_through_pipe(void)
{
    each_diskless_way(gone_at_random, diskless_config);
}

/* It stands still in the middle of the transfer, with the pipe full, and is
 * given up by the master. */
static void replica_times_out(void)
{
    uint64_t seed = test_seed();
    struct server *master =
        master_start(format_text("%srepl-timeout 2\n", diskless_config), seed);
    server_ok(master, "DEBUG POPULATE 60 large 1000000");
    server_config_set(master, "rdbcompression", "no");
    struct server *replica = replica_start(master, &follower);
    master_wait_transfer(master);
    kill(replica->pid, SIGSTOP);
    struct writers *writers = master_write(master, seed);
    wait_until_no_child(master, 15);
    writers_stop(writers);
    CHECK(server_info_number(master, "connected_slaves") == 0, "connected_slaves");
    kill(replica->pid, SIGCONT);
    replica_wait_link(replica);
    check_same_data(master, replica);
    check_fork_free(master, (int)server_info_number(master, "total_forks"));
    master_stop_with(master, replica);
}

static void slow_replica(void)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(diskless_config, seed);
    server_ok(master, "DEBUG POPULATE 60 large 1000000");
    server_config_set(master, "rdbcompression", "no");
    server_config_set(master, "client-output-buffer-limit", "replica 0 0 0");
    struct server *replica = server_start(&(struct server_options){
        .config = QUIET_CONFIG "repl-diskless-load swapdb\nkey-load-delay 200\n"});
    struct writers *writers = master_write(master, seed);
    replica_follow(replica, master);
    double began = clock_seconds();
    master_wait_transfer(master);
    for (int i = 0; i < 4; i++) {
        kill(replica->pid, SIGSTOP);
        sleep_msec(200);
        kill(replica->pid, SIGCONT);
        sleep_msec(30);
    }
    replica_wait_link(replica);
    double seconds = clock_seconds() - began;
    CHECK(seconds > 1, "it was not slow: %g seconds", seconds);
    writers_stop(writers);
    server_config_set(replica, "key-load-delay", "0");
    check_same_data(master, replica);
    check_fork_free(master, 1);
    master_stop_with(master, replica);
}

/* ---- those that come back ---- */

static struct server *restart(struct server *server, const char *config)
{
    server_kill(server);
    return server_start(
        &(struct server_options){.config = config, .directory = server->directory});
}

/* A background save made by a replica has the place in the master's history:
 * restarted from it, the replica asks only for what is missing. */
static void partial_after_replica_restart(void)
{
    uint64_t seed = test_seed();
    struct server *master =
        master_start(format_text("%srepl-backlog-size 100mb\n", diskless_config), seed);
    struct server *replica = replica_start(master, &follower);
    replica_wait_link(replica);
    for (int i = 0; i < 3; i++) {
        struct writers *writers = master_write(master, seed + i * 9);
        sleep_msec(200);
        server_config_set(replica, "rdb-key-save-delay", i == 2 ? "0" : "20");
        server_save(replica);
        sleep_msec(100);
        /* It must be a replica when it loads the file. */
        replica = restart(replica, format_text("%sreplicaof 127.0.0.1 %d\n", QUIET_CONFIG,
                                               master->port));
        replica_wait_link(replica);
        writers_stop(writers);
        check_same_data(master, replica);
        CHECK(server_info_number(master, "sync_full") == 1 &&
                  server_info_number(master, "sync_partial_ok") == i + 1,
              "not a partial resynchronization: %s full, %s partial",
              server_info(master, "sync_full"), server_info(master, "sync_partial_ok"));
    }
    master_stop_with(master, replica);
}

static void partial_after_master_restart(void)
{
    uint64_t seed = test_seed();
    struct server *master = master_start(diskless_config, seed);
    struct server *replica = replica_start(master, &follower);
    replica_wait_link(replica);
    server_ok(master, "SELECT 3");
    server_ok(master, "SET another database");
    wait_until_no_child(master, 15);
    server_save(master);
    check_same_data(master, replica);
    master = restart(master, diskless_config);
    replica_follow(replica, master);
    replica_wait_link(replica);
    server_ok(master, "SET after restart");
    check_same_data(master, replica);
    CHECK(server_info_number(master, "sync_full") == 0 &&
              server_info_number(master, "sync_partial_ok") == 1,
          "not a partial resynchronization");
    master_stop_with(master, replica);
}

int main(int argc, char **argv)
{
    int limit = test_is_soak() ? 2400 : 120;
    const struct test_case cases[] = {
        {"several_from_file", several_from_file, 60},
        {"several_through_pipe", several_through_pipe, 120},
        {"joining_from_file", joining_from_file, 60},
        {"joining_through_pipe", joining_through_pipe, 120},
        {"joining_during_save", joining_during_save, 60},
        {"killed_from_file", killed_from_file, 60},
        {"killed_through_pipe", killed_through_pipe, 120},
        {"all_gone_from_file", all_gone_from_file, 60},
        {"all_gone_through_pipe", all_gone_through_pipe, 120},
        {"gone_at_random_from_file", gone_at_random_from_file, limit},
        {"gone_at_random_through_pipe", gone_at_random_through_pipe, limit},
        {"replica_times_out", replica_times_out, 60},
        {"slow_replica", slow_replica, 60},
        {"partial_after_replica_restart", partial_after_replica_restart, 60},
        {"partial_after_master_restart", partial_after_master_restart, 30},
        {0},
    };
    return test_run("coming_and_going", cases, argc, argv);
}
