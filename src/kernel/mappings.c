#include "kernel/mappings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The kernel hands out whole lines, and no line is longer than a path. */
#define BUFFER_BYTES (64 * 1024)
static char buffer[BUFFER_BYTES + 1];

static const char *parse_hex(const char *text, uint64_t *value)
{
    uint64_t result = 0;
    for (;; text++) {
        if (*text >= '0' && *text <= '9')
            result = result * 16 + (uint64_t)(*text - '0');
        else if (*text >= 'a' && *text <= 'f')
            result = result * 16 + (uint64_t)(*text - 'a' + 10);
        else
            break;
    }
    *value = result;
    return text;
}

static const char *skip_word(const char *text)
{
    while (*text && *text != ' ')
        text++;
    while (*text == ' ')
        text++;
    return text;
}

/* start-end rwxp offset device inode  name */
static bool parse_line(const char *line, struct mapping *mapping)
{
    const char *at = parse_hex(line, &mapping->start);
    if (*at++ != '-')
        return false;
    at = parse_hex(at, &mapping->end);
    if (*at++ != ' ' || strlen(at) < 5)
        return false;
    mapping->readable = at[0] == 'r';
    mapping->writable = at[1] == 'w';
    mapping->shared = at[3] == 's';
    const char *inode = skip_word(skip_word(skip_word(at)));
    mapping->anonymous = inode[0] == '0' && (inode[1] == ' ' || inode[1] == '\0');
    mapping->name = skip_word(inode);
    return true;
}

static int visit_lines(char *text, int (*visit)(const struct mapping *, void *),
                       void *context)
{
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        struct mapping mapping;
        if (!parse_line(line, &mapping))
            return -EBADMSG;
        int result = visit(&mapping, context);
        if (result)
            return result;
        line = end ? end + 1 : line + strlen(line);
    }
    return 0;
}

int mappings_visit(int (*visit)(const struct mapping *mapping, void *context),
                   void *context)
{
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    int result = 0;
    while (!result) {
        ssize_t got = read(file, buffer, BUFFER_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            result = got < 0 ? -errno : 0;
            break;
        }
        buffer[got] = '\0';
        result = visit_lines(buffer, visit, context);
    }
    close(file);
    return result;
}

int mappings_open_statm(void)
{
    int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    return file < 0 ? -errno : file;
}

struct mappings_extent mappings_measure(int statm)
{
    char text[128];
    unsigned long long data;
    /* libc's own memory of the break is not asked: others may move it. */
    struct mappings_extent extent = {.break_end = (uint64_t)syscall(SYS_brk, 0)};
    ssize_t got = statm < 0 ? -1 : pread(statm, text, sizeof(text) - 1, 0);
    text[got > 0 ? got : 0] = '\0';
    /* size resident shared text lib data dirty */
    if (sscanf(text, "%*u %*u %*u %*u %*u %llu", &data) == 1)
        extent.data_pages = data;
    return extent;
}
