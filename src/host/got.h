/* Replacing a libc function for one loaded object: its slots in the global
 * offset table. ELF only; nothing here knows what is replaced or why.
 *
 *   server's code ──call──▶ PLT ──▶ [ GOT slot ] ──▶ libc's fork()
 *                                        └─ patched ─▶ our replacement
 *
 * Other objects (and our own code) keep calling the real function. Another module may
 * patch the same slot after us; then it is no longer ours to restore.
 * Thread: main thread only. A replaced slot is one aligned 8-byte store, so
 * other threads see the old or the new function, nothing in between.
 */
#ifndef RDB_UFFD_HOST_GOT_H
#define RDB_UFFD_HOST_GOT_H

#include <stddef.h>

/* Which loaded object's table to patch. */
struct got_object {
    unsigned long base;  /* load bias */
    const void *dynamic; /* its PT_DYNAMIC */
    const char *name;    /* for messages; valid while loaded */
};

/* The object that holds `address` (a function or variable). 0 or -ENOENT. */
int got_find_object(const void *address, struct got_object *object);
/* The main executable. 0 or -ENOENT. */
int got_find_executable(struct got_object *object);

#define GOT_SLOTS_MAX 4
/* One replaced function: enough to put everything back. */
struct got_patch {
    const char *symbol;
    void *replacement;
    void **slots[GOT_SLOTS_MAX];
    void *previous[GOT_SLOTS_MAX];
    size_t count;
};

/* Points every slot of `symbol` (JUMP_SLOT and GLOB_DAT) in `object` to
 * `replacement`. 0, -ENOENT when the object does not import the symbol, or
 * -errno from mprotect; nothing is changed on failure. */
int got_replace(const struct got_object *object, const char *symbol, void *replacement,
                struct got_patch *patch);
/* Whether the slots still have what was put there; or what was there before, which is as
 * good as restored. 0, or -EBUSY: somebody else has patched one of them since, and what
 * he calls in turn is our function, for all that is known. Then `reason` says who. */
int got_check(const struct got_patch *patches, size_t count, char *reason, size_t size);
/* Puts the previous values back, but for slots that somebody else has patched since.
 * 0 or -errno, and then the patch is empty; one that is, is a no-op. */
int got_restore(struct got_patch *patch);
/* For other pointers to functions that are treated the same way: the sentence that
 * got_check() makes, of who has put `function` in the place of `symbol`. */
void got_tell_change(const char *symbol, const void *function, char *reason, size_t size);

#endif
