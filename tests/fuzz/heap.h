/* How an input of fuzz_keyspace lies in memory, for the program and for what records inputs:
 *
 *   0 family · 1 switches · 2 what stands at HEAP, the databases first, 0 to its end */
#ifndef FUZZ_HEAP_H
#define FUZZ_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include "view/view.h"

/* Low, so that an address is a word with few bytes. */
#define HEAP               UINT64_C(0x20000)
#define HEAP_BYTES         UINT64_C(0x8000)
#define HEAP_HEAD          2
#define HEAP_EXPIRING_TYPE (HEAP + 64)

/* The switches. Every key has the same hash, that of the last bits. */
#define HEAP_TWO_DATABASES 1
#define HEAP_CLUSTER       2
#define HEAP_IDLE_TIME     4
#define HEAP_FREQUENCY     8
#define HEAP_LOOK          16
#define HEAP_HASH_SHIFT    5

/* Both look at what a walk reads: the linker puts their own in the place of view_read(). */
int __real_view_read(struct view_reader *reader, void *to, frozen_address from,
                     size_t length);
int __wrap_view_read(struct view_reader *reader, void *to, frozen_address from,
                     size_t length);

#endif
