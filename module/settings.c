#include "settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define ERROR_BYTES 256

struct rdb_uffd_settings settings;
/* True once the module runs: a change then reaches the running parts. */
static int running;

/* As the operator wrote it, for CONFIG GET. */
static char limit_text[32] = "256mb";
static api_string *limit_string, *layout_string;

/* Where files are made. */
static struct directory {
    const char *name;
    char *path;
    unsigned flags;
    api_string *string; /* the server's copy */
} directories[] = {
    {"spool-dir", settings.spool_directory, API_CONFIG_DEFAULT, NULL},
    /* Whoever may set it and run UFFD.BACKUP can write files wherever the server can. */
    {"backup-dir", settings.backup_directory, API_CONFIG_PROTECTED, NULL},
};
#define DIRECTORIES (sizeof(directories) / sizeof(directories[0]))
_Static_assert(sizeof(settings.spool_directory) == sizeof(settings.backup_directory),
               "what is a path for one is one for the other");

#define CHOICE_VALUES 3
/* One of three words. */
static const struct choice {
    const char *name;
    unsigned *value; /* an enum, whose values are these: */
    const char *names[CHOICE_VALUES];
    int values[CHOICE_VALUES];
} choices[] = {
    {"buffer-policy",
     (unsigned *)&settings.buffer_policy,
     {"spool", "block", "abort"},
     {BUFFER_SPOOL, BUFFER_BLOCK, BUFFER_ABORT}},
    {"huge-pages",
     (unsigned *)&settings.huge_pages,
     {"yes", "no", "always"},
     {HUGE_PAGES_WHERE_DENSE, NO_HUGE_PAGES, HUGE_PAGES_EVERYWHERE}},
};
#define CHOICES (sizeof(choices) / sizeof(choices[0]))
_Static_assert(sizeof(enum buffer_policy) == sizeof(unsigned) &&
                   sizeof(enum huge_pages) == sizeof(unsigned),
               "set through a pointer to unsigned");

/* ---- checking values ------------------------------------------------------------- */

int settings_parse_memory(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *name;
        uint64_t bytes;
    } units[] = {
        {"", 1},
        {"b", 1},
        {"k", 1000},
        {"kb", 1 << 10},
        {"m", 1000 * 1000},
        {"mb", 1 << 20},
        {"g", 1000 * 1000 * 1000},
        {"gb", 1 << 30},
        {"t", UINT64_C(1000000000000)},
        {"tb", UINT64_C(1) << 40},
    };
    if (*text < '0' || *text > '9')
        return -EINVAL;
    char *unit;
    errno = 0;
    unsigned long long number = strtoull(text, &unit, 10);
    if (errno)
        return -ERANGE;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcasecmp(unit, units[i].name) != 0)
            continue;
        return __builtin_mul_overflow((uint64_t)number, units[i].bytes, bytes) ? -ERANGE
                                                                               : 0;
    }
    return -EINVAL;
}

static int parse_limit(const char *text, struct rdb_uffd_settings *into, char *error)
{
    char *end;
    unsigned long percent = strtoul(text, &end, 10);
    if (end != text && *text != '-' && strcmp(end, "%") == 0) {
        if (percent < 1 || percent > 100) {
            snprintf(error, ERROR_BYTES, "a percentage of used memory is 1%% to 100%%");
            return -ERANGE;
        }
        into->buffer_percent = (unsigned)percent;
        return 0;
    }
    uint64_t bytes;
    if (settings_parse_memory(text, &bytes) != 0) {
        snprintf(error, ERROR_BYTES,
                 "must be a memory size such as 256mb, or a percentage of used memory "
                 "such as 25%%");
        return -EINVAL;
    }
    if (bytes < RDB_UFFD_LEAST_BUFFER_LIMIT) {
        snprintf(error, ERROR_BYTES,
                 "must be at least %llumb: the index of the preserved pages and a few "
                 "hundred of them have to fit",
                 (unsigned long long)(RDB_UFFD_LEAST_BUFFER_LIMIT >> 20));
        return -ERANGE;
    }
    into->buffer_limit = bytes;
    into->buffer_percent = 0;
    return 0;
}

static int check_directory(const char *path, char *error)
{
    struct stat status;
    if (strlen(path) >= sizeof(settings.spool_directory)) {
        snprintf(error, ERROR_BYTES, "the path is too long");
        return -ENAMETOOLONG;
    }
    if (!*path)
        return 0;
    errno = 0;
    if (stat(path, &status) != 0 || !S_ISDIR(status.st_mode)) {
        snprintf(error, ERROR_BYTES, "'%.100s' is not a directory: %s", path,
                 errno ? strerror(errno) : "it is something else");
        return -ENOTDIR;
    }
    if (access(path, W_OK | X_OK) != 0) {
        snprintf(error, ERROR_BYTES, "cannot create files in '%.100s': %s", path,
                 strerror(errno));
        return -EACCES;
    }
    return 0;
}

/* What is in it is judged when the server is known: a file that is wrong costs no start. */
static int take_layout_file(const char *path, char *error)
{
    if (strlen(path) >= sizeof(settings.layout_file)) {
        snprintf(error, ERROR_BYTES, "the path is too long");
        return -ENAMETOOLONG;
    }
    snprintf(settings.layout_file, sizeof(settings.layout_file), "%s", path);
    return 0;
}

/* ---- the server's callbacks ------------------------------------------------------ */

static void changed(void)
{
    if (running)
        rdb_uffd_configure(&settings);
}

static int refuse(api_string **error, const char *text)
{
    *error = api.CreateString(NULL, text, strlen(text));
    return API_ERR;
}

static api_string *as_string(api_string **kept, const char *text)
{
    if (*kept)
        api.FreeString(NULL, *kept);
    return *kept = api.CreateString(NULL, text, strlen(text));
}

static api_string *get_limit(const char *name, void *data)
{
    (void)name, (void)data;
    return as_string(&limit_string, limit_text);
}

static int set_limit(const char *name, api_string *value, void *data, api_string **error)
{
    (void)name, (void)data;
    char why[ERROR_BYTES];
    const char *text = api.StringPtrLen(value, NULL);
    if (strlen(text) >= sizeof(limit_text))
        return refuse(error, "is too long for a memory size");
    if (parse_limit(text, &settings, why) != 0)
        return refuse(error, why);
    snprintf(limit_text, sizeof(limit_text), "%s", text);
    changed();
    return API_OK;
}

static api_string *get_directory(const char *name, void *data)
{
    (void)name;
    struct directory *directory = data;
    return as_string(&directory->string, directory->path);
}

static int set_path(const struct directory *directory, const char *path, char *error)
{
    int result = check_directory(path, error);
    if (!result)
        snprintf(directory->path, sizeof(settings.spool_directory), "%s", path);
    return result;
}

static int set_directory(const char *name, api_string *value, void *data,
                         api_string **error)
{
    (void)name;
    char why[ERROR_BYTES];
    if (set_path(data, api.StringPtrLen(value, NULL), why) != 0)
        return refuse(error, why);
    changed();
    return API_OK;
}

static api_string *get_layout_file(const char *name, void *data)
{
    (void)name, (void)data;
    return as_string(&layout_string, settings.layout_file);
}

/* The server calls it for its configuration file only: it is immutable. */
static int set_layout_file(const char *name, api_string *value, void *data,
                           api_string **error)
{
    (void)name, (void)data;
    char why[ERROR_BYTES];
    return take_layout_file(api.StringPtrLen(value, NULL), why) == 0 ? API_OK
                                                                     : refuse(error, why);
}

static int get_choice(const char *name, void *data)
{
    (void)name;
    return (int)*((const struct choice *)data)->value;
}

static int set_choice(const char *name, int value, void *data, api_string **error)
{
    (void)name, (void)error;
    *((const struct choice *)data)->value = (unsigned)value;
    changed();
    return API_OK;
}

static int get_switch(const char *name, void *data)
{
    (void)name;
    return *(bool *)data;
}

static int set_switch(const char *name, int value, void *data, api_string **error)
{
    (void)name, (void)error;
    *(bool *)data = value;
    changed();
    return API_OK;
}

static long long get_threads(const char *name, void *data)
{
    (void)name, (void)data;
    return (long long)settings.threads;
}

static int set_threads(const char *name, long long value, void *data, api_string **error)
{
    (void)name, (void)data, (void)error;
    settings.threads = (unsigned)value;
    changed();
    return API_OK;
}

static const struct {
    const char *name;
    bool *value;
} switches[] = {
    {"enabled", &settings.enabled},
    {"fallback", &settings.fallback},
    {"compression", &settings.compression},
    {"value-child", &settings.value_child},
};
#define SWITCHES (sizeof(switches) / sizeof(switches[0]))

static int register_all(api_context *context)
{
    for (size_t i = 0; i < SWITCHES; i++)
        if (api.RegisterBoolConfig(context, switches[i].name, *switches[i].value,
                                   API_CONFIG_DEFAULT, get_switch, set_switch, NULL,
                                   switches[i].value) != API_OK)
            return API_ERR;
    for (size_t i = 0; i < CHOICES; i++)
        if (api.RegisterEnumConfig(context, choices[i].name, (int)*choices[i].value,
                                   API_CONFIG_DEFAULT, (const char **)choices[i].names,
                                   choices[i].values, CHOICE_VALUES, get_choice,
                                   set_choice, NULL, (void *)&choices[i]) != API_OK)
            return API_ERR;
    for (size_t i = 0; i < DIRECTORIES; i++)
        if (api.RegisterStringConfig(context, directories[i].name, "",
                                     directories[i].flags, get_directory, set_directory,
                                     NULL, &directories[i]) != API_OK)
            return API_ERR;
    if (api.RegisterStringConfig(context, "buffer-limit", limit_text, API_CONFIG_DEFAULT,
                                 get_limit, set_limit, NULL, NULL) != API_OK ||
        api.RegisterStringConfig(context, "layout-file", "", API_CONFIG_IMMUTABLE,
                                 get_layout_file, set_layout_file, NULL,
                                 NULL) != API_OK ||
        api.RegisterNumericConfig(context, "threads", 0, API_CONFIG_DEFAULT, 0,
                                  RDB_UFFD_THREADS_MAX, get_threads, set_threads, NULL,
                                  NULL) != API_OK)
        return API_ERR;
    return api.LoadConfigs(context);
}

/* ---- arguments of loadmodule ----------------------------------------------------- */

static int set_switch_by_text(bool *value, const char *text, char *error)
{
    if (strcasecmp(text, "yes") != 0 && strcasecmp(text, "no") != 0) {
        snprintf(error, ERROR_BYTES, "must be 'yes' or 'no'");
        return -EINVAL;
    }
    *value = strcasecmp(text, "yes") == 0;
    return 0;
}

static int set_choice_by_text(const struct choice *choice, const char *text, char *error)
{
    for (int i = 0; i < CHOICE_VALUES; i++) {
        if (strcasecmp(text, choice->names[i]) != 0)
            continue;
        *choice->value = (unsigned)choice->values[i];
        return 0;
    }
    snprintf(error, ERROR_BYTES, "must be '%s', '%s' or '%s'", choice->names[0],
             choice->names[1], choice->names[2]);
    return -EINVAL;
}

static int set_threads_by_text(const char *text, char *error)
{
    char *end;
    unsigned long threads = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || threads > RDB_UFFD_THREADS_MAX) {
        snprintf(error, ERROR_BYTES, "must be a number from 0 to %d",
                 RDB_UFFD_THREADS_MAX);
        return -EINVAL;
    }
    settings.threads = (unsigned)threads;
    return 0;
}

static int set_by_text(const char *name, const char *text, char *error)
{
    for (size_t i = 0; i < SWITCHES; i++)
        if (strcasecmp(name, switches[i].name) == 0)
            return set_switch_by_text(switches[i].value, text, error);
    for (size_t i = 0; i < CHOICES; i++)
        if (strcasecmp(name, choices[i].name) == 0)
            return set_choice_by_text(&choices[i], text, error);
    if (strcasecmp(name, "threads") == 0)
        return set_threads_by_text(text, error);
    if (strcasecmp(name, "buffer-limit") == 0) {
        int result = parse_limit(text, &settings, error);
        if (!result)
            snprintf(limit_text, sizeof(limit_text), "%s", text);
        return result;
    }
    if (strcasecmp(name, "layout-file") == 0)
        return take_layout_file(text, error);
    for (size_t i = 0; i < DIRECTORIES; i++)
        if (strcasecmp(name, directories[i].name) == 0)
            return set_path(&directories[i], text, error);
    snprintf(error, ERROR_BYTES,
             "there is no such setting; there are buffer-limit, buffer-policy, "
             "spool-dir, backup-dir, compression, value-child, huge-pages, threads, "
             "fallback, enabled, layout-file");
    return -EINVAL;
}

int settings_load(api_context *context, api_string **arguments, int count)
{
    char error[ERROR_BYTES];
    rdb_uffd_default_settings(&settings);
    snprintf(limit_text, sizeof(limit_text), "256mb");
    running = 0;
    limit_string = layout_string = NULL;
    for (size_t i = 0; i < DIRECTORIES; i++)
        directories[i].string = NULL;
    if (register_all(context) != API_OK) {
        api.Log(NULL, "warning", "uffd: wrong value in the configuration file");
        return API_ERR;
    }
    if (count % 2) {
        api.Log(NULL, "warning", "uffd: loadmodule takes pairs: name value");
        return API_ERR;
    }
    for (int i = 0; i < count; i += 2) {
        const char *name = api.StringPtrLen(arguments[i], NULL);
        const char *text = api.StringPtrLen(arguments[i + 1], NULL);
        if (set_by_text(name, text, error) != 0) {
            api.Log(NULL, "warning", "uffd: '%s %s': %s", name, text, error);
            return API_ERR;
        }
    }
    running = 1;
    return API_OK;
}
