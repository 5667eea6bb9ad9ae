#include "kernel/process.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEVICE         "/dev/userfaultfd"
#define CAP_SYS_PTRACE 19

bool process_find_line(const char *path, const char *start, char *rest, size_t size)
{
    FILE *file = fopen(path, "re");
    char line[512];
    bool found = false;
    while (file && !found && fgets(line, sizeof(line), file)) {
        found = strncmp(line, start, strlen(start)) == 0;
        if (!found)
            continue;
        line[strcspn(line, "\n")] = '\0';
        snprintf(rest, size, "%s", line + strlen(start));
    }
    if (file)
        fclose(file);
    return found;
}

/* The local files only: a name service may take its time. */
static void name_user(uid_t user, char *name, size_t size)
{
    FILE *file = fopen("/etc/passwd", "re");
    struct passwd *entry = NULL;
    while (file && (entry = fgetpwent(file)) && entry->pw_uid != user)
        continue;
    if (entry)
        snprintf(name, size, "%s", entry->pw_name);
    else
        snprintf(name, size, "%u", (unsigned)user);
    if (file)
        fclose(file);
}

static void name_group(gid_t group, char *name, size_t size)
{
    FILE *file = fopen("/etc/group", "re");
    struct group *entry = NULL;
    while (file && (entry = fgetgrent(file)) && entry->gr_gid != group)
        continue;
    if (entry)
        snprintf(name, size, "%s", entry->gr_name);
    else
        snprintf(name, size, "%u", (unsigned)group);
    if (file)
        fclose(file);
}

static void describe_device(struct process_facts *facts, const struct stat *node)
{
    char user[40], group[40];
    name_user(node->st_uid, user, sizeof(user));
    name_group(node->st_gid, group, sizeof(group));
    snprintf(facts->device_mode, sizeof(facts->device_mode), "%s:%s %04o", user, group,
             node->st_mode & 07777);
}

static bool kernel_has_device(void)
{
    FILE *file = fopen("/proc/misc", "re");
    char line[128];
    bool found = false;
    while (file && !found && fgets(line, sizeof(line), file))
        found = strstr(line, " userfaultfd\n") != NULL;
    if (file)
        fclose(file);
    return found;
}

static enum userfaultfd_device look_at_device(struct process_facts *facts)
{
    struct stat node;
    if (stat(DEVICE, &node) != 0)
        return kernel_has_device() ? DEVICE_HIDDEN : DEVICE_UNKNOWN_TO_KERNEL;
    describe_device(facts, &node);
    int descriptor = open(DEVICE, O_RDWR | O_CLOEXEC);
    if (descriptor >= 0) {
        close(descriptor);
        return DEVICE_OPENS;
    }
    bool permitted = eaccess(DEVICE, R_OK | W_OK) == 0;
    return permitted ? DEVICE_BARRED : DEVICE_DENIED;
}

static int read_sysctl(const char *path)
{
    char value[32];
    return process_find_line(path, "", value, sizeof(value)) ? atoi(value) : -1;
}

static bool has_capability(unsigned capability)
{
    char mask[64];
    return process_find_line("/proc/self/status", "CapEff:", mask, sizeof(mask)) &&
           (strtoull(mask, NULL, 16) >> capability & 1);
}

static bool seems_contained(void)
{
    return access("/.dockerenv", F_OK) == 0 || access("/run/.containerenv", F_OK) == 0 ||
           getenv("KUBERNETES_SERVICE_HOST") || getenv("container");
}

void process_get_facts(struct process_facts *facts)
{
    char mode[32];
    memset(facts, 0, sizeof(*facts));
    facts->user = geteuid();
    facts->group = getegid();
    name_user(facts->user, facts->user_name, sizeof(facts->user_name));
    name_group(facts->group, facts->group_name, sizeof(facts->group_name));
    facts->may_trace = has_capability(CAP_SYS_PTRACE);
    facts->seccomp =
        process_find_line("/proc/self/status", "Seccomp:", mode, sizeof(mode))
            ? atoi(mode)
            : -1;
    facts->unprivileged = read_sysctl("/proc/sys/vm/unprivileged_userfaultfd");
    facts->device = look_at_device(facts);
    facts->in_container = seems_contained();
}

enum huge_page_mode process_huge_page_mode(void)
{
    char modes[64];
    if (!process_find_line("/sys/kernel/mm/transparent_hugepage/enabled", "", modes,
                           sizeof(modes)))
        return HUGE_PAGES_UNKNOWN;
    if (strstr(modes, "[always]"))
        return HUGE_PAGES_ALWAYS;
    return strstr(modes, "[madvise]") ? HUGE_PAGES_ON_ADVICE : HUGE_PAGES_NEVER;
}

int process_refuses_huge_pages(void)
{
    int how = prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0);
    return how < 0 ? -errno : how;
}

/* Bit 0 says whether, the others, which newer kernels have, what is excepted. */
int process_refuse_huge_pages(int how)
{
    unsigned long whether = (unsigned)how & 1, excepted = (unsigned)how & ~1u;
    return prctl(PR_SET_THP_DISABLE, whether, excepted, 0, 0) ? -errno : 0;
}
