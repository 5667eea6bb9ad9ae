/* Memory of the server that is wrong: pointers and lengths inside its values are
 * overwritten, as a bug or a bad memory chip would. A child would die of many of them;
 * the module must end the save with an error, or not have needed what is wrong, and the
 * server, which does not look at these values meanwhile, lives on. */
#include "fill.h"
#include "rdbfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COUNT        12
#define ROUNDS       100
#define SOAK_ROUNDS  5000
#define WORDS        8 /* of a structure that are candidates */
#define SAVE_SECONDS 10
/* More than there are in one of the allocator's slabs of that size, or wait in a thread's
 * cache. */
#define SMALLEST     700
#define PER_SIZE     300
#define SIZE_LARGEST 512

struct victim {
    struct server *server;
    int memory; /* /proc/PID/mem */
    uint64_t random;
    const char *last_error;
};

static bool read_word(struct victim *victim, uint64_t address, uint64_t *word)
{
    return pread(victim->memory, word, sizeof *word, (off_t)address) == sizeof *word;
}

static void write_word(struct victim *victim, uint64_t address, uint64_t word)
{
    ssize_t wrote = pwrite(victim->memory, &word, sizeof word, (off_t)address);
    CHECK(wrote == sizeof word, "cannot write to the server's memory: %s",
          strerror(errno));
}

/* Only memory that came from the allocator: what else a pointer leads to, such as the
 * functions of a type of table, belongs to all of them. */
static bool is_heap(struct victim *victim, uint64_t address)
{
    FILE *maps = fopen(format_text("/proc/%d/maps", (int)victim->server->pid), "r");
    char line[512], access[8], name[256];
    bool found = false;
    while (maps && !found && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        unsigned long inode;
        name[0] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s %*x %*s %lu %255s", &start, &end,
                   access, &inode, name) < 4)
            continue;
        found = address >= start && address < end && strncmp(access, "rw-p", 4) == 0 &&
                !inode && name[0] != '[';
    }
    if (maps)
        fclose(maps);
    return found && address % 8 == 0;
}

/* Where the value itself is: behind the object that DEBUG OBJECT tells the address of. */
static uint64_t content_of(struct victim *victim, const char *key)
{
    const char *told = server_text(victim->server, "DEBUG OBJECT %s", key);
    uint64_t object, content;
    CHECK(sscanf(told, "Value at:0x%" SCNx64, &object) == 1, "no address: %s", told);
    CHECK(read_word(victim, object + 8, &content), "cannot read the server's memory");
    return content;
}

/* A word of the value, or of something that it points to. */
static uint64_t choose_word(struct victim *victim, uint64_t content)
{
    uint64_t at = content, next;
    for (int hops = (int)(random_next(&victim->random) % 4); hops; hops--) {
        uint64_t from = at + 8 * (random_next(&victim->random) % WORDS);
        if (read_word(victim, from, &next) && is_heap(victim, next))
            at = next;
    }
    /* The word before the text of a string holds its length. */
    return at + 8 * (random_next(&victim->random) % WORDS) - (at == content ? 8 : 0);
}

static uint64_t any_value(struct victim *victim, uint64_t old)
{
    static const uint64_t values[] = {
        0,   8,          UINT64_MAX,        0x123456789000, UINT64_C(1) << 63,
        255, 0x7fffffff, 0x4141414141414141};
    size_t choice = random_next(&victim->random) % 11;
    return choice < 8    ? values[choice]
           : choice == 8 ? old + 8 /* a neighbour */
           : choice == 9 ? old ^ (UINT64_C(1) << random_next(&victim->random) % 64)
                         : random_next(&victim->random);
}

/* The word may be the head of an object: one of a module's type would be believed, and
 * saves would fork from then on, as they should. */
static uint64_t choose_value(struct victim *victim, uint64_t old)
{
    enum { TYPE_BITS = 15, MODULE = 5 };
    uint64_t value = any_value(victim, old);
    while ((value & TYPE_BITS) == MODULE)
        value = any_value(victim, old);
    return value;
}

static bool save_ends_well(struct server *server)
{
    double end = patient_seconds() + SAVE_SECONDS;
    server_save_start(server);
    while (server_info_number(server, "rdb_bgsave_in_progress") != 0) {
        CHECK(patient_seconds() < end, "the save does not end");
        sleep_msec(2);
    }
    return strcmp(server_info(server, "rdb_last_bgsave_status"), "ok") == 0;
}

static struct stat dump_of(struct server *server)
{
    struct stat dump;
    CHECK(stat(server_path(server, "dump.rdb"), &dump) == 0, "the dump is gone");
    return dump;
}

/* What was found makes the module leave saves to fork, until it is told to try again. */
static void try_again(struct server *server)
{
    server_config_set(server, "uffd.enabled", "no");
    server_config_set(server, "uffd.enabled", "yes");
}

/* Whatever the server writes to with every command is no value. A command of its own each
 * time: the buffer that it is read into would have stood there unchanged after the next. */
static bool is_at_rest(struct victim *victim, uint64_t address)
{
    unsigned char before[4096], after[4096];
    off_t page = (off_t)(address & ~UINT64_C(4095));
    if (pread(victim->memory, before, sizeof before, page) != sizeof before)
        return false;
    server_text(victim->server, "ECHO %016" PRIx64, random_next(&victim->random));
    return pread(victim->memory, after, sizeof after, page) == sizeof after &&
           memcmp(before, after, sizeof before) == 0;
}

/* What lies beside a value shall be another: it was a connection's functions, which the
 * server calls with every command, that a round had overwritten, and it died. So values of
 * all sizes take what slabs have left, before those that are the victims, and after. */
static void fill_slabs(struct server *server, const char *name)
{
    /* By their names: eight bytes with what stands before and behind. */
    server_ok(server, "DEBUG POPULATE %d %s 8", SMALLEST, name);
    for (int size = 8; size <= SIZE_LARGEST; size += size < 64 ? 8 : size / 8)
        server_ok(server, "DEBUG POPULATE %d %s%d %d", PER_SIZE, name, size, size);
}

/* True if the save failed. */
static bool scribble_and_save(struct victim *victim)
{
    static const char *const kinds[] = {"string", "list", "set",
                                        "hash",   "zset", "stream"};
    const char *key = format_text("%s:%d", kinds[random_next(&victim->random) % 6],
                                  (int)(random_next(&victim->random) % COUNT));
    /* A number has no memory of its own. */
    if (strcmp(server_text(victim->server, "OBJECT ENCODING %s", key), "int") == 0)
        return false;
    uint64_t address = choose_word(victim, content_of(victim, key)), old;
    if (!is_heap(victim, address & ~UINT64_C(7)) || !is_at_rest(victim, address) ||
        !read_word(victim, address, &old))
        return false;
    struct stat before = dump_of(victim->server);
    uint64_t value = choose_value(victim, old);
    write_word(victim, address, value);
    bool ok = save_ends_well(victim->server);
    write_word(victim, address, old);
    if (!ok) {
        victim->last_error = server_info(victim->server, "uffd_last_error");
        try_again(victim->server);
    }
    struct stat after = dump_of(victim->server);
    CHECK(ok || before.st_ino == after.st_ino, "%s: a wrong dump was published", key);
    return !ok;
}

static void wrong_memory(void)
{
    /* What a value does not use of its memory would hold pointers to what had been there
     * before, to a client's structures for one. */
    setenv("MALLOC_CONF", "junk:true", 1);
    setenv("JE_MALLOC_CONF", "junk:true", 1);
    needs_module();
    struct victim victim = {.random = test_seed()};
    struct server *server = victim.server = server_start(&(struct server_options){
        .config = FILL_CONFIG "hz 500\nstop-writes-on-bgsave-error no\n"});
    victim.memory = open(format_text("/proc/%d/mem", (int)server->pid), O_RDWR);
    if (victim.memory < 0)
        skip("no permission to write to the server's memory");
    fill_slabs(server, "b");
    fill(server->connection, FILL_ALL - FILL_EXPIRIES, COUNT, victim.random);
    fill_slabs(server, "a");
    server_save(server);
    const char *digest = server_digest(server);
    /* On some servers most words of a value are its text: then more rounds. */
    int least = test_is_soak() ? SOAK_ROUNDS : ROUNDS, failed = 0, rounds = 0;
    for (; rounds < least || (failed < least / 10 && rounds < 4 * least); rounds++)
        failed += scribble_and_save(&victim);
    test_note("%d of %d saves failed, the last for: %s", failed, rounds,
              victim.last_error);
    CHECK(failed >= least / 10, "hardly anything was found wrong");
    CHECK(server_info_number(server, "uffd_snapshots_failed") == failed,
          "uffd_snapshots_failed");
    CHECK(server_info_number(server, "uffd_fork_fallbacks") == 0, "it forked");
    CHECK(!server_temporary_file(server), "a temporary file was left");
    CHECK(strcmp(server_digest(server), digest) == 0, "the case has changed the data");
    server_save(server);
    const char *saved = dump_digest(server_path(server, "dump.rdb"), FILL_CONFIG);
    CHECK(saved && strcmp(saved, digest) == 0, "the dump is wrong");
    server_stop(server);
}

int main(int argc, char **argv)
{
    static const struct test_case cases[] = {
        {"wrong_memory", wrong_memory, 60},
        {0},
    };
    return test_run("corruption", cases, argc, argv);
}
