/* Pages in packed form, damaged: from the spool, and any bytes whose sum is right, which is
 * what a defect of ours would leave. They may be refused; nothing is read or written beside
 * what is there.
 *
 * input   0 what is done · 1 length of the part that is there · 3 the bytes of a piece */
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

#include "bounds.h"
#include "memory/packing.c"
#include "memory/spool.h"

#define HEAD  5
#define PAGE  7
#define PLACE 3

static struct dictionary dictionary;
static struct spool spool = {.file = -1};

/* Every part of the page has to be the same, however much of it is asked for. Zeros first:
 * LZ4 takes a match at a distance of 0, which no packer writes, and leaves there what was. */
static void unpack(const struct piece *piece, size_t there, size_t wanted)
{
    unsigned char *whole = calloc(1, PAGE_BYTES), *part = calloc(1, PAGE_BYTES);
    int error = piece_unpack(piece, there, &dictionary, PAGE, whole, PAGE_BYTES);
    if (piece_unpack(piece, there, &dictionary, PAGE, part, wanted) == 0 && !error &&
        memcmp(whole, part, wanted) != 0)
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
        piece->header.length = (uint32_t)(length - sizeof(piece->header));
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

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    if (!dictionary.length) {
        unsigned char page[PAGE_BYTES];
        for (size_t i = 0; i < sizeof(page); i++)
            page[i] = "name:value,"[i % 11];
        for (unsigned i = 0; i < DICTIONARY_SAMPLES; i++)
            dictionary_sample(&dictionary, page);
        dictionary_prepare(&dictionary);
        if (spool_open(&spool, "") != 0)
            exit(1);
    }
    if (length < HEAD || length > HEAD + sizeof(struct piece) + 64)
        return -1;
    size_t wanted = 1 + (size_t)(input[1] | input[2] << 8) % PAGE_BYTES;
    if (input[0] % 3 == 2)
        unpack_spooled(input + HEAD, length - HEAD, wanted);
    else
        unpack_given(input + HEAD, length - HEAD, input[0] % 3, wanted);
    return 0;
}
