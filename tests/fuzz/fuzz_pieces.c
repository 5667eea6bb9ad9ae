/* Pages in packed form, damaged: from the spool, and any bytes whose sum is right, which is
 * what a defect of ours would leave. They may be refused; nothing is read or written beside
 * what is there. And pages of our own packing, in a piece and in the buffer, that are damaged
 * afterwards: refused, or what they were.
 *
 * input   0 what is done · 1 length of the part that is there · 3 where the damage is, and
 *         what · 6 the bytes of a piece, or what pages are filled with */
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "bounds.h"
#include "memory/packing.c"
#include "memory/preserved.h"
#include "memory/preserved_internal.h"
#include "memory/spool.h"

#define HEAD  6
#define PAGE  7
#define PLACE 3
/* In the buffer. */
#define PAGES        3u
#define BUFFER_BYTES (4u << 20)

static struct preserved preserved;
static struct spool spool = {.file = -1};

/* LZ4 takes a match at a distance of 0, which no packer writes: it leaves there what was,
 * which may be what it has written beyond a match before, as far as there is room. */
static bool has_match_with_itself(const unsigned char *at, const unsigned char *end)
{
    while (at < end) {
        unsigned token = *at++, more = 255;
        size_t literals = token >> 4;
        while (literals >= 15 && more == 255 && at < end)
            literals += more = *at++;
        if ((size_t)(end - at) < literals + 2)
            return false;
        at += literals + 2;
        if (!at[-2] && !at[-1])
            return true;
        while ((token & 15) == 15 && at < end && *at++ == 255)
            ;
    }
    return false;
}

static bool is_defined(const struct piece *piece)
{
    return piece->header.form != PIECE_LZ4 ||
           !has_match_with_itself(piece->bytes, piece->bytes + piece->header.length);
}

/* Every part of the page has to be the same, however much of it is asked for. */
static void unpack(const struct piece *piece, size_t there, size_t wanted)
{
    unsigned char *whole = calloc(1, PAGE_BYTES), *part = calloc(1, PAGE_BYTES);
    int error = piece_unpack(piece, there, PAGE, whole, PAGE_BYTES);
    if (piece_unpack(piece, there, PAGE, part, wanted) == 0 && !error &&
        is_defined(piece) && memcmp(whole, part, wanted) != 0)
        abort();
    free(whole);
    free(part);
}

/* A piece of just the bytes that are there. */
static void unpack_given(const uint8_t *bytes, size_t length, bool right, size_t wanted)
{
    struct piece *piece = calloc(1, sizeof(*piece));
    memcpy(piece, bytes, length < sizeof(*piece) ? length : sizeof(*piece));
    if (right && length >= sizeof(piece->header)) {
        piece->header.page = PAGE;
        piece->header.length = (uint16_t)(length - sizeof(piece->header));
        if (piece->header.length <= PAGE_BYTES)
            piece->header.sum = sum_of(piece);
    }
    unpack(piece, length < sizeof(*piece) ? length : sizeof(*piece), wanted);
    free(piece);
}

static void unpack_spooled(const uint8_t *bytes, size_t length, size_t wanted)
{
    struct piece *piece = malloc(sizeof(*piece));
    unsigned char *part = malloc(PAGE_BYTES);
    int file = spool.file;
    if (ftruncate(file, 0) != 0 ||
        pwrite(file, bytes, length, (off_t)PLACE * SPOOL_UNIT) != (ssize_t)length)
        abort();
    for (uint32_t place = PLACE - 1; place <= PLACE + 1; place++) {
        long there = spool_read(&spool, place, piece);
        if (there >= 0)
            unpack(piece, (size_t)there, wanted);
        spool_read_raw(&spool, place, PAGE_BYTES - wanted, part, wanted);
    }
    free(part);
    free(piece);
}

/* ---- of our own packing ---------------------------------------------------------- */

struct damage {
    size_t at;
    uint8_t change;
};

static void fill(unsigned char page[PAGE_BYTES], const uint8_t *bytes, size_t length,
                 unsigned number)
{
    for (size_t i = 0; i < PAGE_BYTES; i++)
        page[i] = (unsigned char)((length ? bytes[i % length] : 0) + number);
}

/* Whose sum is made right again may be anything. */
static void damage_packed(const unsigned char *page, const struct damage *damage,
                          bool right, size_t wanted)
{
    struct piece *piece = malloc(sizeof(*piece));
    LZ4_stream_t work;
    unsigned char part[PAGE_BYTES];
    size_t bytes = piece_pack(piece, &work, PAGE, page);
    if (!bytes)
        bytes = piece_of_raw(piece, PAGE, page);
    ((unsigned char *)piece)[damage->at % bytes] ^= damage->change;
    if (right && piece->header.length <= PAGE_BYTES)
        piece->header.sum = sum_of(piece);
    if (right)
        unpack(piece, bytes, wanted);
    else if (piece_unpack(piece, bytes, PAGE, part, wanted) == 0 &&
             memcmp(part, page, wanted) != 0)
        abort();
    free(piece);
}

static void damage_file(const struct damage *damage)
{
    int file = atomic_load(&preserved.spool.file);
    off_t at = (off_t)(damage->at % (PAGES * RAW_PIECE_ROOM));
    unsigned char byte = 0;
    if (pread(file, &byte, 1, at) == 1)
        byte ^= damage->change;
    if (pwrite(file, &byte, 1, at) != 1)
        abort();
}

static void check_buffer(const uint8_t *bytes, size_t length, bool damaged, size_t wanted)
{
    unsigned char page[PAGE_BYTES], *part = malloc(wanted);
    for (unsigned i = 0; i < PAGES; i++) {
        size_t offset = PAGE_BYTES - wanted;
        int error = preserved_read(&preserved, i, offset, part, wanted);
        fill(page, bytes, length, i);
        if (error ? !damaged : memcmp(part, page + offset, wanted) != 0)
            abort();
    }
    free(part);
}

/* Some pages raw, some packed, some in the spool: as many moves as are asked for. */
static void use_buffer(const uint8_t *bytes, size_t length, const struct damage *damage,
                       const uint8_t *how, size_t wanted)
{
    struct preserved_settings settings = {.limit = BUFFER_BYTES,
                                          .policy = BUFFER_SPOOL,
                                          .compress = how[2] & 128,
                                          .spool_directory = ""};
    unsigned char page[PAGE_BYTES];
    if (preserved_begin(&preserved, 1, &settings) != 0)
        exit(1);
    for (unsigned i = 0; i < PAGES; i++) {
        fill(page, bytes, length, i);
        if (preserved_put(&preserved, i, page) != 0)
            abort();
    }
    for (unsigned i = how[0] / 5 % (PAGES + 1); i > 0; i--)
        moving_pack_one(&preserved);
    for (unsigned i = how[0] / 20 % (PAGES + 1); i > 0; i--)
        moving_spool_one(&preserved);
    if (damage->change)
        damage_file(damage);
    check_buffer(bytes, length, damage->change, wanted);
    preserved_end(&preserved);
}

/* ---- one input ------------------------------------------------------------------- */

static void set_up(void)
{
    mapping_most = SIZE_MAX;
    if (spool_open(&spool, "") != 0 || preserved_create(&preserved) != 0)
        exit(1);
    /* Its thread would be seen in what an input covers, now and then. */
    spool_destroy(&preserved.spool);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    set_up();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    if (length < HEAD || length > HEAD + sizeof(struct piece) + 64)
        return -1;
    size_t wanted = 1 + (size_t)(input[1] | input[2] << 8) % PAGE_BYTES;
    struct damage damage = {(size_t)(input[3] | input[4] << 8), input[5]};
    const uint8_t *bytes = input + HEAD;
    unsigned char page[PAGE_BYTES];
    length -= HEAD;
    fill(page, bytes, length, 0);
    switch (input[0] % 5) {
    case 0:
    case 1:
        unpack_given(bytes, length, input[0] % 5, wanted);
        break;
    case 2:
        unpack_spooled(bytes, length, wanted);
        break;
    case 3:
        damage_packed(page, &damage, input[0] & 128, wanted);
        break;
    default:
        use_buffer(bytes, length, &damage, input, wanted);
    }
    return 0;
}
