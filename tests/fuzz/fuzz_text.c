/* What comes as text: memory maps, files of control groups, settings and arguments of
 * loadmodule, layout files, versions, addresses and the INFO that uffd-watch reads. Any text
 * at all.
 *
 * input   0 which · 1 the text; files and arguments are parted by a byte of 255 */
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "bounds.h"

/* It has a name of its own for the bytes of a page. */
#include "kernel/mappings.c"
#undef PAGE_BYTES

#include "host/layout_file.h"
#include "kernel/cpu_quota.h"
#include "server.h"
#include "settings.c"

struct server_api api;

static int within(const struct mapping *mapping, void *context)
{
    const char *text = context;
    if (mapping->name < text ||
        mapping->name > text + strlen(mapping->name) + BUFFER_BYTES)
        abort();
    return 0;
}

static void map(char *text)
{
    struct reading reading = {.visit = within, .context = text};
    visit_lines(&reading, text);
}

/* ---- control groups -------------------------------------------------------------- */

static void write_file(const char *root, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", root, name);
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (file < 0 || write(file, text, strlen(text)) != (ssize_t)strlen(text))
        abort();
    close(file);
}

static const char *make_root(void)
{
    static char root[] = "rdb_uffd-fuzz-XXXXXX";
    static const char *const directories[] = {"proc",
                                              "proc/self",
                                              "sys",
                                              "sys/fs",
                                              "sys/fs/cgroup",
                                              "sys/fs/cgroup/a",
                                              "sys/fs/cgroup/cpu"};
    char path[256];
    if (!mkdtemp(root))
        abort();
    for (size_t i = 0; i < sizeof(directories) / sizeof(directories[0]); i++) {
        snprintf(path, sizeof(path), "%s/%s", root, directories[i]);
        if (mkdir(path, 0700) != 0)
            abort();
    }
    return root;
}

static void read_groups(char **texts)
{
    static const char *root;
    if (!root)
        root = make_root();
    write_file(root, "proc/self/cgroup", texts[0]);
    write_file(root, "sys/fs/cgroup/cpu.max", texts[1]);
    write_file(root, "sys/fs/cgroup/a/cpu.max", texts[2]);
    write_file(root, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", texts[1]);
    write_file(root, "sys/fs/cgroup/cpu/cpu.cfs_period_us", texts[2]);
    cpu_quota_percent(root);
}

/* ---- the rest -------------------------------------------------------------------- */

static void set(const char *name, const char *text)
{
    char error[ERROR_BYTES] = "";
    uint64_t bytes;
    settings_parse_memory(text, &bytes);
    rdb_uffd_default_settings(&settings);
    if (set_by_text(name, text, error) != 0) {
        if (!*error)
            abort();
        return;
    }
    if (settings.threads > RDB_UFFD_THREADS_MAX || settings.buffer_percent > 100 ||
        settings.buffer_limit < RDB_UFFD_LEAST_BUFFER_LIMIT)
        abort();
}

/* The most that a reason is promised to take is all the room that there is. */
#define REASON_BYTES 160

static void layout(const char *text)
{
    static int file = -1;
    char path[32], *reason = malloc(REASON_BYTES);
    if (file < 0)
        file = memfd_create("layout", MFD_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
    if (ftruncate(file, 0) != 0 ||
        pwrite(file, text, strlen(text), 0) != (ssize_t)strlen(text))
        abort();
    *reason = '\0';
    if (!layout_file_read(path, reason, REASON_BYTES) && !*reason)
        abort();
    free(reason);
}

static void watch(char *name, char *info)
{
    struct watched server = {.name = name, .info = info};
    const char *wrong = address_parse(&server.address, name);
    if (!wrong && !server.address.path &&
        (server.address.port < 1 || server.address.port > 65535))
        abort();
    watched_text(&server, "uffd_state");
    watched_number(&server, "uffd_last_faults");
}

#define TEXTS 3

/* Each in memory of just its length. */
int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    char *texts[TEXTS];
    if (!length || memchr(input + 1, 0, length - 1))
        return -1;
    const uint8_t *at = input + 1, *end = input + length;
    for (int i = 0; i < TEXTS; i++) {
        const uint8_t *part = i < TEXTS - 1 ? memchr(at, 255, (size_t)(end - at)) : NULL;
        size_t bytes = (size_t)((part ? part : end) - at);
        texts[i] = malloc(bytes + 1);
        memcpy(texts[i], at, bytes);
        texts[i][bytes] = '\0';
        at = part ? part + 1 : end;
    }
    switch (*input % 6) {
    case 0:
        map(texts[0]);
        break;
    case 1:
        read_groups(texts);
        break;
    case 2:
        set(texts[0], texts[1]);
        break;
    case 3:
        watch(texts[0], texts[1]);
        break;
    case 4:
        layout(texts[0]);
        break;
    default:
        layout_find(texts[0], texts[1]);
    }
    for (int i = 0; i < TEXTS; i++)
        free(texts[i]);
    return 0;
}
