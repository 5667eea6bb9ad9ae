/* Values that no walker knows, as a newer server may have them: named as the server names
 * them, and saves fork while they are there. There is no such server: what is written into
 * the memory of one is the number of a type, or of an encoding, that it does not have. */
#include "fill.h"
#include "rdbfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define COUNT          50
#define STRANGE_NUMBER 13
#define SECONDS        5

/* Refused instead of forked: a child that meets such a value dies of it. */
#define CONFIG FILL_CONFIG "hz 100\nstop-writes-on-bgsave-error no\n"

static struct server *start(const char *fault)
{
    needs_module();
    struct server *server = server_start(&(struct server_options){
        .config = CONFIG, .module_arguments = "fallback no", .fault = fault});
    fill(server->connection, FILL_ALL - FILL_EXPIRIES, COUNT, test_seed());
    return server;
}

/* The first byte of the object: type in the low half, encoding in the high one. */
struct strange_value {
    struct server *server;
    int memory;
    off_t address;
    unsigned char real;
};

static void write_byte(const struct strange_value *value, unsigned char byte)
{
    CHECK(pwrite(value->memory, &byte, 1, value->address) == 1,
          "cannot write to the server's memory: %s", strerror(errno));
}

static struct strange_value make_strange(struct server *server, const char *key,
                                         bool encoding)
{
    struct strange_value value = {.server = server};
    uint64_t object;
    const char *told = server_text(server, "DEBUG OBJECT %s", key);
    CHECK(sscanf(told, "Value at:0x%" SCNx64, &object) == 1, "no address: %s", told);
    value.address = (off_t)object;
    value.memory = open(format_text("/proc/%d/mem", (int)server->pid), O_RDWR);
    if (value.memory < 0)
        skip("no permission to write to the server's memory");
    CHECK(pread(value.memory, &value.real, 1, value.address) == 1, "%s", strerror(errno));
    write_byte(&value, encoding ? (value.real & 15) | STRANGE_NUMBER << 4
                                : (value.real & 0xf0) | STRANGE_NUMBER);
    return value;
}

static const char *reason_of(struct server *server)
{
    return server_info(server, "uffd_unsupported_reason");
}

static bool is_refused(struct server *server, const char *why)
{
    server_command(server, "BGSAVE");
    const char *reason = server_info(server, "uffd_last_fallback_reason");
    return strstr(reason, why) != NULL;
}

static void wait_for_reason(struct server *server, const char *text)
{
    WAIT_UNTIL(strstr(reason_of(server), text), SECONDS, "the reason is: %s",
               reason_of(server));
}

static void check_named(struct server *server, const char *name)
{
    wait_for_reason(server, name);
    CHECK(is_refused(server, name), "a save was begun, or refused for: %s",
          server_info(server, "uffd_last_fallback_reason"));
    CHECK(server_log_count(server, name) > 0, "the log does not name it");
    CHECK(server_info_number(server, "uffd_supported") == 0, "saves seem to be served");
}

/* Gone, for the server too. */
static void check_served_again(const struct strange_value *value)
{
    struct server *server = value->server;
    write_byte(value, value->real);
    close(value->memory);
    WAIT_UNTIL(server_info_number(server, "uffd_supported") == 1, SECONDS,
               "the doubt has stayed: %s", reason_of(server));
    server_save(server);
    const char *digest = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(digest && strcmp(digest, server_digest(server)) == 0, "the data differ");
}

static void met_by_save(const char *key, bool encoding, const char *name)
{
    struct server *server = start(NULL);
    server_save(server);
    struct strange_value value = make_strange(server, key, encoding);
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    CHECK(strstr(server_info(server, "uffd_last_error"), "does not know"),
          "the save failed for: %s", server_info(server, "uffd_last_error"));
    check_named(server, name);
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 1, "it was tried again");
    check_served_again(&value);
    server_stop(server);
}

static void of_unknown_type(void)
{
    met_by_save("string:7", false, "a value of type 'unknown'");
}

static void of_unknown_encoding(void)
{
    met_by_save("hash:7", true, "a value of type 'hash', encoding 'unknown'");
}

/* Then nothing is frozen for a save that cannot succeed. */
static void met_before_freeze(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = CONFIG, .without_module = true});
    fill(server->connection, FILL_STRINGS, COUNT, test_seed());
    struct strange_value value = make_strange(server, "string:7", false);
    server_ok(server, "MODULE LOAD %s fallback no", module_path());
    check_named(server, "a value of type 'unknown'");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == 0, "a save was begun");
    check_served_again(&value);
    server_stop(server);
}

/* Nobody can be asked what it is, nor when it goes. */
static void with_long_name(void)
{
    char name[400];
    struct server *server = start(NULL);
    memset(name, 'k', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    server_ok(server, "SET %s value", name);
    server_save(server);
    struct strange_value value = make_strange(server, name, false);
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    wait_for_reason(server, "a value of type number 13");
    wait_for_reason(server, "nothing tells");
    write_byte(&value, value.real);
    sleep_msec(1500);
    CHECK(is_refused(server, "type number 13"), "a save was begun");
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
    check_served_again(&value);
    server_stop(server);
}

/* A walk that takes for such a value what the server knows is wrong. */
static void known_to_server(void)
{
    struct server *server = start("");
    server_save(server);
    server_ok(server, "UFFD.FAULT strange_sets on");
    server_save_start(server);
    CHECK(!server_save_wait(server), "the save succeeded");
    wait_for_reason(server, "unexpected data in the server's memory, reading a key");
    server_ok(server, "UFFD.FAULT strange_sets off");
    CHECK(is_refused(server, "unexpected data"), "a save was begun");
    server_stop(server);
}

/* … and such a layout is not believed. */
static void known_from_the_start(void)
{
    needs_module();
    struct server *server =
        server_start(&(struct server_options){.config = CONFIG, .fault = "strange_sets"});
    fill(server->connection, FILL_SETS, COUNT, test_seed());
    WAIT_UNTIL(server_info_number(server, "uffd_supported") == 0, SECONDS, "believed");
    CHECK(strstr(reason_of(server), "does not match the known layout"), "the reason: %s",
          reason_of(server));
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"of_unknown_type", of_unknown_type, 20},
        {"of_unknown_encoding", of_unknown_encoding, 20},
        {"met_before_freeze", met_before_freeze, 20},
        {"with_long_name", with_long_name, 20},
        {"known_to_server", known_to_server, 20},
        {"known_from_the_start", known_from_the_start, 20},
        {0},
    };
    return test_run("strangers", cases, argc, argv);
}
