/* Streams.
 *
 *  stream    rax · groups (rax, or 0) · and in one piece: length · last id · first id
 *            · highest deleted id · entries added; the family says where
 *  group     0 last id · 16 entries read · 24 pending (rax) · consumers (rax): likewise
 *  consumer  0 seen (ms) · 8 name · 16 pending (rax); since 7.2
 *            0 seen · 8 active (ms) · 16 name · 24 pending
 *  pending   0 delivered (ms) · 8 times delivered
 *  An id is two u64: milliseconds and sequence.
 *  Redis 8.6 also keeps what tells entries that are sent twice, if the family has it:
 *            seconds · entries · producers (rax, or 0) · added · repeated
 *            (seconds: so long it is kept. Redis 8.8 does not write what is older)
 *  producer  0 dict of its entries · 8 the first of them
 *  entry     0 next · 8 id · 24 length of its name · 32 the name
 *  Redis 8.8 has in a group, before its consumers, and writes entries that were given back:
 *  group     32 the first pending one, those that were given back before others · the last
 *            that was, or 0: the family says where
 *  pending   32 id · 56 the next one
 */
#include <endian.h>

#include "keyspace/rax.h"
#include "keyspace/table.h"
#include "keyspace/values.h"

#define STREAM_BYTES 88
#define ID_BYTES     16

static int save_lengths(struct walk *walk, const unsigned char *bytes, size_t offset,
                        size_t count)
{
    int error = 0;
    for (size_t i = 0; i < count && !error; i++)
        error = rdb_encode_length(walk->encoder, word_at(bytes, offset + 8 * i));
    return error;
}

static int save_size(struct walk *walk, frozen_address rax)
{
    uint64_t elements;
    int error = rax_size(walk, rax, &elements);
    return error ? error : rdb_encode_length(walk->encoder, elements);
}

/* ---- entries --------------------------------------------------------------------- */

static int save_listpack(struct walk *walk, const unsigned char *key, size_t length,
                         frozen_address data, void *context)
{
    (void)context;
    uint32_t bytes;
    walk->stream_parts |= STREAM_ENTRIES;
    int error = rdb_encode_string(walk->encoder, key, length);
    if (!error)
        error = frozen_read(walk, &bytes, data, sizeof(bytes));
    if (!error)
        error = frozen_blob_save(walk, data, bytes);
    if (!error)
        error = walk->observer->progress(walk->observer, walk->keys);
    return error;
}

/* ---- groups ---------------------------------------------------------------------- */

static int save_pending(struct walk *walk, const unsigned char *key, size_t length,
                        frozen_address data, void *context)
{
    bool with_delivery = *(bool *)context;
    unsigned char pending[16];
    walk->stream_parts |= STREAM_PENDING;
    if (length != ID_BYTES)
        return -EBADMSG;
    int error = rdb_encode_raw(walk->encoder, key, ID_BYTES);
    if (error || !with_delivery)
        return error;
    error = frozen_read(walk, pending, data, sizeof(pending));
    if (!error)
        error = rdb_encode_milliseconds(walk->encoder, (int64_t)word_at(pending, 0));
    if (!error)
        error = rdb_encode_length(walk->encoder, word_at(pending, 8));
    return error;
}

static int save_pending_list(struct walk *walk, int level, frozen_address rax,
                             bool with_delivery)
{
    int error = save_size(walk, rax);
    return error ? error : rax_walk(walk, level, rax, save_pending, &with_delivery);
}

static int save_consumer(struct walk *walk, const unsigned char *key, size_t length,
                         frozen_address data, void *context)
{
    (void)context;
    unsigned char consumer[32];
    walk->stream_parts |= STREAM_CONSUMERS;
    bool active = walk->family->consumer_activity;
    int error = frozen_read(walk, consumer, data, active ? 32 : 24);
    if (!error)
        error = rdb_encode_string(walk->encoder, key, length);
    if (!error)
        error = rdb_encode_milliseconds(walk->encoder, (int64_t)word_at(consumer, 0));
    if (!error && active)
        error = rdb_encode_milliseconds(walk->encoder, (int64_t)word_at(consumer, 8));
    if (!error)
        error = save_pending_list(walk, 3, word_at(consumer, active ? 24 : 16), false);
    return error;
}

/* The first pending entries of a group, up to the last that was given back. Returns how
 * many, or -errno. */
static int64_t walk_nacked(struct walk *walk, const unsigned char *group, bool save)
{
    frozen_address last = word_at(group, walk->family->group_nacked);
    frozen_address at = last ? word_at(group, 32) : 0;
    for (int64_t count = 0;; count++) {
        unsigned char pending[64];
        if (!at)
            return last ? -EBADMSG : count;
        int error = frozen_read(walk, pending, at, sizeof(pending));
        uint64_t id[2] = {htobe64(word_at(pending, 32)), htobe64(word_at(pending, 40))};
        if (!error && save)
            error = rdb_encode_raw(walk->encoder, id, sizeof(id));
        if (error)
            return error;
        if (at == last)
            return count + 1;
        at = word_at(pending, 56);
    }
}

static int save_nacked(struct walk *walk, const unsigned char *group)
{
    int64_t count = walk_nacked(walk, group, false);
    int error =
        count < 0 ? (int)count : rdb_encode_length(walk->encoder, (uint64_t)count);
    if (!error)
        count = walk_nacked(walk, group, true);
    return count < 0 ? (int)count : error;
}

static int save_group(struct walk *walk, const unsigned char *key, size_t length,
                      frozen_address data, void *context)
{
    (void)context;
    unsigned char group[64];
    uint8_t consumers = walk->family->group_consumers;
    int error = frozen_read(walk, group, data, consumers + 8u);
    if (!error)
        error = rdb_encode_string(walk->encoder, key, length);
    if (!error)
        error = save_lengths(walk, group, 0, 3);
    if (!error)
        error = save_pending_list(walk, 2, word_at(group, 24), true);
    if (!error)
        error = save_size(walk, word_at(group, consumers));
    if (!error)
        error = rax_walk(walk, 2, word_at(group, consumers), save_consumer, NULL);
    if (!error && walk->family->group_nacked)
        error = save_nacked(walk, group);
    return error;
}

/* ---- producers ------------------------------------------------------------------- */

/* Those that have expired come first. One that is about to may have when the server is asked
 * what it would write. */
static int skip_expired(struct walk *walk, uint64_t deadline, frozen_address *at,
                        uint64_t *left)
{
    while (*at) {
        unsigned char entry[16];
        int error = frozen_read(walk, entry, *at, sizeof(entry));
        uint64_t sent = word_at(entry, 8);
        if (error || sent > deadline)
            return error                                                        ? error
                   : walk->reader->live && sent - deadline < KEYSPACE_SOON_MSEC ? -E2BIG
                                                                                : 0;
        if (!*left)
            return -EBADMSG;
        --*left;
        *at = word_at(entry, 0);
    }
    return 0;
}

/* `deadline`: what is not younger is left out, 0: nothing is. */
static int save_producer_entries(struct walk *walk, frozen_address first, uint64_t left,
                                 uint64_t deadline)
{
    int error = deadline ? skip_expired(walk, deadline, &first, &left) : 0;
    if (!error)
        error = rdb_encode_length(walk->encoder, left);
    for (frozen_address at = first; at && !error; left--) {
        unsigned char entry[32];
        if (!left)
            return -EBADMSG;
        error = frozen_read(walk, entry, at, sizeof(entry));
        if (!error)
            error = frozen_blob_save(walk, at + sizeof(entry), word_at(entry, 24));
        if (!error)
            error = save_lengths(walk, entry, 8, 2);
        at = word_at(entry, 0);
    }
    return error ? error : left ? -EBADMSG : 0;
}

static int save_producer(struct walk *walk, const unsigned char *key, size_t length,
                         frozen_address data, void *context)
{
    const uint64_t *deadline = context;
    frozen_address producer[2];
    struct frozen_table table = {0};
    int error = frozen_read(walk, producer, data, sizeof(producer));
    if (!error)
        error = table_read(walk, producer[0], &table);
    if (!error)
        error = rdb_encode_string(walk->encoder, key, length);
    return error
               ? error
               : save_producer_entries(walk, producer[1], table_size(&table), *deadline);
}

static int save_producers(struct walk *walk, frozen_address address)
{
    unsigned char bytes[40];
    int error =
        frozen_read(walk, bytes, address + walk->family->stream_producers, sizeof(bytes));
    frozen_address producers = error ? 0 : word_at(bytes, 16);
    uint64_t clock = walk->roots->expiry_clock;
    uint64_t deadline = clock && !error ? clock - 1000 * word_at(bytes, 0) : 0;
    if (!error)
        error = save_lengths(walk, bytes, 0, 2);
    if (!error)
        error =
            producers ? save_size(walk, producers) : rdb_encode_length(walk->encoder, 0);
    if (!error && producers)
        error = rax_walk(walk, 1, producers, save_producer, &deadline);
    return error ? error : save_lengths(walk, bytes, 24, 2);
}

/* ---- all of it ------------------------------------------------------------------- */

int stream_save(struct walk *walk, frozen_address address)
{
    const struct family *family = walk->family;
    unsigned char stream[STREAM_BYTES];
    walk->where = "a stream";
    walk->stream_parts = 0;
    size_t read = family->stream_numbers + 64u;
    if (read < family->stream_groups + 8u)
        read = family->stream_groups + 8u;
    if (read < family->stream_rax + 8u)
        read = family->stream_rax + 8u;
    int error = frozen_read(walk, stream, address, read);
    frozen_address rax = error ? 0 : word_at(stream, family->stream_rax);
    if (!error)
        error = save_size(walk, rax);
    if (!error)
        error = rax_walk(walk, 0, rax, save_listpack, NULL);
    if (!error)
        error = save_lengths(walk, stream, family->stream_numbers, 8);
    frozen_address groups = error ? 0 : word_at(stream, family->stream_groups);
    if (!error)
        error = groups ? save_size(walk, groups) : rdb_encode_length(walk->encoder, 0);
    if (!error && groups)
        error = rax_walk(walk, 1, groups, save_group, NULL);
    if (!error && family->stream_producers)
        error = save_producers(walk, address);
    return error;
}
