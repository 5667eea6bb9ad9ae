/* Pages in which nothing has changed but the times at which values were accessed.
 *
 * At each access, reads too, the server notes the time in the value's header; while a child
 * saves it does not (nor does it with ours). Who counts written pages between saves would
 * count those of every value that is read. So some of the pages are looked at twice, and
 * what differs in nothing but such notes is no page that a save would have to keep:
 *
 *   word of 8 bytes, on x86 and ARM       ┌──────┬────────────┬─────────────┐
 *   header of a value (robj)              │type, │ time of the│ references, │
 *                                         │enc.  │ last access│ …           │
 *                                         └─byte0┴─bytes 1…3──┴─bytes 4…7───┘
 *
 * A sum of each page leaves these three bytes out of every word. A word that changes in
 * them alone, and is something else, is missed: of pointers one in sixteen. */
#ifndef RDB_UFFD_MEMORY_ACCESS_TIMES_H
#define RDB_UFFD_MEMORY_ACCESS_TIMES_H

#include <stdint.h>

struct access_times;

/* For about `pages` pages, of which a few thousand are looked at. NULL: no memory. */
struct access_times *access_times_create(uint64_t pages);
void access_times_destroy(struct access_times *times);
/* Looks at the pages of [start, end) as they are now; ranges in rising order. Reads memory
 * that others write to or unmap: 2 us a page. One thread, as below. */
void access_times_note(struct access_times *times, uint64_t start, uint64_t end);
/* The same pages later: how many of those that were written to had been noted, and how
 * many of them have other content now. */
struct access_times_count {
    uint64_t noted;
    uint64_t changed;
};
void access_times_count_page(struct access_times *times, uint64_t page,
                             struct access_times_count *count);

#endif
