#include "kernel/mappings.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/fault_points.h"

/* The kernel hands out whole lines, and no line is longer than a path. */
#define BUFFER_BYTES (64 * 1024)
#define PAGE_BYTES   4096
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

struct reading {
    int (*visit)(const struct mapping *mapping, void *context);
    void *context;
    uint64_t data_bytes; /* private writable memory in what was listed */
};

static int visit_lines(struct reading *reading, char *text)
{
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        if (end)
            *end = '\0';
        struct mapping mapping;
        if (!parse_line(line, &mapping))
            return -EBADMSG;
        if (mapping.writable && !mapping.shared)
            reading->data_bytes += mapping.end - mapping.start;
        int result = reading->visit(&mapping, reading->context);
        if (result)
            return result;
        line = end ? end + 1 : line + strlen(line);
    }
    return 0;
}

static int read_all(struct reading *reading, int file)
{
    for (;;) {
        ssize_t got = read(file, buffer, BUFFER_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : 0;
        bool short_list = fault_point(FAULT_SHORT_LIST);
        if (short_list)
            got = (char *)memchr(buffer, '\n', (size_t)got) + 1 - buffer;
        buffer[got] = '\0';
        int result = visit_lines(reading, buffer);
        if (result || short_list)
            return result;
    }
}

int mappings_visit(int statm, int (*visit)(const struct mapping *mapping, void *context),
                   void *context)
{
    struct reading reading = {.visit = visit, .context = context};
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    int result = read_all(&reading, file);
    close(file);
    uint64_t data_pages = mappings_measure(statm).data_pages;
    bool whole = data_pages == 0 || data_pages == reading.data_bytes / PAGE_BYTES;
    return result || whole ? result : -EAGAIN;
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
