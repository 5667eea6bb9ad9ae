#include "backups.h"

#include "answers.h"
#include "fill.h"
#include "rdbfile.h"
#include "snapshot.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT 60

struct server *backup_start_with(const char *module_arguments)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = FILL_CONFIG "save \"\"\n",
                                              .module_arguments = module_arguments,
                                              .fault = ""});
    fill(server->connection, FILL_ALL, COUNT, test_seed());
    return server;
}

struct server *backup_start(void)
{
    return backup_start_with(NULL);
}

struct server server_beside(struct server *server)
{
    struct server other = *server;
    other.connection = server_connect(server);
    return other;
}

/* ---- what is asked ---------------------------------------------------------------- */

const char *backup_status(struct server *server, const char *field)
{
    redisReply *value = answer_field(server_ok(server, "UFFD.BACKUP STATUS"), field);
    return value->type == REDIS_REPLY_INTEGER ? format_text("%lld", value->integer)
                                              : value->str;
}

void backup_check_state(struct server *server, const char *state)
{
    CHECK(strcmp(backup_status(server, "state"), state) == 0, "%s: %s",
          backup_status(server, "state"), backup_status(server, "reason"));
    CHECK(strcmp(server_info(server, "uffd_backup_state"), state) == 0, "INFO: %s",
          server_info(server, "uffd_backup_state"));
}

void backup_wait_for(struct server *server, const char *state)
{
    WAIT_UNTIL(strcmp(backup_status(server, "state"), "running") != 0, 30,
               "it does not end");
    backup_check_state(server, state);
}

void backup_check_failed(struct server *server, const char *reason)
{
    backup_wait_for(server, "failed");
    CHECK(strstr(backup_status(server, "reason"), reason), "%s",
          backup_status(server, "reason"));
}

void backup_start_slow(struct server *server, const char *arguments)
{
    server_config_set(server, "rdb-key-save-delay", BACKUP_SLOW);
    server_ok(server, format_text("UFFD.BACKUP %s", arguments));
    server_config_set(server, "rdb-key-save-delay", "0");
    backup_check_state(server, "running");
}

void backup_cancel(struct server *server)
{
    server_ok(server, "UFFD.BACKUP CANCEL");
    backup_wait_for(server, "cancelled");
}

/* ---- what must be there ----------------------------------------------------------- */

bool backup_exists(struct server *server, const char *name)
{
    return access(server_path(server, name), F_OK) == 0;
}

void backup_check_nothing_left(const char *directory)
{
    DIR *entries = opendir(directory);
    CHECK(entries, "%s", directory);
    for (struct dirent *entry; (entry = readdir(entries));)
        CHECK(strncmp(entry->d_name, "temp-", 5) != 0, "%s is left", entry->d_name);
    closedir(entries);
}

const char *backup_try_both(struct server *server, const char *arguments)
{
    const char *const commands[] = {
        "CONFIG SET rdb-key-save-delay 0",
        "CONFIG SET dbfilename reference.rdb",
        "SAVE",
        "CONFIG SET dbfilename dump.rdb",
        "CONFIG SET rdb-key-save-delay 200",
        format_text("UFFD.BACKUP %s", arguments),
        "CONFIG SET rdb-key-save-delay 0",
    };
    wait_until_proved(server);
    return server_error_at_once(server, commands, sizeof commands / sizeof commands[0]);
}

const char *backup_with_save(struct server *server, const char *arguments)
{
    const char *error = backup_try_both(server, arguments);
    CHECK(!error, "%s", error);
    return server_path(server, "reference.rdb");
}

void backup_check_same(const char *reference, const char *backup)
{
    const char *difference = rdb_difference(reference, backup);
    CHECK(!difference, "%s", difference);
    check_dump(backup, true);
}

char *backup_unpacked(const char *path)
{
    char *to = format_text("%s.unpacked", path);
    const char *words[] = {"lz4", "-d", "-q", path, to, NULL};
    int code = run_program(NULL, words);
    if (code == 127)
        skip("there is no lz4");
    CHECK(code == 0, "lz4 refuses %s", path);
    return to;
}
