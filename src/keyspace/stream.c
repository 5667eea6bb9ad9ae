/* Streams.
 *
 *  stream    0 rax · 8 length · 16 last id · 32 first id · 48 highest deleted id
 *            · 64 entries added · 72 groups (rax, or 0)
 *  group     0 last id · 16 entries read · 24 pending (rax) · 32 consumers (rax)
 *  consumer  0 seen (ms) · 8 name · 16 pending (rax)
 *  pending   0 delivered (ms) · 8 times delivered
 *  An id is two u64: milliseconds and sequence.
 */
#include "keyspace/rax.h"
#include "keyspace/values.h"

#define ID_BYTES 16

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
    unsigned char consumer[24];
    int error = frozen_read(walk, consumer, data, sizeof(consumer));
    if (!error)
        error = rdb_encode_string(walk->encoder, key, length);
    if (!error)
        error = rdb_encode_milliseconds(walk->encoder, (int64_t)word_at(consumer, 0));
    if (!error)
        error = save_pending_list(walk, 3, word_at(consumer, 16), false);
    return error;
}

static int save_group(struct walk *walk, const unsigned char *key, size_t length,
                      frozen_address data, void *context)
{
    (void)context;
    unsigned char group[40];
    int error = frozen_read(walk, group, data, sizeof(group));
    if (!error)
        error = rdb_encode_string(walk->encoder, key, length);
    if (!error)
        error = save_lengths(walk, group, 0, 3);
    if (!error)
        error = save_pending_list(walk, 2, word_at(group, 24), true);
    if (!error)
        error = save_size(walk, word_at(group, 32));
    if (!error)
        error = rax_walk(walk, 2, word_at(group, 32), save_consumer, NULL);
    return error;
}

int stream_save(struct walk *walk, frozen_address address)
{
    unsigned char stream[80];
    walk->where = "a stream";
    int error = frozen_read(walk, stream, address, sizeof(stream));
    if (!error)
        error = save_size(walk, word_at(stream, 0));
    if (!error)
        error = rax_walk(walk, 0, word_at(stream, 0), save_listpack, NULL);
    if (!error)
        error = save_lengths(walk, stream, 8, 8);
    frozen_address groups = error ? 0 : word_at(stream, 72);
    if (!error)
        error = groups ? save_size(walk, groups) : rdb_encode_length(walk->encoder, 0);
    if (!error && groups)
        error = rax_walk(walk, 1, groups, save_group, NULL);
    return error;
}
