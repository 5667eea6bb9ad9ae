/* Two encodings of values, of which one claims to be compressed: any bytes.
 *
 * input   0 length of the first · 2 both */
#include <string.h>

#include "bounds.h"
#include "rdb/comparison.h"

#define HEAD 2

unsigned int lzf_decompress(const void *in, unsigned int in_length, void *out,
                            unsigned int out_length);

static size_t decompress(const void *in, size_t in_length, void *out, size_t out_length)
{
    return lzf_decompress(in, (unsigned)in_length, out, (unsigned)out_length);
}

static unsigned char *copy(const uint8_t *bytes, size_t length)
{
    unsigned char *copied = malloc(length);
    memcpy(copied, bytes, length);
    return copied;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    if (length < HEAD)
        return -1;
    size_t rest = length - HEAD, first = (size_t)(input[0] | input[1] << 8) % (rest + 1);
    unsigned char *plain = copy(input + HEAD, first);
    unsigned char *other = copy(input + HEAD + first, rest - first);
    unsigned char *scratch = malloc(first);
    rdb_is_same_value(plain, first, other, rest - first, decompress, scratch);
    /* What is the same byte for byte is the same value. */
    if (!rdb_is_same_value(plain, first, plain, first, decompress, scratch))
        abort();
    free(plain);
    free(other);
    free(scratch);
    return 0;
}
