/* Whether two encodings are of the same value. */
#ifndef RDB_UFFD_RDB_COMPARISON_H
#define RDB_UFFD_RDB_COMPARISON_H

#include <stdbool.h>
#include <stddef.h>

/* The server's own lzf_decompress(): returns the decompressed length, 0 when it fails
 * or does not fit. */
typedef size_t (*rdb_decompress_function)(const void *in, size_t in_length, void *out,
                                          size_t out_length);

/* `plain` was written without compression, `other` perhaps with it: what LZF makes of a
 * string is not the same every time (compression.h), so strings are compared as they
 * were before. `scratch` has room for `plain_length` bytes. */
bool rdb_is_same_value(const unsigned char *plain, size_t plain_length,
                       const unsigned char *other, size_t other_length,
                       rdb_decompress_function decompress, unsigned char *scratch);

#endif
