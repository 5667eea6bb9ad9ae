/* What all walkers share: the state of one walk, and how numbers and strings
 * are taken from the frozen memory. */
#ifndef RDB_UFFD_KEYSPACE_FROZEN_H
#define RDB_UFFD_KEYSPACE_FROZEN_H

#include <errno.h>
#include <string.h>

#include "keyspace/family.h"
#include "keyspace/keyspace.h"

struct rax_scratch;
struct worker_pool;

/* Walks of radix trees nest: stream, group, consumer, pending entries. */
#define RAX_LEVELS 4

struct walk {
    const struct keyspace_roots *roots;
    const struct family *family;
    struct view_reader *reader;
    struct rdb_encoder *encoder;
    struct keyspace_observer *observer;
    struct value_source *values; /* NULL: who walks is not to have any asked for */
    int database;                /* whose keys are walked */
    const char *where;           /* what is being read: a static string */
    uint64_t keys;
    uint64_t expiring;    /* of these keys */
    uint8_t stream_parts; /* that the last stream had: enum stream_part */
    struct batch *batch;  /* keyspace.c's; NULL until it is needed */
    size_t batch_bytes;
    struct worker_pool *pool; /* NULL: this thread walks alone */
    struct rax_scratch *rax[RAX_LEVELS];
    frozen_address stranger; /* the object with which the walk ends */
    uint64_t work;           /* what was read, and how often: frozen_read() */
};

/* Frees what was mapped for it; roots, reader and encoder are the owner's. */
void walk_release(struct walk *walk);

/* Of the CPUs that there are the shorter one. */
#define CACHE_LINE 64

/* The longest a value can be: what the server itself could have allocated. */
#define FROZEN_LENGTH_MAX (UINT64_C(1) << 40)

/* Every byte of a keyspace is read a few times at most, in pieces that are seldom smaller
 * than what the allocator gives. Where much more is read than there is, something is
 * linked to itself, or shared by what never shares: lists without end, and lists of such
 * lists, whose counts may say anything. The most that was seen of sound heaps is 1.7 times
 * their bytes (4.7 million keys of 64 bytes), 0.4 with every kind of value. */
#define READ_COST        16
#define READ_OVER        64
#define READ_WITH_LITTLE (UINT64_C(1) << 20)

static inline int frozen_read(struct walk *walk, void *to, frozen_address from,
                              size_t length)
{
    walk->work += length + READ_COST;
    const struct view *view = walk->reader->view;
    if (view && walk->work > view->bytes * READ_OVER + READ_WITH_LITTLE)
        return -EBADMSG;
    return view_read(walk->reader, to, from, length);
}

/* True if these bytes lie in one page: only then may more be read than is known
 * to belong to something. Next to a page of the heap there may be one that
 * nobody may touch, in the same mapping (a guard of a thread's stack). */
static inline bool frozen_is_in_page(frozen_address from, size_t length)
{
    return (from & PAGE_MASK) + length <= PAGE_BYTES;
}

static inline uint64_t word_at(const unsigned char *bytes, size_t offset)
{
    uint64_t word;
    memcpy(&word, bytes + offset, sizeof(word));
    return word;
}

static inline uint32_t half_at(const unsigned char *bytes, size_t offset)
{
    uint32_t half;
    memcpy(&half, bytes + offset, sizeof(half));
    return half;
}

/* An sds string. Its header lies right before its address:
 *
 *   type  header (before the address)        length
 *   0     flags                              flags >> 3
 *   1     len8   alloc8   flags
 *   2     len16  alloc16  flags
 *   3     len32  alloc32  flags
 *   4     len64  alloc64  flags
 *
 * Short strings are kept with their header. */
#define SDS_HEADER_MAX 17
#define SDS_WINDOW     64
#define SDS_INLINE     (SDS_WINDOW - SDS_HEADER_MAX)

struct frozen_string {
    frozen_address address;
    uint64_t length;
    unsigned char window[SDS_WINDOW]; /* the string starts at SDS_HEADER_MAX */
};

/* Reads the header alone. 0 or -errno. */
int frozen_string_length(struct walk *walk, frozen_address address, uint64_t *length);
/* Reads the header, and all bytes if they fit into the window. 0 or -errno. */
int frozen_string_read(struct walk *walk, frozen_address address,
                       struct frozen_string *string);
/* True if all its bytes are in the window. */
static inline bool frozen_string_is_inline(const struct frozen_string *string)
{
    return string->length <= SDS_INLINE;
}
/* Bytes of the header with these flags, 0: that is none. */
static inline size_t sds_header_bytes(unsigned char flags)
{
    static const uint8_t bytes[8] = {1, 3, 5, 9, 17};
    return bytes[flags & 7];
}
/* Of its header; and what stands above the type in its flags. */
static inline size_t frozen_string_header(const struct frozen_string *string)
{
    return sds_header_bytes(string->window[SDS_HEADER_MAX - 1]);
}
static inline unsigned frozen_string_flags(const struct frozen_string *string)
{
    unsigned flags = string->window[SDS_HEADER_MAX - 1];
    return flags & 7 ? flags >> 3 : 0; /* type 0: the length is there */
}
/* Writes it as a string of the dump. 0 or -errno. */
int frozen_string_save(struct walk *walk, const struct frozen_string *string);

/* Room in the encoder for `length` bytes that are then read from `from`, once it is certain
 * that they are there: what a length claims is not allocated. 0 or -errno. */
int frozen_room(struct walk *walk, frozen_address from, uint64_t length, void **room);
/* Reads and writes an sds in one go. */
int frozen_sds_save(struct walk *walk, frozen_address address);
/* Writes `length` bytes at `address` as a string of the dump. */
int frozen_blob_save(struct walk *walk, frozen_address address, uint64_t length);

#endif
