#include "proof.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "host/server.h"
#include "kernel/checked_read.h"
#include "kernel/contract.h"
#include "kernel/memory.h"
#include "kernel/thread.h"
#include "keyspace/sample.h"

/* Databases whose numbers of keys are compared; with a layout from a file there may not be
 * more. */
#define DATABASES_MOST 64
/* More kinds than one pass takes, and streams without some of their parts. */
#define PASSES_MOST 8
/* DUMP ends with two bytes of version and eight of checksum. */
#define DUMP_END 10
/* Compression never makes a string longer by more. */
#define VALUE_ROOM (SAMPLE_BYTES_MAX + 1024)

struct proof {
    const struct rdb_uffd_host *host;
    bool strict; /* the layout is from a file */
    struct keyspace_kinds *kinds;
    struct proof_stranger *stranger; /* NULL: not asked for */
    struct keyspace_kinds forgotten; /* of keys that are being imported */
    struct keyspace_roots roots;
    struct checked_reader live;
    struct view_reader reader;
    char *reason;
    size_t reason_size;
    uint64_t keys;
    /* In memory from memory_map(). */
    struct keyspace_samples samples;
    unsigned char value[VALUE_ROOM];
    unsigned char scratch[SAMPLE_BYTES_MAX];
};

__attribute__((format(printf, 2, 3))) static int differs(struct proof *proof,
                                                         const char *format, ...)
{
    va_list arguments;
    int length = snprintf(proof->reason, proof->reason_size,
                          "this build of %s %s does not match the known layout: ",
                          proof->host->server_name, proof->host->server_version);
    va_start(arguments, format);
    vsnprintf(proof->reason + length, proof->reason_size - (size_t)length, format,
              arguments);
    va_end(arguments);
    return -ENOTSUP;
}

/* ---- numbers of keys ------------------------------------------------------------- */

static int databases(const struct keyspace_roots *roots)
{
    return roots->database_count < DATABASES_MOST ? roots->database_count
                                                  : DATABASES_MOST;
}

static int compare_counts(struct proof *proof)
{
    int count = proof->roots.database_count;
    if (proof->strict && count > DATABASES_MOST)
        return differs(proof, "a layout from a file is for %d databases at most",
                       DATABASES_MOST);
    if (!proof->host->has_database(count - 1) || proof->host->has_database(count))
        return differs(proof, "there seem to be %d databases", count);
    proof->keys = 0;
    for (int i = 0; i < databases(&proof->roots); i++) {
        uint64_t found, said = proof->host->count_keys(i);
        if (keyspace_count_database(&proof->roots, &proof->reader, i, &found) != 0)
            return differs(proof, "database %d cannot be read", i);
        if (found != said)
            return differs(proof,
                           "database %d seems to have %llu keys, the server says %llu", i,
                           (unsigned long long)found, (unsigned long long)said);
        proof->keys += said;
    }
    return 0;
}

/* ---- single keys ----------------------------------------------------------------- */

/* False: it is too long, or the server has no DUMP. */
static bool is_comparable(const struct keyspace_sample *sample,
                          const struct rdb_uffd_key_answer *said)
{
    return sample->value_length && said->value_length;
}

/* What DUMP says of itself. */
static bool is_same_version(const struct rdb_uffd_key_answer *said)
{
    const unsigned char *version = said->value + said->value_length - DUMP_END;
    return said->value_length >= DUMP_END &&
           (version[0] | version[1] << 8) == server_dump_version();
}

static bool is_same_value(struct proof *proof, const struct keyspace_sample *sample,
                          const struct rdb_uffd_key_answer *said)
{
    return said->value_length >= DUMP_END &&
           rdb_is_same_value(sample->value, sample->value_length, said->value,
                             said->value_length - DUMP_END, server_decompress(),
                             proof->scratch);
}

/* Of a key_type; the server's types begin with what is no key. */
static const char *key_type_name(unsigned type)
{
    static const char *const types[] = {
        [RDB_UFFD_NO_KEY] = "key",    [RDB_UFFD_STRING] = "string",
        [RDB_UFFD_LIST] = "list",     [RDB_UFFD_SET] = "set",
        [RDB_UFFD_HASH] = "hash",     [RDB_UFFD_SORTED_SET] = "sorted set",
        [RDB_UFFD_STREAM] = "stream", [RDB_UFFD_MODULE_VALUE] = "module's value",
    };
    return type < sizeof(types) / sizeof(types[0]) ? types[type] : "value";
}

static const char *type_name(unsigned object_type)
{
    return key_type_name(object_type + 1);
}

static int compare_key(struct proof *proof, const struct keyspace_sample *sample)
{
    struct rdb_uffd_key_answer said = {.value = proof->value,
                                       .room = sample->value_length ? VALUE_ROOM : 0};
    unsigned type = sample->type + 1;
    proof->host->ask_key(sample->database, sample->name, sample->name_length, &said);
    if (said.type == RDB_UFFD_NO_KEY)
        return differs(proof, "a key that was found is not the server's");
    if (type != said.type)
        return differs(proof, "a %s seems to be a %s", key_type_name(said.type),
                       key_type_name(type));
    if (sample->expire != said.expire)
        return differs(proof, "a key seems to expire at %lld, the server says %lld",
                       (long long)sample->expire, (long long)said.expire);
    bool comparable = is_comparable(sample, &said);
    if (comparable && !is_same_value(proof, sample, &said))
        return differs(proof, "a %s would be saved wrongly", key_type_name(type));
    if (comparable && !is_same_version(&said))
        return differs(proof, "its dumps are not of version %d", server_dump_version());
    if (comparable)
        proof->kinds->stream_parts |= sample->parts;
    if (comparable || !proof->strict)
        *sample->seen = 1;
    return 0;
}

static int compare_keys(struct proof *proof)
{
    const char *where = NULL;
    proof->samples.thorough = proof->strict;
    int error = keyspace_sample(&proof->roots, &proof->reader,
                                clock_wall_msec() + KEYSPACE_SOON_MSEC, proof->kinds,
                                &proof->samples, &where);
    if (proof->stranger && proof->samples.stranger_name)
        *proof->stranger = (struct proof_stranger){proof->samples.stranger_name,
                                                   proof->samples.stranger};
    if (error == -EFAULT || error == -EBADMSG || error == -E2BIG)
        return differs(proof, "%s cannot be read", where);
    if (error)
        return error;
    for (size_t i = 0; i < proof->samples.count && !error; i++)
        error = compare_key(proof, &proof->samples.samples[i]);
    return error;
}

static bool is_any_seen(const struct keyspace_kinds *kinds)
{
    static const struct keyspace_kinds none;
    return memcmp(kinds, &none, sizeof(none)) != 0;
}

/* With a layout from a file: of all kinds that were met one must have been compared, or the
 * next save would end at it. */
static int find_uncompared(struct proof *proof)
{
    const struct keyspace_kinds *met = &proof->samples.met, *seen = proof->kinds;
    for (unsigned type = 0; type < 16; type++)
        for (unsigned i = 0; i < 32; i++) {
            if (!met->seen[type][i / 2][i % 2])
                continue;
            bool whole = type != OBJECT_STREAM || seen->stream_parts == STREAM_ALL_PARTS;
            if (seen->seen[type][i / 2][i % 2] && whole)
                continue;
            snprintf(proof->reason, proof->reason_size,
                     whole ? "the layout from a file is not proved for a %s of encoding "
                             "%u: there was none that could be compared"
                           : "the layout from a file is not proved for a %s: there was "
                             "none with entries and a consumer that has some pending",
                     type_name(type), i / 2);
            return -ENODATA;
        }
    return 0;
}

/* At least one key must have been compared. */
static int compare_some(struct proof *proof)
{
    int error = compare_keys(proof);
    for (int again = 0; !error && again < PASSES_MOST; again++)
        if (proof->strict && proof->samples.count == SAMPLES_MAX)
            error = compare_keys(proof);
    if (error || is_any_seen(proof->kinds))
        return error ? error : proof->strict ? find_uncompared(proof) : 0;
    snprintf(proof->reason, proof->reason_size,
             "the known layout is not proved yet: there is no key to compare");
    return -ENODATA;
}

/* Keys that another node still owns: the server says of what type they are and when
 * they expire, but has no DUMP of them. So that is good for one save, and what kinds
 * there were is forgotten. */
static int compare_imported(struct proof *proof)
{
    uint64_t keys, imported;
    if (keyspace_count(&proof->roots, &proof->reader, &keys, &imported) != 0)
        return differs(proof, "the databases cannot be read");
    if (!imported)
        return -EAGAIN;
    proof->kinds = &proof->forgotten;
    proof->samples.imported = true;
    int error = compare_some(proof);
    return error ? error : -EAGAIN;
}

static int compare_all(struct proof *proof)
{
    int error = compare_counts(proof);
    if (error)
        return error;
    if (proof->keys)
        return compare_some(proof);
    if (!proof->strict)
        return compare_imported(proof);
    snprintf(proof->reason, proof->reason_size,
             "the layout from a file is not proved yet: there is no key to compare");
    return -ENODATA;
}

static int prove_by(const struct rdb_uffd_host *host, struct keyspace_kinds *kinds,
                    struct proof_stranger *stranger, int (*compare)(struct proof *),
                    char *reason, size_t reason_size)
{
    struct proof *proof = memory_map(sizeof(*proof));
    int error = proof ? 0 : -ENOMEM;
    reason[0] = '\0';
    if (!error)
        error = checked_reader_open(&proof->live);
    if (!error) {
        proof->host = host;
        proof->kinds = kinds;
        proof->stranger = stranger;
        proof->reason = reason;
        proof->reason_size = reason_size;
        proof->strict = server_layout_is_of_file();
        server_roots(&proof->roots);
        view_reader_init_live(&proof->reader, &proof->live);
        error = compare(proof);
        checked_reader_close(&proof->live);
    }
    memory_unmap(proof, sizeof(*proof));
    if (error && !reason[0])
        snprintf(reason, reason_size, "the known layout cannot be proved: %s",
                 strerror(-error));
    return error;
}

int proof_try(const struct rdb_uffd_host *host, struct keyspace_kinds *kinds,
              struct proof_stranger *stranger, char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    return prove_by(host, kinds, stranger, compare_all, reason, reason_size);
}

bool proof_finds_stranger(frozen_address object)
{
    DEMAND_MAIN_THREAD();
    struct keyspace_roots roots;
    struct checked_reader live;
    struct view_reader reader;
    if (checked_reader_open(&live) != 0)
        return true;
    server_roots(&roots);
    view_reader_init_live(&reader, &live);
    bool found = keyspace_is_stranger(&roots, &reader, object);
    checked_reader_close(&live);
    return found;
}

/* ---- a save with a layout from a file -------------------------------------------- */

/* Databases may have come into use, and what looked like the clocks at load may go on to
 * look like something else. */
static int compare_instant(struct proof *proof)
{
    int64_t unix_time, lru_clock;
    int error = compare_counts(proof);
    proof->host->ask_clocks(&unix_time, &lru_clock);
    if (!error && unix_time != proof->roots.unix_time)
        error = differs(proof, "its clock is not where it should be");
    if (!error && server_has_lru_clock() && lru_clock != proof->roots.lru_clock)
        error = differs(proof, "its clock of accesses is not where it should be");
    return error;
}

int proof_try_save(const struct rdb_uffd_host *host, const struct server_capture *capture,
                   char *reason, size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    for (size_t i = 0; i < capture->socket_count; i++)
        if (!host->is_replica(capture->server_sockets[i])) {
            snprintf(reason, reason_size,
                     "the replicas' sockets are not where they should be");
            return -ENOTSUP;
        }
    return prove_by(host, NULL, NULL, compare_instant, reason, reason_size);
}

/* ---- slots that are being imported ----------------------------------------------- */

/* In every database, since each has its own set of them. */
static bool are_slots_found(const struct server_capture *capture,
                            struct view_reader *reader)
{
    bool found[KEYSPACE_SLOTS];
    for (int i = 0; i < capture->roots.database_count; i++) {
        int error = keyspace_imported_slots(&capture->roots, reader, i, found);
        if (error == -ENOENT)
            continue;
        if (error || memcmp(found, capture->imported_slots, sizeof(found)) != 0)
            return false;
    }
    return true;
}

static bool are_keys_found(const struct server_capture *capture,
                           struct view_reader *reader)
{
    uint64_t keys, imported, said = 0;
    for (int slot = 0; slot < KEYSPACE_SLOTS; slot++)
        if (capture->imported_slots[slot])
            said += server_slot_keys(slot);
    return keyspace_count(&capture->roots, reader, &keys, &imported) == 0 &&
           imported == said;
}

int proof_try_imports(const struct server_capture *capture, char *reason,
                      size_t reason_size)
{
    DEMAND_MAIN_THREAD();
    struct checked_reader live;
    struct view_reader reader;
    const char *why = NULL;
    int error = checked_reader_open(&live);
    if (error) {
        why = strerror(-error);
    } else {
        view_reader_init_live(&reader, &live);
        if (!are_slots_found(capture, &reader) || !are_keys_found(capture, &reader)) {
            why = "they are not where they should be in memory";
            error = -ENOTSUP;
        }
        checked_reader_close(&live);
    }
    if (error)
        snprintf(reason, reason_size, "slots are being imported: %s", why);
    return error;
}

bool proof_has_keys(const struct rdb_uffd_host *host)
{
    struct keyspace_roots roots;
    server_roots(&roots);
    for (int i = 0; i < databases(&roots); i++)
        if (host->count_keys(i))
            return true;
    return false;
}
