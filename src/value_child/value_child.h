/* Values that only their module can write, and what modules write before and after the keys
 * ("aux data"), saved by the module's own callbacks in a child without a heap.
 *
 * What makes fork() slow is copying the page tables of the heap. This child is made without
 * it; what it touches of the heap it gets from the frozen view, page by page (pager.h):
 *
 *   main thread, in the freeze       child                        saver, pager
 *   MADV_DONTFORK on the heap
 *   fork()  ───────────────────────▶ first touch of the heap:
 *   MADV_DOFORK                      maps it anew, watched  ────▶ pager has its userfaultfd
 *                                    wants a page           ────▶ reads the view, gives it
 *                                    ◀──────────────────────────  saver asks for values
 *                                    their bytes            ────▶ encoder
 *
 * It is made before the heap is protected: the allocator's preparations for a fork would
 * fault. The main thread does nothing else in between, so what the child inherits is as old
 * as the frozen heap. Its allocator works in the arena that the freeze has switched to; what
 * it frees of the past stays, since another thread may have been in the midst of those
 * arenas.
 *
 * Whatever goes wrong in it or with it fails the save, and nothing else. */
#ifndef RDB_UFFD_VALUE_CHILD_VALUE_CHILD_H
#define RDB_UFFD_VALUE_CHILD_VALUE_CHILD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "host/module_values.h"
#include "host/server_capture.h"
#include "keyspace/value_source.h"
#include "memory/regions.h"
#include "value_child/pager.h"

struct inside;

struct value_child {
    struct value_source source; /* the saver's, between begin and end */
    struct inside *inside;      /* NULL: not prepared */
    struct region_set ranges;
    struct region *storage;
    bool compress; /* strings, in the next one: whoever forks it says so */
    pid_t pid;     /* 0: there is none */
    int process;   /* pidfd */
    int stream, handover;
    struct pager pager;
    uint64_t types[MODULE_TYPES_MAX]; /* of modules, at the freeze */
    size_t type_count;                /* 0: not known */
    uint64_t asked, taken;            /* in this save */
    uint64_t heard_usec;              /* of a byte or a page */
    uint64_t pages_heard;
    /* Of the save under way or the last. */
    _Atomic uint64_t values;
    _Atomic uint64_t fork_usec; /* what it added to the pause */
    _Atomic uint64_t wait_usec; /* of the saver, for its bytes */
};

/* The counts of the last save. */
void value_child_forget(struct value_child *child);
/* Makes what a fork needs. 0 or -errno: a child cannot be had. Main thread, before the
 * freeze. */
int value_child_prepare(struct value_child *child);
/* The fork. `heap`: what will be protected; `unused`: memory that nobody has used yet, which
 * the child does without; `memory`: bytes that the child may hold, of pages that it is
 * given, and as many again of its own, but at least a gigabyte. 0 or -errno. Main thread,
 * in the freeze, after the allocator was steered. Does not return in the child. */
int value_child_fork(struct value_child *child, const struct region_set *heap,
                     struct region unused, uint64_t memory, uint32_t writer_cpu);
/* Begins to serve it. 0 or -errno. Saver. */
int value_child_begin(struct value_child *child, struct view *view);
/* Writes what modules write at this place of the dump to the encoder, when every value that
 * was asked for has been taken. 0 or -errno. Saver. */
int value_child_save_aux(struct value_child *child, enum aux_place place,
                         struct rdb_encoder *encoder);
/* Ends and reaps it, if there is one. Saver; or main thread, when the freeze has failed. */
void value_child_end(struct value_child *child);
/* Of the pages that it has been given, and has not dropped. Any thread. */
uint64_t value_child_bytes(const struct value_child *child);
bool value_child_exists(const struct value_child *child);
void value_child_init(struct value_child *child);
void value_child_release(struct value_child *child);

#endif
