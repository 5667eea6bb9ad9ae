/* A module for the tests that does what no module should: it lets the kernel merge the
 * server's pages, and lifts, drops or replaces memory by system calls that pass nobody.
 *
 *   MEDDLER.MERGE            PR_SET_MEMORY_MERGE, as systemd's MemoryKSM=yes
 *   MEDDLER.MERGEABLE        MADV_MERGEABLE for every mapping
 *   MEDDLER.UNPROTECT key    the whole pages of a string lose their write protection
 *   MEDDLER.DROP key         … are given back, and written anew
 *   MEDDLER.REMAP key        … are mapped anew, and written
 */
#include <dirent.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_SET_MEMORY_MERGE
#define PR_SET_MEMORY_MERGE 67
#endif
#define PAGE 4096u

typedef struct context context;
typedef struct string string;
typedef struct key key;

static int (*get_api)(const char *name, void *function);
static void (*set_attributes)(context *, const char *name, int version, int api);
static int (*create_command)(context *, const char *name,
                             int (*)(context *, string **, int), const char *flags, int,
                             int, int);
static key *(*open_key)(context *, string *name, int mode);
static void (*close_key)(key *);
static char *(*bytes_of)(key *, size_t *length, int mode);
static int (*reply_text)(context *, const char *text);
static int (*reply_error)(context *, const char *text);

static int answer(context *caller, int result)
{
    return result == 0 ? reply_text(caller, "OK") : reply_error(caller, "ERR refused");
}

static int merge(context *caller, string **arguments, int count)
{
    (void)arguments, (void)count;
    return answer(caller, prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0));
}

static int mergeable(context *caller, string **arguments, int count)
{
    (void)arguments, (void)count;
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512], how[8], name[256];
    int done = 0;
    while (maps && fgets(line, sizeof line, maps)) {
        unsigned long start, end;
        name[0] = '\0';
        sscanf(line, "%lx-%lx %7s %*s %*s %*s %255s", &start, &end, how, name);
        if (strcmp(how, "rw-p") == 0 && name[0] != '/')
            done += syscall(SYS_madvise, start, end - start, MADV_MERGEABLE) == 0;
    }
    if (maps)
        fclose(maps);
    return answer(caller, done ? 0 : -1);
}

/* The module's. */
static int find_userfaultfd(void)
{
    DIR *all = opendir("/proc/self/fd");
    int found = -1;
    for (struct dirent *one; all && (one = readdir(all));) {
        char path[300], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%s", one->d_name);
        if (readlink(path, target, sizeof target - 1) > 0 &&
            strcmp(target, "anon_inode:[userfaultfd]") == 0)
            found = atoi(one->d_name);
    }
    if (all)
        closedir(all);
    return found;
}

static int unprotect(char *start, size_t length)
{
    struct uffdio_writeprotect lift = {
        .range = {.start = (uintptr_t)start, .len = length}};
    return ioctl(find_userfaultfd(), UFFDIO_WRITEPROTECT, &lift);
}

static int drop(char *start, size_t length)
{
    long result = syscall(SYS_madvise, start, length, MADV_DONTNEED);
    memset(start, 'd', length);
    return (int)result;
}

static int remap(char *start, size_t length)
{
    long result = syscall(SYS_munmap, start, length);
    if (result == 0 &&
        syscall(SYS_mmap, start, length, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != (long)(uintptr_t)start)
        result = -1;
    memset(start, 'r', length);
    return (int)result;
}

static int meddle(context *caller, string **arguments, int count,
                  int (*with)(char *start, size_t length))
{
    size_t length = 0;
    key *opened = count == 2 ? open_key(caller, arguments[1], 1) : NULL;
    char *bytes = opened ? bytes_of(opened, &length, 1) : NULL;
    uintptr_t start = ((uintptr_t)bytes + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
    uintptr_t end = ((uintptr_t)bytes + length) & ~(uintptr_t)(PAGE - 1);
    int result = bytes && end > start ? with((char *)start, end - start) : -1;
    if (opened)
        close_key(opened);
    return answer(caller, result);
}

static int unprotect_key(context *caller, string **arguments, int count)
{
    return meddle(caller, arguments, count, unprotect);
}

static int drop_key(context *caller, string **arguments, int count)
{
    return meddle(caller, arguments, count, drop);
}

static int remap_key(context *caller, string **arguments, int count)
{
    return meddle(caller, arguments, count, remap);
}

int RedisModule_OnLoad(context *loader, string **arguments, int count);
int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    (void)arguments, (void)count;
    void *lookup;
    memcpy(&lookup, loader, sizeof(lookup));
    memcpy(&get_api, &lookup, sizeof(get_api));
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"RedisModule_SetModuleAttribs", &set_attributes},
        {"RedisModule_CreateCommand", &create_command},
        {"RedisModule_OpenKey", &open_key},
        {"RedisModule_CloseKey", &close_key},
        {"RedisModule_StringDMA", &bytes_of},
        {"RedisModule_ReplyWithSimpleString", &reply_text},
        {"RedisModule_ReplyWithError", &reply_error},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (get_api(wanted[i].name, wanted[i].function) != 0)
            return 1;
    set_attributes(loader, "meddler", 1, 1);
    return create_command(loader, "meddler.merge", merge, "", 0, 0, 0) ||
           create_command(loader, "meddler.mergeable", mergeable, "", 0, 0, 0) ||
           create_command(loader, "meddler.unprotect", unprotect_key, "", 1, 1, 1) ||
           create_command(loader, "meddler.drop", drop_key, "", 1, 1, 1) ||
           create_command(loader, "meddler.remap", remap_key, "", 1, 1, 1);
}
