#include "snapshot.h"

#include <stdio.h>
#include <string.h>

/* Longer than anything takes; ended by CLIENT UNPAUSE. */
#define PAUSE_MSEC 600000

/* On a busy machine; where no key can be compared, nothing more is waited for. */
#define PROVED_WITHIN_SECONDS 5

static bool is_to_be_proved(struct server *server)
{
    redisReply *findings = server_ok(server, "UFFD.DOCTOR");
    for (size_t i = 0; i < findings->elements; i++)
        if (strstr(findings->element[i]->str, "will be proved"))
            return true;
    return false;
}

void wait_until_proved(struct server *server)
{
    if (!server->has_module || server_info_number(server, "uffd_supported") == 0 ||
        !strstr(server_text(server, "INFO keyspace"), ":keys="))
        return;
    double until = patient_seconds() + PROVED_WITHIN_SECONDS;
    while (is_to_be_proved(server) && patient_seconds() < until)
        sleep_msec(5);
}

struct snapshot snapshot_prepare(struct server *server)
{
    struct snapshot snapshot = {.server = server};
    snapshot.reference = server_path(server, "reference.rdb");
    server_ok(server, "CLIENT PAUSE %d WRITE", PAUSE_MSEC);
    snapshot.rehashing = server_config_get(server, "activerehashing");
    server_config_set(server, "activerehashing", "no");
    wait_until_proved(server);
    snapshot.digest = server_digest(server);
    /* SAVE must not take as long as the save that is being tested. */
    const char *delay = server_config_get(server, "rdb-key-save-delay");
    server_config_set(server, "rdb-key-save-delay", "0");
    server_ok(server, "SAVE");
    server_config_set(server, "rdb-key-save-delay", delay);
    copy_file(server_path(server, "dump.rdb"), snapshot.reference);
    return snapshot;
}

void save_twice_at_once(struct server *server, const char *reference, const char *dump,
                        const char *delay)
{
    wait_until_proved(server);
    const char *const commands[] = {
        format_text("CONFIG SET rdb-key-save-delay 0"),
        format_text("CONFIG SET dbfilename %s", reference),
        "SAVE",
        format_text("CONFIG SET dbfilename %s", dump),
        format_text("CONFIG SET rdb-key-save-delay %s", delay),
        "BGSAVE",
    };
    const char *error =
        server_error_at_once(server, commands, sizeof commands / sizeof commands[0]);
    CHECK(!error, "%s", error);
}

const char *save_both_ways(struct server *server, const char **background)
{
    const char *reference = server_path(server, "reference.rdb");
    *background = server_path(server, "background.rdb");
    save_twice_at_once(server, "reference.rdb", "dump.rdb",
                       server_config_get(server, "rdb-key-save-delay"));
    CHECK(server_save_wait(server), "the background save failed");
    copy_file(server_path(server, "dump.rdb"), *background);
    return rdb_difference(reference, *background);
}

const char *check_saved_both_ways(struct server *server)
{
    const char *background;
    const char *difference = save_both_ways(server, &background);
    CHECK(!difference, "SAVE and BGSAVE: %s", difference);
    check_dump(background, true);
    return background;
}

struct snapshot snapshot_begin(struct server *server)
{
    struct snapshot snapshot = {.server = server};
    snapshot.reference = server_path(server, "reference.rdb");
    const char *delay = server_config_get(server, "rdb-key-save-delay");
    server_ok(server, "CLIENT PAUSE %d WRITE", PAUSE_MSEC);
    snapshot.digest = server_digest(server);
    save_twice_at_once(server, "reference.rdb", "dump.rdb", delay);
    server_ok(server, "CLIENT UNPAUSE");
    return snapshot;
}

const char *snapshot_fault(struct snapshot *snapshot, const char *config)
{
    struct server *server = snapshot->server;
    if (!server_save_wait(server))
        return "the background save failed";
    char *dump = server_path(server, "dump.rdb");
    const char *difference = rdb_difference(snapshot->reference, dump);
    const char *digest = dump_digest(dump, config);
    if (difference)
        return format_text(
            "BGSAVE and SAVE at the same instant: %s; the data are %s", difference,
            digest && strcmp(digest, snapshot->digest) == 0 ? "the same" : "others");
    if (!digest)
        return "a second server refuses the file";
    if (strcmp(digest, snapshot->digest) != 0)
        return format_text("DEBUG DIGEST is %s, was %s", digest, snapshot->digest);
    return NULL;
}

void snapshot_check_file(struct snapshot *snapshot)
{
    CHECK(server_save_wait(snapshot->server), "the save failed");
    char *dump = server_path(snapshot->server, "dump.rdb");
    const char *difference = rdb_difference(snapshot->reference, dump);
    CHECK(!difference, "SAVE before and BGSAVE: %s", difference);
    check_dump(dump, true);
}
