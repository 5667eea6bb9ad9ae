#include "host/got.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/contract.h"

#if defined(__x86_64__)
#define RELOCATION_JUMP_SLOT R_X86_64_JUMP_SLOT
#define RELOCATION_GLOB_DAT  R_X86_64_GLOB_DAT
#elif defined(__aarch64__)
#define RELOCATION_JUMP_SLOT R_AARCH64_JUMP_SLOT
#define RELOCATION_GLOB_DAT  R_AARCH64_GLOB_DAT
#else
#error "no relocation types known for this architecture"
#endif

/* ---- finding objects ------------------------------------------------------------- */

static int describe(const struct link_map *map, struct got_object *object)
{
    *object = (struct got_object){map->l_addr, map->l_ld, map->l_name};
    return 0;
}

int got_find_object(const void *address, struct got_object *object)
{
    Dl_info info;
    struct link_map *map;
    return dladdr1(address, &info, (void **)&map, RTLD_DL_LINKMAP) ? describe(map, object)
                                                                   : -ENOENT;
}

int got_find_executable(struct got_object *object)
{
    struct link_map *map;
    void *executable = dlopen(NULL, RTLD_LAZY);
    return executable && dlinfo(executable, RTLD_DI_LINKMAP, &map) == 0
               ? describe(map, object)
               : -ENOENT;
}

/* ---- its tables ------------------------------------------------------------------ */

struct tables {
    const ElfW(Sym) * symbols;
    const char *strings;
    const ElfW(Rela) * plt;
    size_t plt_count;
    const ElfW(Rela) * data;
    size_t data_count;
};

static void read_tables(const struct got_object *object, struct tables *tables)
{
    memset(tables, 0, sizeof(*tables));
    for (const ElfW(Dyn) *entry = object->dynamic; entry->d_tag != DT_NULL; entry++) {
        /* glibc has already added the load bias to these pointers. */
        switch (entry->d_tag) {
        case DT_SYMTAB:
            tables->symbols = (const void *)entry->d_un.d_ptr;
            break;
        case DT_STRTAB:
            tables->strings = (const void *)entry->d_un.d_ptr;
            break;
        case DT_JMPREL:
            tables->plt = (const void *)entry->d_un.d_ptr;
            break;
        case DT_PLTRELSZ:
            tables->plt_count = entry->d_un.d_val / sizeof(ElfW(Rela));
            break;
        case DT_RELA:
            tables->data = (const void *)entry->d_un.d_ptr;
            break;
        case DT_RELASZ:
            tables->data_count = entry->d_un.d_val / sizeof(ElfW(Rela));
            break;
        default:
            break;
        }
    }
}

static int collect(const struct got_object *object, const struct tables *tables,
                   const ElfW(Rela) * relocations, size_t count, const char *symbol,
                   struct got_patch *patch)
{
    for (size_t i = 0; relocations && i < count; i++) {
        unsigned long type = ELF64_R_TYPE(relocations[i].r_info);
        if (type != RELOCATION_JUMP_SLOT && type != RELOCATION_GLOB_DAT)
            continue;
        const ElfW(Sym) *imported = &tables->symbols[ELF64_R_SYM(relocations[i].r_info)];
        if (strcmp(tables->strings + imported->st_name, symbol) != 0)
            continue;
        if (patch->count == GOT_SLOTS_MAX)
            return -ENOSPC;
        patch->slots[patch->count++] = (void **)(object->base + relocations[i].r_offset);
    }
    return 0;
}

/* ---- writing to a slot ----------------------------------------------------------- */

/* A slot in the RELRO part is read-only, one that is bound lazily is not. Asks
 * the kernel to add nothing to the slot: atomic, as another thread may be binding
 * it, and an error instead of a fault where it may not be written. */
static bool is_writable(void **slot)
{
    uint32_t nobody_waits = 0;
    int add_nothing = FUTEX_OP(FUTEX_OP_ADD, 0, FUTEX_OP_CMP_EQ, 0);
    return syscall(SYS_futex, &nobody_waits, FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0,
                   slot, add_nothing) >= 0;
}

/* Only where `expected` stands. */
static int exchange(void **slot, void *expected, void *value)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    void *page = (void *)((uintptr_t)slot & ~(page_bytes - 1));
    bool writable = is_writable(slot);
    if (!writable && mprotect(page, page_bytes, PROT_READ | PROT_WRITE) != 0)
        return -errno;
    __atomic_compare_exchange_n(slot, &expected, value, false, __ATOMIC_RELEASE,
                                __ATOMIC_RELAXED);
    if (!writable)
        mprotect(page, page_bytes, PROT_READ);
    return 0;
}

static int restore_first(struct got_patch *patch, size_t count)
{
    int first_error = 0;
    for (size_t i = 0; i < count; i++) {
        int error = exchange(patch->slots[i], patch->replacement, patch->previous[i]);
        if (error && !first_error)
            first_error = error;
    }
    return first_error;
}

int got_replace(const struct got_object *object, const char *symbol, void *replacement,
                struct got_patch *patch)
{
    DEMAND_MAIN_THREAD();
    struct tables tables;
    memset(patch, 0, sizeof(*patch));
    patch->symbol = symbol;
    patch->replacement = replacement;
    read_tables(object, &tables);
    int error = collect(object, &tables, tables.plt, tables.plt_count, symbol, patch);
    if (!error)
        error = collect(object, &tables, tables.data, tables.data_count, symbol, patch);
    if (!error && !patch->count)
        error = -ENOENT;
    for (size_t i = 0; !error && i < patch->count; i++) {
        /* Again if another thread has just bound it. */
        do {
            patch->previous[i] = __atomic_load_n(patch->slots[i], __ATOMIC_RELAXED);
            error = exchange(patch->slots[i], patch->previous[i], replacement);
        } while (!error &&
                 __atomic_load_n(patch->slots[i], __ATOMIC_RELAXED) != replacement);
        if (error)
            restore_first(patch, i);
    }
    if (error)
        patch->count = 0;
    return error;
}

int got_restore(struct got_patch *patch)
{
    DEMAND_MAIN_THREAD();
    int error = restore_first(patch, patch->count);
    patch->count = 0;
    return error;
}

/* ---- what others do -------------------------------------------------------------- */

void got_tell_change(const char *symbol, const void *function, char *reason, size_t size)
{
    Dl_info object;
    const char *name = "somebody else";
    if (dladdr(function, &object) && object.dli_fname)
        name = object.dli_fname;
    snprintf(reason, size, "%s() was replaced by %.96s since", symbol, name);
}

static const void *changed_to(const struct got_patch *patch)
{
    for (size_t i = 0; i < patch->count; i++) {
        const void *now = __atomic_load_n(patch->slots[i], __ATOMIC_RELAXED);
        if (now != patch->replacement && now != patch->previous[i])
            return now;
    }
    return NULL;
}

int got_check(const struct got_patch *patches, size_t count, char *reason, size_t size)
{
    DEMAND_MAIN_THREAD();
    for (size_t i = 0; i < count; i++) {
        const void *function = changed_to(&patches[i]);
        if (!function)
            continue;
        got_tell_change(patches[i].symbol, function, reason, size);
        return -EBUSY;
    }
    return 0;
}
