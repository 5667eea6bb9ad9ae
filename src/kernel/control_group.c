#include "kernel/control_group.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Of /proc/self/cgroup: a dozen lines, with the names of groups. */
#define GROUPS_BYTES 8192

struct visit {
    const char *root;
    const char *controller;
    void (*look)(const char *directory, bool unified, void *context);
    void *context;
};

bool control_group_read(const char *directory, const char *file, char *text, size_t size)
{
    char path[PATH_MAX];
    size_t length = 0;
    ssize_t got = 0;
    text[0] = '\0';
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", directory, file) >= sizeof(path))
        return false;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return false;
    while (length < size - 1 &&
           (got = read(descriptor, text + length, size - 1 - length)) > 0)
        length += (size_t)got;
    close(descriptor);
    text[length] = '\0';
    return length != 0;
}

static void visit_upwards(const struct visit *visit, char *group, bool unified)
{
    for (;;) {
        char directory[PATH_MAX];
        int length =
            snprintf(directory, sizeof(directory), "%s/sys/fs/cgroup%s%s%s", visit->root,
                     unified ? "" : "/", unified ? "" : visit->controller, group);
        if (length > 0 && (size_t)length < sizeof(directory))
            visit->look(directory, unified, visit->context);
        char *last = strrchr(group, '/');
        if (!last)
            return;
        *last = '\0';
    }
}

/* Whether a list like "cpu,cpuacct" has the name. */
static bool lists(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, length) == 0 && (at[length] == ',' || !at[length]))
            return true;
    }
    return false;
}

/* "4:cpu,cpuacct:/group", or "0::/group" in the unified hierarchy. */
static void visit_line(const struct visit *visit, char *line)
{
    char *controllers = strchr(line, ':');
    char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return;
    *group++ = '\0';
    bool unified = !controllers[1];
    if (unified || lists(controllers + 1, visit->controller))
        visit_upwards(visit, group, unified);
}

void control_groups_visit(const char *root, const char *controller,
                          void (*look)(const char *directory, bool unified,
                                       void *context),
                          void *context)
{
    const struct visit visit = {root, controller, look, context};
    char directory[PATH_MAX], text[GROUPS_BYTES];
    snprintf(directory, sizeof(directory), "%s/proc/self", root);
    if (!control_group_read(directory, "cgroup", text, sizeof(text)))
        return;
    for (char *line = text, *next; *line; line = next) {
        next = line + strcspn(line, "\n");
        if (*next)
            *next++ = '\0';
        visit_line(&visit, line);
    }
}
