#include "doctor_checks.h"

#include <string.h>

#include "host/module_values.h"
#include "snapshot/callbacks.h"
#include "snapshot/settings.h"

void doctor_check_server(struct examination *on)
{
    const struct doctor_case *now = on->now;
    if (!now->layout_reason[0]) {
        doctor_say(on, DOCTOR_OK, "%s %s, its layout is known and %s",
                   now->host->server_name, now->host->server_version,
                   now->proved ? "proved"
                               : "will be proved when there are keys to compare");
        return;
    }
    doctor_say(on, DOCTOR_FAIL, "%s", now->layout_reason);
    doctor_advise(
        on, "use a build of a server version that this module knows, or a module "
            "that knows this one, or give it a layout-file; until then saves use fork");
}

void doctor_check_allocator(struct examination *on)
{
    if (!on->now->has_allocator) {
        doctor_say(on, DOCTOR_FAIL, "the server does not use jemalloc");
        doctor_advise(on,
                      "use a build of the server with jemalloc (make MALLOC=jemalloc)");
    } else if (on->now->guard_reason[0]) {
        doctor_say(on, DOCTOR_FAIL, "jemalloc, but %.200s", on->now->guard_reason);
        doctor_advise(
            on, "use a build of the server whose calls go through its symbol table, as "
                "Debian's do (linked dynamically); until then saves use fork");
    } else if (on->now->supported && on->now->frees_reason[0]) {
        doctor_say(on, DOCTOR_WARN,
                   "jemalloc, but its free() cannot be replaced: %s; values that are "
                   "overwritten cost more faults, and large ones are not evicted",
                   on->now->frees_reason);
        doctor_advise(
            on,
            "load the module by loadmodule in the server's configuration, before other "
            "modules; code may have to be changed then, once (systemd: "
            "MemoryDenyWriteExecute=no; SELinux: execmod); or use a server whose "
            "jemalloc is a library, as Debian's is");
    } else
        doctor_say(on, DOCTOR_OK, "jemalloc");
}

static bool get_setting(const struct examination *on, const char *name, char *value,
                        size_t size)
{
    const struct doctor_server *server = on->now->server;
    return server->setting(server->context, name, value, size);
}

static bool is_set(const struct examination *on, const char *name, const char *value)
{
    char found[64];
    return get_setting(on, name, found, sizeof(found)) && strcmp(found, value) == 0;
}
/* Saves are not served at all: of their kinds there is nothing to say. */
static bool serves_none(struct examination *on)
{
    if (on->now->supported && on->now->settings->enabled)
        return false;
    doctor_say(on, DOCTOR_OK, "no save is served: see fallback");
    return true;
}

/* The rewrite that only a fork can do: known before it happens. */
void doctor_check_rewrites(struct examination *on)
{
    if (serves_none(on))
        return;
    if (!is_set(on, "aof-use-rdb-preamble", "no"))
        doctor_say(on, DOCTOR_OK,
                   "rewrites begin with an RDB (aof-use-rdb-preamble yes)");
    else if (!is_set(on, "appendonly", "yes"))
        doctor_say(on, DOCTOR_OK,
                   "not in use; a BGREWRITEAOF by hand %s: it writes commands "
                   "(aof-use-rdb-preamble no)",
                   doctor_falls_back(on));
    else {
        doctor_say(on, DOCTOR_WARN,
                   "every rewrite %s: its commands are written by a fork only "
                   "(aof-use-rdb-preamble no)",
                   doctor_falls_back(on));
        doctor_advise(on, "CONFIG SET aof-use-rdb-preamble yes");
    }
}

/* The setting by which replicas get their data straight to their sockets. */
static const char *direct_transfers(const struct examination *on)
{
    static const char *const names[] = {"repl-rdb-channel",
                                        "dual-channel-replication-enabled"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (is_set(on, names[i], "yes"))
            return names[i];
    return NULL;
}

static bool has_tls(const struct examination *on)
{
    char port[64];
    return get_setting(on, "tls-port", port, sizeof(port)) && strcmp(port, "0") != 0;
}

void doctor_check_replication(struct examination *on)
{
    if (serves_none(on))
        return;
    const char *direct = direct_transfers(on);
    if (!direct)
        doctor_say(on, DOCTOR_OK,
                   "replicas are served without fork, by file or through a pipe");
    else if (!has_tls(on))
        doctor_say(
            on, DOCTOR_OK,
            "replicas are served without fork, straight to their sockets (%s yes) if "
            "they are not more than 16 at once",
            direct);
    else {
        doctor_say(
            on, DOCTOR_WARN,
            "the sync of a replica that connects by TLS %s: only a fork writes straight "
            "to such a socket (%s yes)",
            doctor_falls_back(on), direct);
        doctor_advise(
            on, "CONFIG SET %s no: then they are served through a pipe, without fork",
            direct);
    }
}

void doctor_check_cluster(struct examination *on)
{
    char unused[64];
    if (serves_none(on))
        return;
    if (!is_set(on, "cluster-enabled", "yes"))
        doctor_say(on, DOCTOR_OK, "not in cluster mode");
    else if (get_setting(on, "cluster-slot-migration-log-max-len", unused,
                         sizeof(unused)))
        doctor_say(
            on, DOCTOR_OK,
            "slots are saved, and imported, without fork; as the source of CLUSTER "
            "MIGRATESLOTS this node forks");
    else
        doctor_say(on, DOCTOR_OK, "slots are saved without fork");
}

void doctor_check_values(struct examination *on)
{
    char reason[256];
    const char *obstacle = on->now->child_reason;
    if (serves_none(on))
        return;
    if (module_values_find(reason, sizeof(reason)) == 0)
        doctor_say(on, DOCTOR_OK, "no module has values or data that only it can save");
    else if (!obstacle)
        doctor_say(on, DOCTOR_OK,
                   "%.120s: by its own callbacks, in a child without a heap", reason);
    else
        doctor_say(on, DOCTOR_WARN, "%.120s; by a fork, since %.80s", reason, obstacle);
    if (obstacle && on->finding->status == DOCTOR_WARN)
        doctor_advise(
            on, "%s",
            !on->now->settings->value_child
                ? "CONFIG SET uffd.value-child yes"
                : "see the log; to try a child again after it has failed, CONFIG "
                  "SET uffd.enabled no, then yes");
}

static void say_of_every_save(struct examination *on, enum doctor_status status,
                              const char *why)
{
    doctor_say(on, status, "every save %s: %.160s", doctor_falls_back(on), why);
}

void doctor_check_fallbacks(struct examination *on)
{
    const struct doctor_case *now = on->now;
    char reason[256];
    if (!now->settings->enabled) {
        doctor_say(on, DOCTOR_WARN,
                   "the module is switched off (uffd.enabled no): every save "
                   "is the server's own fork");
        doctor_advise(on, "CONFIG SET uffd.enabled yes");
    } else if (!now->supported) {
        say_of_every_save(on, DOCTOR_WARN, "it cannot be served here");
        doctor_advise(on, "see what is FAIL here");
    } else if (now->doubt[0]) {
        say_of_every_save(on, now->doubt_is_unknown_value ? DOCTOR_WARN : DOCTOR_FAIL,
                          now->doubt);
        doctor_advise(
            on, now->doubt_is_unknown_value
                    ? "a newer version may know it; without such values saves do not fork"
                    : "report it with the log; to try again, CONFIG SET uffd.enabled no, "
                      "then yes");
    } else if (now->child_reason && module_values_find(reason, sizeof(reason)) != 0) {
        say_of_every_save(on, DOCTOR_WARN, reason);
        doctor_advise(
            on, "without that module, or without such values, a restarted server saves "
                "without fork");
    } else if (now->fallbacks) {
        doctor_say(on, DOCTOR_WARN, "%llu saves %s, the last one because: %.160s",
                   (unsigned long long)now->fallbacks,
                   now->settings->fallback ? "fell back to fork" : "were refused",
                   now->last_fallback_reason);
        doctor_advise(on, "UFFD.HISTORY lists them; UFFD.RESETSTAT sets the count to 0");
    } else
        doctor_say(on, DOCTOR_OK, "no save needed fork; what cannot be served %s",
                   doctor_falls_back(on));
}
