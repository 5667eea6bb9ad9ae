#include "host/child_files.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "kernel/contract.h"
#include "kernel/fault_points.h"
#include "kernel/random.h"

/* The kernel's ceiling for pid_max on 64-bit machines. */
#define PID_MAX_LIMIT 4194304

/* For every child; the first two are those that we make. */
enum { DUMP, REWRITE, REWRITE_BEFORE, KINDS };
static const char *const patterns[KINDS] = {"temp-%d.rdb", "temp-rewriteaof-bg-%d.aof",
                                            "temp-rewriteaof-%d.aof"};

static struct {
    int kind;
    char asked[KINDS][CHILD_FILE_BYTES]; /* made from the pid; "": no save yet */
    _Atomic int made;                    /* the number that the file has, 0: no file */
    int last;                            /* FAULT_KNOWN_NUMBERS */
} files;

int child_files_number(void)
{
    if (fault_point(FAULT_KNOWN_NUMBERS))
        return PID_MAX_LIMIT + ++files.last;
    return PID_MAX_LIMIT + 1 + (int)(random_number() % (INT_MAX - PID_MAX_LIMIT));
}

void child_files_begin(int pid, bool rewrite)
{
    DEMAND_MAIN_THREAD();
    files.kind = rewrite ? REWRITE : DUMP;
    for (int i = 0; i < KINDS; i++)
        snprintf(files.asked[i], CHILD_FILE_BYTES, patterns[i], pid);
    atomic_store_explicit(&files.made, 0, memory_order_relaxed);
}

void child_files_name(int number, char name[CHILD_FILE_BYTES])
{
    snprintf(name, CHILD_FILE_BYTES, patterns[files.kind], number);
}

void child_files_made(int number)
{
    DEMAND_THREAD(THREAD_SAVER);
    atomic_store_explicit(&files.made, number, memory_order_release);
}

/* Also from the server's signal handlers, which ask for names of its own pid: these are
 * compared and no more. */
const char *child_files_meant(const char *path, char name[CHILD_FILE_BYTES])
{
    DEMAND_MAIN_THREAD();
    int kind = 0;
    while (kind < KINDS && strcmp(path, files.asked[kind]) != 0)
        kind++;
    if (kind == KINDS)
        return path;
    int made = atomic_load_explicit(&files.made, memory_order_acquire);
    if (kind != files.kind || !made)
        return NULL;
    child_files_name(made, name);
    return name;
}
