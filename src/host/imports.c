#include "host/imports.h"

#include <errno.h>

#define OPCODE_IMPORT  243
#define NUMBER_6_BITS  0 /* the upper two bits of a number's first byte */
#define NUMBER_14_BITS 1
#define STRING_LZF     0xC3

/* What is left to be read; `error` stands from the first one on. */
struct reading {
    const unsigned char *bytes;
    size_t left;
    int error;
};

static unsigned next_byte(struct reading *reading)
{
    if (!reading->left) {
        reading->error = -EBADMSG;
        return 0;
    }
    reading->left--;
    return *reading->bytes++;
}

/* No number here is larger than there are slots. */
static unsigned next_number(struct reading *reading)
{
    unsigned first = next_byte(reading);
    if (first >> 6 == NUMBER_6_BITS)
        return first;
    if (first >> 6 == NUMBER_14_BITS)
        return (first & 63) << 8 | next_byte(reading);
    reading->error = -EBADMSG;
    return 0;
}

static void skip_string(struct reading *reading)
{
    size_t length;
    if (reading->left && *reading->bytes == STRING_LZF) {
        next_byte(reading);
        length = next_number(reading);
        next_number(reading);
    } else {
        length = next_number(reading);
    }
    if (length > reading->left) {
        reading->error = -EBADMSG;
        return;
    }
    reading->bytes += length;
    reading->left -= length;
}

static void mark_range(struct reading *reading, bool imported[KEYSPACE_SLOTS])
{
    unsigned first = next_number(reading), last = next_number(reading);
    for (unsigned slot = first; slot <= last && !reading->error; slot++)
        imported[slot] = true;
}

int imports_parse(const unsigned char *bytes, size_t length,
                  bool imported[KEYSPACE_SLOTS])
{
    struct reading reading = {.bytes = bytes, .left = length};
    while (reading.left && !reading.error) {
        if (next_byte(&reading) != OPCODE_IMPORT)
            return -EBADMSG;
        skip_string(&reading);
        for (unsigned ranges = next_number(&reading); ranges && !reading.error; ranges--)
            mark_range(&reading, imported);
    }
    return reading.error;
}
