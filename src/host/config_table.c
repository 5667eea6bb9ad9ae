#include "host/config_table.h"

#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "kernel/contract.h"
#include "kernel/symbols.h"

#define WANTED_MAX   32
#define SEGMENTS_MAX 16
/* Words of an entry that are looked at: it has some 30. */
#define ENTRY_WORDS 24

struct segment {
    uintptr_t start;
    uintptr_t end;
    bool writable;
};

/* What the executable has in memory. */
struct image {
    struct segment segments[SEGMENTS_MAX];
    size_t count;
};

struct table {
    const uintptr_t *words;
    size_t count;
};

static int take_segments(struct dl_phdr_info *info, size_t size, void *context)
{
    struct image *image = context;
    (void)size;
    for (int i = 0; i < info->dlpi_phnum && image->count < SEGMENTS_MAX; i++) {
        const ElfW(Phdr) *header = &info->dlpi_phdr[i];
        if (header->p_type != PT_LOAD)
            continue;
        uintptr_t start = info->dlpi_addr + header->p_vaddr;
        image->segments[image->count++] = (struct segment){start, start + header->p_memsz,
                                                           (header->p_flags & PF_W) != 0};
    }
    return 1; /* the executable comes first */
}

static const struct segment *segment_of(const struct image *image, uintptr_t address)
{
    for (size_t i = 0; i < image->count; i++)
        if (address >= image->segments[i].start && address < image->segments[i].end)
            return &image->segments[i];
    return NULL;
}

/* Who knows what is there instead of a name: between variables too, where a sanitizer lets
 * nobody read, and libc's functions ask it. */
__attribute__((no_sanitize("address"))) static bool
is_text(const struct image *image, uintptr_t address, const char *text)
{
    const struct segment *segment = segment_of(image, address);
    size_t length = strlen(text) + 1, same = 0;
    if (!segment || length > segment->end - address)
        return false;
    const char *there = (const char *)address;
    while (same < length && there[same] == text[same])
        same++;
    return same == length;
}

static bool is_variable(const struct image *image, uintptr_t address)
{
    const struct segment *segment = segment_of(image, address);
    return segment && segment->writable && address % sizeof(int) == 0;
}

/* The index of the word that points to this name; false when there is none. */
static bool find_name(const struct table *table, const struct image *image,
                      const char *name, size_t *index)
{
    for (*index = 0; *index + ENTRY_WORDS <= table->count; (*index)++)
        if (is_text(image, table->words[*index], name))
            return true;
    return false;
}

/* How far behind its name an entry points to the variable; 0: not as it should be. */
static size_t find_distance(const struct table *table, const struct image *image,
                            const size_t *names, size_t count)
{
    for (size_t distance = 1; distance < ENTRY_WORDS; distance++) {
        size_t fits = 0;
        while (fits < count && is_variable(image, table->words[names[fits] + distance]))
            fits++;
        if (fits == count)
            return distance;
    }
    return 0;
}

const char *config_table_find(const struct config_variable *wanted, size_t count)
{
    DEMAND_MAIN_THREAD();
    struct image image = {.count = 0};
    struct table table = {.words = symbol_find("static_configs")};
    size_t names[WANTED_MAX];
    if (!table.words)
        return "it does not export its table of settings";
    table.count = symbol_bytes(table.words) / sizeof(*table.words);
    dl_iterate_phdr(take_segments, &image);
    if (count > WANTED_MAX)
        return "too many settings are asked for";
    for (size_t i = 0; i < count; i++)
        if (!find_name(&table, &image, wanted[i].name, &names[i]))
            return "a setting is not in its table of settings";
    size_t distance = find_distance(&table, &image, names, count);
    if (!distance)
        return "its table of settings has another form";
    for (size_t i = 0; i < count; i++)
        memcpy(wanted[i].where, &table.words[names[i] + distance], sizeof(uintptr_t));
    return NULL;
}
