#include "nodes.h"

#include "testcase.h"

#include <string.h>

static void wait_until_known(struct server *server, struct server *other)
{
    const char *id = server_text(other, "CLUSTER MYID");
    double end = patient_seconds() + 20;
    for (;;) {
        const char *line = strstr(server_text(server, "CLUSTER NODES"), id);
        if (line && !strstr(strtok(strdup(line), "\n"), "handshake"))
            return;
        CHECK(patient_seconds() < end, "they do not meet");
        sleep_msec(50);
    }
}

void nodes_meet(struct server *server, struct server *other)
{
    server_ok(server, "CLUSTER MEET 127.0.0.1 %d", other->port);
    wait_until_known(server, other);
    wait_until_known(other, server);
}

void nodes_start_two(struct server *both[2], const char *config, const char *fault)
{
    for (int i = 0; i < 2; i++)
        both[i] = server_start(&(struct server_options){
            .config = format_text("%s%s", CLUSTER_CONFIG, config),
            .fault = i ? fault : NULL});
    server_ok(both[0], "CLUSTER ADDSLOTSRANGE 0 %d", SLOTS - 1);
    nodes_meet(both[0], both[1]);
    WAIT_UNTIL(strstr(server_text(both[0], "CLUSTER INFO"), "cluster_state:ok"), 20,
               "the cluster is not ready");
}

/* ---- migrations ---- */

void needs_migrations(void)
{
    struct server *server = server_start(NULL);
    if (!server_knows(server, "cluster|migrateslots"))
        not_applicable("this server does not migrate slots by itself");
    server_stop(server);
}

void migrate(struct server *both[2], const char *slots)
{
    const char *command = format_text("CLUSTER MIGRATESLOTS SLOTSRANGE %s NODE %s", slots,
                                      server_text(both[1], "CLUSTER MYID"));
    server_ok(both[0], command);
}

/* A field of the migrations, each followed by a space. */
static const char *fields(struct server *server, const char *name)
{
    redisReply *jobs = server_ok(server, "CLUSTER GETSLOTMIGRATIONS");
    const char *text = "";
    for (size_t i = 0; i < jobs->elements; i++)
        for (size_t j = 0; j + 1 < jobs->element[i]->elements; j += 2)
            if (strcmp(jobs->element[i]->element[j]->str, name) == 0)
                text = format_text("%s%s ", text, jobs->element[i]->element[j + 1]->str);
    return text;
}

void wait_for_migrations(struct server *server, const char *states)
{
    WAIT_UNTIL(strcmp(fields(server, "state"), states) == 0, 20, "the states are %s",
               fields(server, "state"));
}

const char *migration_name(struct server *server)
{
    return strtok(strdup(fields(server, "name")), " ");
}
