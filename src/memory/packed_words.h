/* Pages of pointers, packed so that any part can be had without the rest.
 *
 * The entries of a hash table lie 128 and more to a page, and each is read alone, at random:
 * from LZ4 that takes what unpacking half a page takes, every time. But what they hold is
 * pointers, whose upper bytes are all the same, and zeros. A page is 512 words of 8 bytes,
 * and a word is one of
 *
 *   class  the word                     what is kept of it
 *   0      0                            nothing
 *   1, 2   begins with head 0 or 1      its 4 or 5 low bytes, the same in all of a page
 *   3      anything else                8 bytes
 *
 *   ┌──────────┬───────────────────┬────────────────────┬──────────────────────────────┐
 *   │ heads[2] │ low bits, 1 a word│ high bits of class │ what is kept, word after word│
 *   └──────────┴───────────────────┴────────────────────┴──────────────────────────────┘
 *
 * Where a word begins follows from the classes of those before it, which are counted 64 at a
 * time. Bytes lie in memory as in words: little endian. Arithmetic only; any thread.
 */
#ifndef RDB_UFFD_MEMORY_PACKED_WORDS_H
#define RDB_UFFD_MEMORY_PACKED_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/pages.h"

#define WORDS_PER_PAGE (PAGE_BYTES / sizeof(uint64_t))
#define WORD_LOW_BYTES 4u /* or one more */

struct word_classes {
    uint64_t heads[2]; /* with the low bytes 0 */
    uint64_t low_bits[WORDS_PER_PAGE / 64];
    uint64_t high_bits[WORDS_PER_PAGE / 64];
};

/* Where the bytes of a part of the page are, among those that are kept. */
struct word_span {
    size_t start;
    size_t bytes; /* at most PAGE_BYTES */
};

/* Packs a page into `classes` and at most `room` bytes at `kept`. Returns how many of those
 * it took and through `low_bytes` what is kept of a word of class 1 or 2, or
 * `room` + 1: it does not fit. */
size_t words_pack(struct word_classes *classes, unsigned char *kept, size_t room,
                  unsigned *low_bytes, const void *page);
/* Of `length` bytes, at least one, from `offset` on. Any classes give some span. */
struct word_span words_span(const struct word_classes *classes, unsigned low_bytes,
                            size_t offset, size_t length);
/* Unpacks that part from the bytes of its span. `low_bytes`: at most 8. */
void words_unpack(const struct word_classes *classes, unsigned low_bytes,
                  const unsigned char *span, size_t offset, size_t length, void *to);

#endif
