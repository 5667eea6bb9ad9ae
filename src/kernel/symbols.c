#include "kernel/symbols.h"

#include <dlfcn.h>
#include <link.h>

void *symbol_find(const char *name)
{
    static void *executable;
    if (!executable)
        executable = dlopen(NULL, RTLD_LAZY);
    return executable ? dlsym(executable, name) : NULL;
}

size_t symbol_bytes(const void *address)
{
    Dl_info info;
    const ElfW(Sym) *symbol = NULL;
    if (!dladdr1(address, &info, (void **)&symbol, RTLD_DL_SYMENT) || !symbol)
        return 0;
    return symbol->st_size;
}
