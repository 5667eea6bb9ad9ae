#include "kernel/image.h"

#include <dlfcn.h>
#include <link.h>

struct search {
    uintptr_t inside, value;
    bool read_only; /* there, too */
    image_found found;
    void *context;
};

struct range {
    uintptr_t start, end;
};

static struct range range_of(const struct dl_phdr_info *image, const ElfW(Phdr) * header)
{
    uintptr_t start = image->dlpi_addr + header->p_vaddr;
    return (struct range){start, start + header->p_memsz};
}

static bool holds(const struct dl_phdr_info *image, uintptr_t address)
{
    for (size_t i = 0; i < image->dlpi_phnum; i++) {
        struct range range = range_of(image, &image->dlpi_phdr[i]);
        if (image->dlpi_phdr[i].p_type == PT_LOAD && address >= range.start &&
            address < range.end)
            return true;
    }
    return false;
}

static struct range read_only_part(const struct dl_phdr_info *image)
{
    for (size_t i = 0; i < image->dlpi_phnum; i++)
        if (image->dlpi_phdr[i].p_type == PT_GNU_RELRO)
            return range_of(image, &image->dlpi_phdr[i]);
    return (struct range){0, 0};
}

/* Words may also lie between variables: a sanitizer lets nothing be read there. */
__attribute__((no_sanitize("address"))) static bool
search_range(const struct search *search, struct range range, struct range read_only)
{
    uintptr_t at = (range.start + sizeof(at) - 1) & ~(sizeof(at) - 1);
    for (; at + sizeof(at) <= range.end; at += sizeof(at)) {
        uintptr_t *word = (uintptr_t *)at;
        if (at >= read_only.start && at < read_only.end)
            continue;
        if (__atomic_load_n(word, __ATOMIC_RELAXED) == search->value &&
            !search->found(word, search->context))
            return false;
    }
    return true;
}

static int search_image(struct dl_phdr_info *image, size_t size, void *context)
{
    (void)size;
    const struct search *search = context;
    if (!holds(image, search->inside))
        return 0;
    struct range read_only =
        search->read_only ? (struct range){0, 0} : read_only_part(image);
    for (size_t i = 0; i < image->dlpi_phnum; i++) {
        const ElfW(Phdr) *header = &image->dlpi_phdr[i];
        if (header->p_type == PT_LOAD && header->p_flags & PF_W &&
            !search_range(search, range_of(image, header), read_only))
            break;
    }
    return 1;
}

void image_find(const void *inside, uintptr_t value, image_found found, void *context)
{
    struct search search = {(uintptr_t)inside, value, false, found, context};
    dl_iterate_phdr(search_image, &search);
}

static bool find_one(uintptr_t *word, void *context)
{
    (void)word;
    *(bool *)context = true;
    return false;
}

bool image_refers(const void *inside, const void *variable)
{
    bool refers = false;
    struct search search = {(uintptr_t)inside, (uintptr_t)variable, true, find_one,
                            &refers};
    dl_iterate_phdr(search_image, &search);
    return refers;
}

bool image_is_same(const void *one, const void *other)
{
    Dl_info first, second;
    return dladdr(one, &first) && dladdr(other, &second) &&
           first.dli_fbase == second.dli_fbase;
}
