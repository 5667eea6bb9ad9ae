/* Writes the layout table of a server from its debug information:
 *   from_binary [--source] PROGRAM [DEBUG-FILE [SERVER VERSION]]
 *   from_binary --known SERVER VERSION
 * --source: as src/host/layout.c has it, else as a layout file (setting layout-file). What
 * differs from what src/ knows of this server goes to the standard error, and 2 is
 * returned. --known: what src/ knows of it, as such a file. Bits of tags and forms are macros, of which a program says nothing: these are
 * of the family of src/keyspace/family.c whose forms and numbers fit. */
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* With all that is private to them. */
#include "host/layout.c"
#include "keyspace/family.c"

#include "debug_info.h"

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

static struct server_layout found;
static struct family found_family;
static char server_name[16], server_version[32];
static int status;

__attribute__((format(printf, 1, 2))) static void differs(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s %s: ", server_name, server_version);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    status = 2;
}

_Noreturn static void give_up(const char *program, const char *why)
{
    fprintf(stderr, "%s: %s\n", program, why);
    exit(1);
}

/* ---- members --------------------------------------------------------------------- */

/* The structure that `server`, of whatever name, is. */
#define SERVER "server"

static bool find_structure(const char *unit, const char *name, Dwarf_Die *structure)
{
    if (strcmp(name, SERVER) == 0)
        return debug_info_variable("server.c", SERVER, structure);
    return debug_info_struct(unit, name, structure);
}

/* Byte of a member, -1: none. */
static long at(const char *unit, const char *structure_name, const char *path)
{
    Dwarf_Die structure;
    if (!find_structure(unit, structure_name, &structure))
        return -1;
    long bit = debug_info_member(&structure, path).bit;
    return bit < 0 ? -1 : bit / 8;
}

static bool has(const char *unit, const char *structure, const char *path)
{
    return at(unit, structure, path) >= 0;
}

static long bytes_of(const char *unit, const char *name)
{
    Dwarf_Die structure;
    return find_structure(unit, name, &structure) ? debug_info_bytes(&structure) : -1;
}

struct wanted {
    const char *unit, *structure, *path;
    uint16_t *where;
    bool optional;
};

static void take_all(const struct wanted *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        long byte = at(wanted[i].unit, wanted[i].structure, wanted[i].path);
        if (byte >= 0)
            *wanted[i].where = (uint16_t)byte;
        else if (!wanted[i].optional)
            differs("there is no %s.%s", wanted[i].structure, wanted[i].path);
    }
}

/* ---- the table of src/host/layout.c ------------------------------------------------ */

static void take_client(void)
{
    bool apart = has("rdb.c", "client", "repl_data");
    const char *owner = apart ? "ClientReplicationData" : "client";
    Dwarf_Die structure;
    const struct wanted members[] = {
        {"rdb.c", "client", "conn", &found.client_connection, false},
        {"rdb.c", "client", "repl_data", &found.client_replication, true},
        {"rdb.c", owner, "replica_req|slave_req", &found.client_request, false},
        {"rdb.c", owner, "repl_state|replstate", &found.client_replica_state, false},
    };
    take_all(members, LENGTH(members));
    if (find_structure("rdb.c", owner, &structure))
        found.client_request_bytes =
            (uint16_t)(debug_info_member(&structure, "replica_req|slave_req").bits / 8);
}

static void take_layout(void)
{
    const struct wanted members[] = {
        {"server.c", SERVER, "pid", &found.pid, false},
        {"server.c", SERVER, "main_thread_id", &found.main_thread_id, false},
        {"server.c", SERVER, "db", &found.db, false},
        {"server.c", SERVER, "dbnum", &found.dbnum, false},
        {"server.c", SERVER, "unixtime", &found.unix_time, false},
        {"server.c", SERVER, "lruclock", &found.lru_clock, true},
        {"server.c", SERVER, "child_info_pipe", &found.child_info_pipe, false},
        {"server.c", SERVER, "rdb_pipe_read", &found.rdb_pipe_read, false},
        {"server.c", SERVER, "rdb_child_exit_pipe", &found.rdb_child_exit_pipe, false},
        {"server.c", SERVER, "rdb_pipe_conns", &found.rdb_pipe_conns, false},
        {"server.c", SERVER, "rdb_pipe_numconns", &found.rdb_pipe_numconns, false},
        {"server.c", SERVER, "replicas|slaves", &found.replicas, false},
        {"rdb.c", "_rio", "io.buffer.ptr", &found.rio_buffer, false},
        {"rdb.c", "connection", "private_data", &found.connection_client, false},
        {"rdb.c", "connection", "fd", &found.connection_descriptor, false},
        {"module.c", "moduleType", "module|entity.module", &found.type_module, false},
        {"module.c", "moduleType", "rdb_load", &found.type_load, false},
    };
    take_all(members, LENGTH(members));
    const char *module =
        has("module.c", "ValkeyModule", "types") ? "ValkeyModule" : "RedisModule";
    if (has("module.c", "RedictModule", "types"))
        module = "RedictModule";
    const struct wanted in_module[] = {
        {"module.c", module, "name", &found.module_name, false},
        {"module.c", module, "types", &found.module_types, false},
    };
    take_all(in_module, LENGTH(in_module));
    take_client();
    found.report_bytes = (uint16_t)bytes_of("childinfo.c", "child_info_data");
}

static void take_abilities(void)
{
    static const struct {
        const char *symbol;
        unsigned ability;
    } by_symbol[] = {
        {"mstrHashDictTypeWithHFE", HAS_EXPIRING_FIELDS},
        {"entryHashDictTypeWithHFE", HAS_EXPIRING_ENTRIES},
        {"asmIsTrimInProgress", HAS_TRIM_JOBS},
        {"lru_getIdleSecs", HAS_CLOCKS_OF_ITS_OWN},
        {"clusterRDBSaveSlotImports", HAS_SLOT_IMPORTS},
        {"replicaRdbVersion", HAS_OLDER_FORMATS},
    };
    for (size_t i = 0; i < LENGTH(by_symbol); i++)
        if (debug_info_exports(by_symbol[i].symbol))
            found.has |= by_symbol[i].ability;
    if (found_family.group_nacked)
        found.has |= HAS_EXPIRING_PRODUCERS;
    if (found_family.objects == OBJECT_BARE)
        found.has |= HAS_EXPIRES_BY_NAME;
    if (has("server.c", SERVER, "repl_rdb_channel|dual_channel_replication"))
        found.has |= HAS_DIRECT_TRANSFERS;
}

/* ---- the family ------------------------------------------------------------------ */

static void take_forms(void)
{
    Dwarf_Die server;
    struct family *family = &found_family;
    family->tables =
        has("hashtable.c", "hashtable", "tables") && !has("server.c", "redisDb", "dict")
            ? TABLE_HASHTABLE
            : TABLE_DICT;
    family->next_first =
        family->tables == TABLE_DICT && at("dict.c", "dictEntry", "next") == 0;
    family->objects = has("rdb.c", "robj", "metabits")    ? OBJECT_REDIS_8_6
                      : has("rdb.c", "robj", "iskvobj")   ? OBJECT_REDIS_8_2
                      : has("rdb.c", "robj", "hasembval") ? OBJECT_VALKEY_9_1
                      : has("rdb.c", "robj", "hasembkey") ? OBJECT_VALKEY_8_1
                                                          : OBJECT_BARE;
    family->skiplists = has("rdb.c", "zskiplistNode", "ele") ? SKIPLIST_POINTERS
                        : has("rdb.c", "zskiplist", "header.length") ||
                                has("t_zset.c", "zskiplist", "header.length")
                            ? SKIPLIST_VALKEY_9_1
                            : SKIPLIST_REDIS_8_6;
    family->consumer_activity = has("rdb.c", "streamConsumer", "active_time");
    family->database_pointers = debug_info_variable("server.c", SERVER, &server) &&
                                debug_info_is_pointer_to_pointer(&server, "db");
}

static const char *database_name(void)
{
    return has("rdb.c", "serverDb", "expires")   ? "serverDb"
           : has("rdb.c", "redictDb", "expires") ? "redictDb"
                                                 : "redisDb";
}

static void take_family(void)
{
    struct family *family = &found_family;
    const char *database = database_name();
    bool tables = family->tables == TABLE_DICT;
    const struct wanted members[] = {
        {"dict.c", "dict", "ht_size_exp", &family->dict_exponents, !tables},
        {"rdb.c", database, "keys_with_volatile_items", &family->volatile_keys, true},
        {"kvstore.c", "_kvstore", "hashtables|dicts", &family->store_tables, true},
        {"kvstore.c", "_kvstore", "num_hashtables|num_dicts", &family->store_count, true},
        {"kvstore.c", "_kvstore", "key_count", &family->store_keys, true},
        {"kvstore.c", "_kvstore", "importing", &family->store_importing, true},
        {"kvstore.c", "_kvstore", "importing_key_count", &family->store_imported_keys,
         true},
        {"rdb.c", "stream", "rax", &family->stream_rax, false},
        {"rdb.c", "stream", "length", &family->stream_numbers, false},
        {"rdb.c", "stream", "cgroups", &family->stream_groups, false},
        {"rdb.c", "streamCG", "consumers", &family->group_consumers, false},
        {"rdb.c", "streamCG", "pel_nack_tail", &family->group_nacked, true},
        {"rdb.c", "stream", "idmp_duration", &family->stream_producers, true},
        {"rdb.c", "listpackEx", "lp", &family->expiring_listpack, true},
    };
    take_all(members, LENGTH(members));
    if (!tables)
        family->dict_exponents = 0;
    family->database_bytes = (uint16_t)bytes_of("rdb.c", database);
}

static bool have_same_forms(const struct family *one, const struct family *other)
{
    return one->tables == other->tables && one->next_first == other->next_first &&
           one->objects == other->objects && one->skiplists == other->skiplists &&
           one->consumer_activity == other->consumer_activity &&
           one->database_pointers == other->database_pointers &&
           !one->store_tables == !other->store_tables &&
           !one->expiring_listpack == !other->expiring_listpack &&
           !one->group_nacked == !other->group_nacked &&
           !one->stream_producers == !other->stream_producers;
}

static int same_numbers(const struct family *one, const struct family *other)
{
    int same = 0;
#define COUNT_SAME(name, most) same += one->name == other->name;
    FAMILY_NUMBERS(COUNT_SAME)
#undef COUNT_SAME
    return same;
}

/* Of those whose forms fit, the one with the most numbers in common. */
static enum keyspace_layout choose_family(const char *program)
{
    int best = -1, most = -1;
    for (size_t i = 0; i < LENGTH(families); i++) {
        int same = have_same_forms(&found_family, &families[i])
                       ? same_numbers(&found_family, &families[i])
                       : -1;
        if (same > most) {
            most = same;
            best = (int)i;
        }
    }
    if (best < 0)
        give_up(program, "its structures have the form of no family of src/keyspace");
    return (enum keyspace_layout)best;
}

/* What walkers of all families take for granted, or those with such a structure. */
static void check_constants(void)
{
    static const struct {
        const char *unit, *structure, *path;
        long taken;
    } all[] = {
        {"rdb.c", "quicklist", "head", 0},
        {"rdb.c", "quicklist", "len", 24},
        {"rdb.c", "quicklistNode", "next", 8},
        {"rdb.c", "quicklistNode", "entry", 16},
        {"rdb.c", "quicklistNode", "sz", 24},
        {"rdb.c", "quicklistLZF", "sz", 0},
        {"rdb.c", "quicklistLZF", "compressed", 8},
        {"rdb.c", "robj", "val_ptr|ptr", 8},
        {"rdb.c", "zset", "zsl", 8},
        {"rdb.c", "streamCG", "last_id", 0},
        {"rdb.c", "streamCG", "entries_read", 16},
        {"rdb.c", "streamCG", "pel", 24},
        {"rdb.c", "streamConsumer", "seen_time", 0},
        {"rdb.c", "streamConsumer", "active_time", 8},
        {"rdb.c", "streamNACK", "delivery_time", 0},
        {"rdb.c", "streamNACK", "delivery_count", 8},
        {"rdb.c", "streamCG", "pel_time_head", 32},
        {"rdb.c", "streamNACK", "pel_next", 56},
        {"rdb.c", "rax", "head", 0},
        {"rdb.c", "rax", "numele", 8},
        {"rdb.c", "raxNode", "data", 4},
        {"rdb.c", "list", "head", 0},
        {"rdb.c", "listNode", "next", 8},
        {"rdb.c", "listNode", "value", 16},
        {"dict.c", "dict", "type", 0},
        {"dict.c", "dict", "ht_table", 8},
        {"dict.c", "dict", "ht_used", 24},
        {"dict.c", "dict", "rehashidx", 40},
        {"hashtable.c", "hashtable", "type", 0},
        {"hashtable.c", "hashtable", "rehash_idx", 8},
        {"hashtable.c", "hashtable", "tables", 16},
        {"hashtable.c", "hashtable", "used", 32},
        {"hashtable.c", "hashtable", "bucket_exp", 48},
    };
    for (size_t i = 0; i < LENGTH(all); i++) {
        long byte = at(all[i].unit, all[i].structure, all[i].path);
        if (byte >= 0 && byte != all[i].taken)
            differs("%s.%s is %ld, src/keyspace takes %ld", all[i].structure, all[i].path,
                    byte, all[i].taken);
    }
}

static void check_bits(void)
{
    static const struct {
        const char *structure, *path;
        long bit, bits;
    } all[] = {
        {"robj", "type", 0, 4},
        {"robj", "encoding", 4, 4},
        {"quicklistNode", "encoding", 272, 2},
        {"quicklistNode", "container", 274, 2},
        {"raxNode", "iskey", 0, 1},
        {"raxNode", "isnull", 1, 1},
        {"raxNode", "iscompr", 2, 1},
        {"raxNode", "size", 3, 29},
    };
    for (size_t i = 0; i < LENGTH(all); i++) {
        Dwarf_Die structure;
        if (!find_structure("rdb.c", all[i].structure, &structure))
            continue;
        struct debug_member member = debug_info_member(&structure, all[i].path);
        if (member.bit != all[i].bit || member.bits != all[i].bits)
            differs("%s.%s is bit %ld of %ld, src/keyspace takes %ld of %ld",
                    all[i].structure, all[i].path, member.bit, member.bits, all[i].bit,
                    all[i].bits);
    }
}

/* ---- what is known --------------------------------------------------------------- */

static const struct server_layout *layout_of_family(enum keyspace_layout family)
{
    for (size_t i = LENGTH(layouts); i-- > 0;)
        if (layouts[i].keyspace == family)
            return &layouts[i];
    return NULL;
}

/* What the program does not say. */
static void take_macros(const struct server_layout *known)
{
    const struct server_layout *like = known ? known : layout_of_family(found.keyspace);
    found.magic = like->magic;
    if (found.has & HAS_DIRECT_TRANSFERS)
        found.own_connection = like->own_connection;
    found.no_compression = like->no_compression;
    found.no_checksum = like->no_checksum;
    if (!known)
        fprintf(stderr,
                "%s %s: taken from %s %s, since no program says it: the first bytes of a "
                "dump, %s; the bits of own connections, %d, of strings as they are, %d, "
                "and of no checksum, %d\n",
                server_name, server_version, like->server, like->version, like->magic,
                found.own_connection, found.no_compression, found.no_checksum);
}

static void compare_known(const struct server_layout *known)
{
    if (!known)
        return;
#define COMPARE(name, ...)                                                               \
    if (found.name != known->name)                                                       \
        differs(#name " is %u, src/host/layout.c has %u", found.name, known->name);
    LAYOUT_NUMBERS(COMPARE)
#undef COMPARE
    if (found.has != known->has)
        differs("has is %x, src/host/layout.c has %x", found.has, known->has);
    if (found.keyspace != known->keyspace)
        differs("its family seems to be %s, src/host/layout.c has %s",
                families[found.keyspace].name, families[known->keyspace].name);
}

static void compare_family(void)
{
    const struct family *known = &families[found.keyspace];
#define COMPARE(number, most)                                                            \
    if (found_family.number != known->number)                                            \
        differs(#number " is %u, %s of src/keyspace/family.c has %u",                    \
                found_family.number, known->name, known->number);
    FAMILY_NUMBERS(COMPARE)
#undef COMPARE
}

/* ---- output ---------------------------------------------------------------------- */

static void print_file(void)
{
    printf("# The layout of %s %s, for the setting layout-file of rdb_uffd.\n",
           server_name, server_version);
    printf("server %s\nversion %s\nmagic %s\nfamily %s\nhas", server_name, server_version,
           found.magic, families[found.keyspace].name);
    for (size_t i = 0; layout_abilities[i].name; i++)
        if (found.has & layout_abilities[i].ability)
            printf(" %s", layout_abilities[i].name);
    putchar('\n');
#define PRINT(name, ...) printf(#name " %u\n", found.name);
    LAYOUT_NUMBERS(PRINT)
#undef PRINT
#define PRINT(name, most) printf(#name " %u\n", found_family.name);
    FAMILY_NUMBERS(PRINT)
#undef PRINT
}

/* Lines are broken as clang-format does. */
static void append_ability(char *line, size_t size, const char *ability)
{
    size_t length = strlen(line);
    const char *last = strrchr(line, '\n');
    size_t column = length - (last ? (size_t)(last + 1 - line) : 0);
    if (!length)
        snprintf(line, size, "        .has = %s", ability);
    else if (column + strlen(" | ,") + strlen(ability) > 90)
        snprintf(line + length, size - length, " |\n               %s", ability);
    else
        snprintf(line + length, size - length, " | %s", ability);
}

/* In the order, and with the names, that a table of layout.c has. */
static void print_source(void)
{
    static const char *const abilities[] = {
        "HAS_EXPIRES_BY_NAME",  "HAS_DIRECT_TRANSFERS", "HAS_EXPIRING_FIELDS",
        "HAS_EXPIRING_ENTRIES", "HAS_TRIM_JOBS",        "HAS_CLOCKS_OF_ITS_OWN",
        "HAS_SLOT_IMPORTS",     "HAS_OLDER_FORMATS",
    };
    char family[32];
    char line[256] = "";
    snprintf(family, sizeof(family), "%s", families[found.keyspace].name);
    for (char *at_letter = family; *at_letter; at_letter++)
        *at_letter = *at_letter == '-' || *at_letter == '.' ? '_'
                     : *at_letter >= 'a' && *at_letter <= 'z'
                         ? (char)(*at_letter - 'a' + 'A')
                         : *at_letter;
    printf("    /* %s %s */\n    {\n        .server = \"%s\",\n", server_name,
           server_version, server_name);
    printf("        .version = \"%.*s\",\n        .magic = \"%s\",\n",
           (int)(strrchr(server_version, '.') + 1 - server_version), server_version,
           found.magic);
    printf("        .keyspace = KEYSPACE_%s,\n", family);
    for (size_t i = 0; i < LENGTH(abilities); i++)
        if (found.has & layout_abilities[i].ability)
            append_ability(line, sizeof(line), abilities[i]);
    printf("%s,\n", line);
#define PRINT(name, needed)                                                              \
    if (needed)                                                                          \
        printf("        ." #name " = %u,\n", found.name);
    PRINT(report_bytes, true)
    PRINT(pid, true)
    PRINT(main_thread_id, true)
    PRINT(db, true)
    PRINT(dbnum, true)
    PRINT(unix_time, true)
    PRINT(lru_clock, found.lru_clock)
    PRINT(child_info_pipe, true)
    PRINT(rdb_pipe_read, true)
    PRINT(rdb_child_exit_pipe, true)
    PRINT(rdb_pipe_conns, true)
    PRINT(rdb_pipe_numconns, true)
    PRINT(replicas, true)
    PRINT(rio_buffer, true)
    PRINT(connection_client, true)
    PRINT(client_replication, found.client_replication)
    PRINT(client_request, true)
    PRINT(client_connection, true)
    PRINT(client_replica_state, true)
    PRINT(connection_descriptor, true)
    PRINT(client_request_bytes, true)
    PRINT(own_connection, found.own_connection)
    PRINT(no_compression, found.no_compression)
    PRINT(no_checksum, found.no_checksum)
    PRINT(module_name, true)
    PRINT(module_types, true)
    PRINT(type_module, true)
    PRINT(type_load, true)
#undef PRINT
    puts("    },");
}

/* ---- which server ---------------------------------------------------------------- */

/* As it says itself: "Redis server v=7.0.15 …". */
static void ask_version(const char *program)
{
    char command[4096], line[256] = "";
    snprintf(command, sizeof(command), "'%s' --version", program);
    FILE *answer = popen(command, "r");
    if (answer) {
        if (!fgets(line, sizeof(line), answer))
            line[0] = '\0';
        pclose(answer);
    }
    if (sscanf(line, "%15s server v=%31s", server_name, server_version) != 2)
        give_up(program,
                "it does not run here: say what it is with SERVER_IS=\"redis 8.6.3\"");
    if (server_name[0] >= 'A' && server_name[0] <= 'Z')
        server_name[0] = (char)(server_name[0] - 'A' + 'a');
}

static void show_known(const char *server, const char *version)
{
    const struct server_layout *known = layout_find(server, version);
    if (!known)
        give_up(server, "src/host/layout.c has no such version");
    snprintf(server_name, sizeof(server_name), "%s", server);
    snprintf(server_version, sizeof(server_version), "%s", version);
    found = *known;
    found_family = families[known->keyspace];
    print_file();
}

static void read_program(const char *program, char **words, int count)
{
    const char *problem =
        debug_info_open(program, count > 0 && *words[0] ? words[0] : NULL);
    if (problem)
        give_up(program, problem);
    if (count == 3) {
        snprintf(server_name, sizeof(server_name), "%s", words[1]);
        snprintf(server_version, sizeof(server_version), "%s", words[2]);
    } else {
        ask_version(program);
    }
    take_forms();
    take_family();
    found.keyspace = choose_family(program);
    take_layout();
    take_abilities();
    const struct server_layout *known = layout_find(server_name, server_version);
    take_macros(known);
    compare_known(known);
    compare_family();
    check_constants();
    check_bits();
}

int main(int argc, char **argv)
{
    bool source = argc > 1 && strcmp(argv[1], "--source") == 0;
    char **words = argv + (source ? 2 : 1);
    int count = argc - (source ? 2 : 1);
    if (count == 3 && strcmp(words[0], "--known") == 0) {
        show_known(words[1], words[2]);
        return 0;
    }
    if (count != 1 && count != 2 && count != 4) {
        fprintf(stderr, "%s [--source] PROGRAM [DEBUG-FILE [SERVER VERSION]]\n", argv[0]);
        return 1;
    }
    read_program(words[0], words + 1, count - 1);
    if (source)
        print_source();
    else
        print_file();
    return status;
}
