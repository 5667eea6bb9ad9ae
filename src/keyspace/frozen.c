#include "keyspace/frozen.h"

#include "kernel/memory.h"
#include "keyspace/rax.h"

#define SDS_TYPE_MASK    7
#define SDS_TYPE_5_SHIFT 3
#define SHORT_HEADER     3

void walk_release(struct walk *walk)
{
    rax_free_scratch(walk);
    if (walk->batch)
        memory_unmap(walk->batch, walk->batch_bytes);
    walk->batch = NULL;
}

/* The length that the header at the end of `header` (17 bytes) tells. */
static int header_length(const unsigned char *header, uint64_t *length)
{
    const unsigned char *end = header + SDS_HEADER_MAX;
    switch (end[-1] & SDS_TYPE_MASK) {
    case 0:
        *length = end[-1] >> SDS_TYPE_5_SHIFT;
        return 0;
    case 1:
        *length = end[-3];
        return 0;
    case 2:
        *length = (uint64_t)end[-5] | (uint64_t)end[-4] << 8;
        return 0;
    case 3:
        *length = half_at(end - 9, 0);
        return 0;
    case 4:
        *length = word_at(end - 17, 0);
        return *length <= FROZEN_LENGTH_MAX ? 0 : -EBADMSG;
    default:
        return -EBADMSG;
    }
}

/* Nearly all headers are of at most SHORT_HEADER bytes. */
static int read_header(struct walk *walk, frozen_address address, unsigned char *header,
                       uint64_t *length)
{
    unsigned char *end = header + SDS_HEADER_MAX;
    size_t have =
        frozen_is_in_page(address - SHORT_HEADER, SHORT_HEADER) ? SHORT_HEADER : 1;
    int error = frozen_read(walk, end - have, address - have, have);
    if (error)
        return error;
    size_t bytes = sds_header_bytes(end[-1]);
    if (bytes > have)
        error = frozen_read(walk, end - bytes, address - bytes, bytes);
    return error ? error : header_length(header, length);
}

int frozen_string_length(struct walk *walk, frozen_address address, uint64_t *length)
{
    unsigned char header[SDS_WINDOW];
    return read_header(walk, address, header, length);
}

/* From memory no more than what belongs to the string: its neighbours' bytes would be a
 * cache miss that nobody has asked for ahead. Where a read costs more than that, one takes
 * the largest header and the first bytes together. */
int frozen_string_read(struct walk *walk, frozen_address address,
                       struct frozen_string *string)
{
    string->address = address;
    if (!view_is_memory(walk->reader, address) &&
        frozen_is_in_page(address - SDS_HEADER_MAX, SDS_WINDOW)) {
        int error =
            frozen_read(walk, string->window, address - SDS_HEADER_MAX, SDS_WINDOW);
        return error ? error : header_length(string->window, &string->length);
    }
    int error = read_header(walk, address, string->window, &string->length);
    if (!error && frozen_string_is_inline(string))
        error =
            frozen_read(walk, string->window + SDS_HEADER_MAX, address, string->length);
    return error;
}

int frozen_string_save(struct walk *walk, const struct frozen_string *string)
{
    if (frozen_string_is_inline(string))
        return rdb_encode_string(walk->encoder, string->window + SDS_HEADER_MAX,
                                 string->length);
    return frozen_blob_save(walk, string->address, string->length);
}

int frozen_sds_save(struct walk *walk, frozen_address address)
{
    struct frozen_string string;
    int error = frozen_string_read(walk, address, &string);
    return error ? error : frozen_string_save(walk, &string);
}

int frozen_room(struct walk *walk, frozen_address from, uint64_t length, void **room)
{
    if (length > FROZEN_LENGTH_MAX)
        return -EBADMSG;
    int error = length ? view_check(walk->reader, from, length) : 0;
    if (error)
        return error;
    *room = rdb_encoder_room(walk->encoder, length);
    return *room ? 0 : rdb_encoder_error(walk->encoder);
}

int frozen_blob_save(struct walk *walk, frozen_address address, uint64_t length)
{
    void *room;
    int error = frozen_room(walk, address, length, &room);
    if (!error)
        error = frozen_read(walk, room, address, length);
    return error ? error : rdb_encode_string(walk->encoder, room, length);
}
