/* Replicas that connect by TLS: what goes straight to their sockets must be
 * encrypted, which only the server's own connections can do. */
#include "answers.h"
#include "fill.h"
#include "replicas.h"

#include <stdlib.h>
#include <string.h>

#define COUNT        100
#define KEYS         5000
#define QUIET_CONFIG FILL_CONFIG "repl-ping-replica-period 3600\n"
#define MASTER       QUIET_CONFIG DISKLESS_CONFIG
/* Away from the ports of the servers, and looked at together with them. */
#define TLS_PORT_AWAY 10000

/* Lines for redis.conf. */
static const char *certificate;

/* A key, and a certificate that it has signed itself. */
static void make_certificate(void)
{
    const char *key = format_text("%s/key.pem", test_directory());
    const char *signed_key = format_text("%s/certificate.pem", test_directory());
    const char *const openssl[] = {"openssl", "req",     "-x509", "-newkey",  "rsa:2048",
                                   "-nodes",  "-keyout", key,     "-out",     signed_key,
                                   "-days",   "2",       "-subj", "/CN=test", NULL};
    int code = run_program(NULL, openssl);
    if (code == 127)
        skip("there is no openssl");
    CHECK(code == 0, "openssl ended with code %d", code);
    certificate = format_text("tls-cert-file %s\ntls-key-file %s\n"
                              "tls-ca-cert-file %s\ntls-auth-clients no\n",
                              signed_key, key, signed_key);
}

static void needs_tls(void)
{
    struct server *server =
        server_start(&(struct server_options){.without_module = true});
    bool built_in = server_ok(server, "CONFIG GET tls-port")->elements != 0;
    server_stop(server);
    if (!built_in)
        skip("the server is built without TLS");
    make_certificate();
}

/* The master takes both kinds of connection; `own_way` is how it would itself
 * connect as a replica, which says nothing of those that connect to it. */
static struct server *start_master(const char *config, const char *own_way)
{
    struct server *master = server_start(&(struct server_options){
        .config = format_text("%s%stls-replication %s\n", config, certificate, own_way)});
    server_config_set(master, "tls-port",
                      format_text("%d", master->port + TLS_PORT_AWAY));
    server_ok(master, "DEBUG POPULATE %d key 500", KEYS);
    fill(master->connection, FILL_ALL, COUNT, test_seed());
    return master;
}

static void check_one_sync(struct server *master, struct server *replica)
{
    replica_wait_link(replica);
    check_same_data(master, replica);
    CHECK(server_info_number(master, "sync_full") == 1, "sync_full is %s",
          server_info(master, "sync_full"));
    server_stop(replica);
}

static void by_tls(const char *config)
{
    struct server *master = start_master(config, "no");
    struct server *replica = server_start(&(struct server_options){
        .config = format_text("%s%stls-replication yes\n", QUIET_CONFIG, certificate)});
    server_ok(replica, "REPLICAOF 127.0.0.1 %d", master->port + TLS_PORT_AWAY);
    check_one_sync(master, replica);
    if (master->has_module)
        check_finding_says(master, "replication", straight_to_sockets ? "WARN " : "OK ",
                           straight_to_sockets ? "by TLS falls back" : "without fork");
    if (!straight_to_sockets)
        check_fork_free(master, 1);
    else if (master->has_module)
        CHECK(strstr(server_info(master, "uffd_last_fallback_reason"), "plain sockets"),
              "the reason is '%s'", server_info(master, "uffd_last_fallback_reason"));
    server_stop(master);
}

static void replica_by_tls(void)
{
    needs_tls();
    each_diskless_way(by_tls, MASTER);
}

static void by_plain_socket(const char *config)
{
    struct server *master = start_master(config, "yes");
    struct server *replica =
        replica_start(master, &(struct server_options){.config = QUIET_CONFIG});
    check_one_sync(master, replica);
    check_fork_free(master, 1);
    server_stop(master);
}

static void replica_by_plain_socket(void)
{
    needs_tls();
    each_diskless_way(by_plain_socket, MASTER);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"replica_by_tls", replica_by_tls, 120},
        {"replica_by_plain_socket", replica_by_plain_socket, 120},
        {0},
    };
    return test_run("tls", cases, argc, argv);
}
