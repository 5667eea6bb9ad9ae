/* Words in the writable memory of a loaded object: its variables. */
#ifndef RDB_UFFD_KERNEL_IMAGE_H
#define RDB_UFFD_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

/* Called for each; false: enough. */
typedef bool (*image_found)(uintptr_t *word, void *context);

/* Looks for words that are `value`, at addresses as pointers have them, in the variables of
 * the object that holds `inside`; what is read-only once the object is loaded is none. Main
 * thread: others may be changing these variables, and a word is read as a whole. */
void image_find(const void *inside, uintptr_t value, image_found found, void *context);
/* Whether the object that holds `inside` refers to `variable`, as one does that is linked
 * with it. Main thread. */
bool image_refers(const void *inside, const void *variable);
/* Whether one object holds both addresses. */
bool image_is_same(const void *one, const void *other);

#endif
