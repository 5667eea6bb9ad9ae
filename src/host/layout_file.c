#include "host/layout_file.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "host/transfer.h"
#include "keyspace/family.h"

#define LINE_BYTES 256
#define TEXT_BYTES 32
/* Far more than there are: a longer file is something else. */
#define LINES_MAX 500

struct number {
    const char *name;
    size_t offset;
    uint16_t most, step;
};

static const struct number layout_numbers[] = {
#define NUMBER(name, most, step)                                                         \
    {#name, offsetof(struct server_layout, name), most, step},
    LAYOUT_NUMBERS(NUMBER)
#undef NUMBER
};
static const struct number family_numbers[] = {
#define NUMBER(name, most) {#name, offsetof(struct family, name), most, 1},
    FAMILY_NUMBERS(NUMBER)
#undef NUMBER
};
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

enum text { TEXT_SERVER, TEXT_VERSION, TEXT_MAGIC, TEXT_FAMILY, TEXT_HAS, TEXTS };
static const char *const text_names[TEXTS] = {"server", "version", "magic", "family",
                                              "has"};

struct file {
    FILE *stream;
    const char *path;
    unsigned line;
    char *reason;
    size_t reason_size;
    struct server_layout layout;
    struct family family;
    bool has_layout[COUNT(layout_numbers)], has_family[COUNT(family_numbers)];
    bool has_text[TEXTS];
};

/* What the table points to. */
static char texts[TEXTS][TEXT_BYTES];
static struct server_layout table;

__attribute__((format(printf, 2, 3))) static bool wrong(struct file *file,
                                                        const char *format, ...)
{
    char where[24] = "", what[LINE_BYTES];
    va_list arguments;
    if (file->line)
        snprintf(where, sizeof(where), " line %u", file->line);
    va_start(arguments, format);
    vsnprintf(what, sizeof(what), format, arguments);
    va_end(arguments);
    snprintf(file->reason, file->reason_size,
             "layout-file%s: %.120s: write it anew with `make layouts BIN=` (%.80s)",
             where, what, file->path);
    return false;
}

/* ---- one line -------------------------------------------------------------------- */

static bool parse_number(struct file *file, const struct number *number,
                         const char *value, void *into)
{
    char *end;
    errno = 0;
    unsigned long parsed = strtoul(value, &end, 10);
    if (*value < '0' || *value > '9' || *end || errno)
        return wrong(file, "'%.32s' of %s is no number", value, number->name);
    if (parsed > number->most)
        return wrong(file, "%s is at most %u", number->name, number->most);
    if (parsed % number->step)
        return wrong(file, "%s is a multiple of %u", number->name, number->step);
    uint16_t narrow = (uint16_t)parsed;
    memcpy((char *)into + number->offset, &narrow, sizeof(narrow));
    return true;
}

/* 1: taken; 0: there is no number of that name; -1: wrong. */
static int take_number(struct file *file, const struct number *numbers, size_t count,
                       bool *has, const char *name, const char *value, void *into)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(name, numbers[i].name) != 0)
            continue;
        if (has[i])
            return wrong(file, "%s is there twice", name) - 1;
        has[i] = true;
        return parse_number(file, &numbers[i], value, into) ? 1 : -1;
    }
    return 0;
}

static bool take_abilities(struct file *file, char *value)
{
    char *rest;
    for (char *word = strtok_r(value, " ", &rest); word;
         word = strtok_r(NULL, " ", &rest)) {
        const struct layout_ability *ability = layout_abilities;
        while (ability->name && strcmp(word, ability->name) != 0)
            ability++;
        if (!ability->name)
            return wrong(file, "no server has '%.32s'", word);
        file->layout.has |= ability->ability;
    }
    return true;
}

static bool take_text(struct file *file, enum text text, char *value)
{
    if (file->has_text[text])
        return wrong(file, "%s is there twice", text_names[text]);
    file->has_text[text] = true;
    if (text == TEXT_HAS)
        return take_abilities(file, value);
    if (!*value || strlen(value) >= TEXT_BYTES || strchr(value, ' '))
        return wrong(file, "'%.32s' is no %s", value, text_names[text]);
    snprintf(texts[text], TEXT_BYTES, "%s", value);
    return true;
}

static bool take_line(struct file *file, char *line)
{
    line[strcspn(line, "#\n")] = '\0';
    size_t end = strlen(line);
    while (end &&
           (line[end - 1] == ' ' || line[end - 1] == '\t' || line[end - 1] == '\r'))
        line[--end] = '\0';
    if (!end)
        return true;
    char *value = line + strcspn(line, " ");
    if (*value)
        *value++ = '\0';
    for (enum text text = 0; text < TEXTS; text++)
        if (strcmp(line, text_names[text]) == 0)
            return take_text(file, text, value);
    int taken = take_number(file, layout_numbers, COUNT(layout_numbers), file->has_layout,
                            line, value, &file->layout);
    if (!taken)
        taken = take_number(file, family_numbers, COUNT(family_numbers), file->has_family,
                            line, value, &file->family);
    return taken ? taken > 0 : wrong(file, "'%.32s' is nothing that a layout has", line);
}

/* ---- all of them ----------------------------------------------------------------- */

static bool take_lines(struct file *file)
{
    char line[LINE_BYTES];
    while (fgets(line, sizeof(line), file->stream)) {
        file->line++;
        size_t length = strlen(line);
        if (file->line > LINES_MAX ||
            (length == sizeof(line) - 1 && line[length - 1] != '\n') ||
            (!feof(file->stream) && line[length ? length - 1 : 0] != '\n'))
            return wrong(file, "this is no layout");
        if (!take_line(file, line))
            return false;
    }
    if (ferror(file->stream))
        return wrong(file, "cannot be read: %s", strerror(errno));
    file->line = 0;
    return true;
}

static bool is_complete(struct file *file)
{
    for (enum text text = 0; text < TEXTS; text++)
        if (!file->has_text[text])
            return wrong(file, "%s is missing", text_names[text]);
    for (size_t i = 0; i < COUNT(layout_numbers); i++)
        if (!file->has_layout[i])
            return wrong(file, "%s is missing", layout_numbers[i].name);
    for (size_t i = 0; i < COUNT(family_numbers); i++)
        if (!file->has_family[i])
            return wrong(file, "%s is missing", family_numbers[i].name);
    return true;
}

static bool take_family(struct file *file)
{
    const struct family *forms = family_named(texts[TEXT_FAMILY]);
    if (!forms)
        return wrong(file, "there is no family '%s'", texts[TEXT_FAMILY]);
    struct family family = *forms;
#define NUMBER(name, most) family.name = file->family.name;
    FAMILY_NUMBERS(NUMBER)
#undef NUMBER
    file->family = family;
    const char *unfit = family_unfit(&family, forms);
    return unfit ? wrong(file, "%s cannot be that in the family %s", unfit, forms->name)
                 : true;
}

static bool is_magic(const char *magic)
{
    size_t digits = strspn(magic + 6, "0123456789");
    return strlen(magic) == 9 && digits == 3 &&
           (strncmp(magic, "REDIS0", 6) == 0 || strncmp(magic, "VALKEY", 6) == 0);
}

/* One that means two things would have a wish for a part taken for one for all. */
static bool is_bit_of_its_own(unsigned bit, unsigned others)
{
    return (bit & (bit - 1)) == 0 && (bit & others) == 0;
}

/* Wishes end a word, and stand two dozen words behind the state in every server: between
 * them are offsets, an id and an address. What looks like a wish elsewhere would be a dump
 * of all for a tool that wants functions only, or the other way round. */
static bool has_place_for_request(const struct server_layout *layout)
{
    unsigned bytes = layout->client_request_bytes;
    int behind = layout->client_request - layout->client_replica_state;
    return (bytes == 2 || bytes == 4) && layout->client_request % 8u + bytes == 8 &&
           behind >= 128 && behind < 256;
}

/* What says the same twice. */
static bool agrees(struct file *file)
{
    const struct server_layout *layout = &file->layout;
    if (!is_magic(texts[TEXT_MAGIC]))
        return wrong(file, "'%s' is not what a dump begins with", texts[TEXT_MAGIC]);
    if (!(layout->has & HAS_DIRECT_TRANSFERS) != !layout->own_connection)
        return wrong(file, "direct-transfers and own_connection go together");
    if (!is_bit_of_its_own(layout->no_compression,
                           WISH_NO_DATA | WISH_NO_FUNCTIONS | layout->own_connection))
        return wrong(file, "no_compression is no bit of its own");
    if (!is_bit_of_its_own(layout->no_checksum, WISH_NO_DATA | WISH_NO_FUNCTIONS |
                                                    layout->own_connection |
                                                    layout->no_compression))
        return wrong(file, "no_checksum is no bit of its own");
    if (!(layout->has & HAS_EXPIRES_BY_NAME) != (file->family.objects != OBJECT_BARE))
        return wrong(file, "expires-by-name does not go with the family %s",
                     file->family.name);
    if (!(layout->has & HAS_CLOCKS_OF_ITS_OWN) != (layout->lru_clock != 0))
        return wrong(file, "clocks-of-its-own and lru_clock do not go together");
    if (!(layout->has & HAS_EXPIRING_PRODUCERS) != !file->family.group_nacked)
        return wrong(file, "expiring-producers and group_nacked go together");
    if (layout->report_bytes % 8 || layout->report_bytes < 40)
        return wrong(file, "report_bytes cannot be %u", layout->report_bytes);
    if (!has_place_for_request(layout))
        return wrong(file, "client_request cannot be %u", layout->client_request);
    return true;
}

const struct server_layout *layout_file_read(const char *path, char *reason,
                                             size_t reason_size)
{
    struct file file = {.path = path, .reason = reason, .reason_size = reason_size};
    file.stream = fopen(path, "re");
    bool good = file.stream != NULL;
    if (!good)
        wrong(&file, "cannot be opened: %s", strerror(errno));
    good = good && take_lines(&file);
    if (file.stream)
        fclose(file.stream);
    if (!good || !is_complete(&file) || !take_family(&file) || !agrees(&file))
        return NULL;
    family_define(&file.family);
    table = file.layout;
    table.server = texts[TEXT_SERVER];
    table.version = texts[TEXT_VERSION];
    table.magic = texts[TEXT_MAGIC];
    table.keyspace = KEYSPACE_OF_FILE;
    return &table;
}
