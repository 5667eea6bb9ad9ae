#include "kernel/symbols.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>

void *symbol_find(const char *name)
{
    static void *executable;
    if (!executable)
        executable = dlopen(NULL, RTLD_LAZY);
    return executable ? dlsym(executable, name) : NULL;
}

void *symbol_find_prefixed(const char *prefix, const char *name)
{
    char full_name[64];
    snprintf(full_name, sizeof(full_name), "%s%s", prefix, name);
    return symbol_find(full_name);
}

size_t symbol_bytes(const void *address)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (!dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return 0;
    return symbol->st_size;
}
