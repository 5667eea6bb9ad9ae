#include "rdbfile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC_LENGTH    9 /* "REDIS0010", "VALKEY080" */
#define CHECKSUM_LENGTH 8
#define OPCODE_AUX      0xfa

struct content {
    const unsigned char *bytes;
    size_t length;
};

static struct content map_file(const char *path)
{
    struct content content = {0};
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(descriptor >= 0 && fstat(descriptor, &status) == 0, "%s: %s", path,
          strerror(errno));
    content.length = (size_t)status.st_size;
    if (content.length)
        content.bytes = mmap(NULL, content.length, PROT_READ, MAP_PRIVATE, descriptor, 0);
    close(descriptor);
    CHECK(content.bytes != MAP_FAILED, "%s: %s", path, strerror(errno));
    return content;
}

static void unmap_file(struct content content)
{
    if (content.bytes)
        munmap((void *)content.bytes, content.length);
}

void copy_file(const char *from, const char *to)
{
    struct content content = map_file(from);
    FILE *file = fopen(to, "w");
    CHECK(file && fwrite(content.bytes, 1, content.length, file) == content.length &&
              fclose(file) == 0,
          "%s: %s", to, strerror(errno));
    unmap_file(content);
}

bool files_are_equal(const char *first, const char *second)
{
    struct content a = map_file(first), b = map_file(second);
    bool equal = a.length == b.length && memcmp(a.bytes, b.bytes, a.length) == 0;
    unmap_file(a);
    unmap_file(b);
    return equal;
}

/* One string of the aux section: its whole encoding, and its text if it is
 * written as text (the names are). Returns what it takes, 0 if malformed. */
static size_t aux_string(const unsigned char *at, size_t left, struct content *text)
{
    static const size_t integer_length[] = {2, 3, 5};
    *text = (struct content){0};
    if (left < 5)
        return 0;
    size_t length = 0, header = 0;
    switch (at[0] >> 6) {
    case 0:
        length = at[0] & 63, header = 1;
        break;
    case 1:
        length = (size_t)(at[0] & 63) << 8 | at[1], header = 2;
        break;
    case 3:
        return (at[0] & 63) < 3 ? integer_length[at[0] & 63] : 0;
    default:
        return 0;
    }
    *text = (struct content){at + header, length};
    return header + length <= left ? header + length : 0;
}

/* The aux field at `at`: its name, and what name and value take together. */
static size_t aux_field(const unsigned char *at, size_t left, struct content *name,
                        size_t *name_length)
{
    struct content value;
    if (left < 1 || at[0] != OPCODE_AUX)
        return 0;
    *name_length = aux_string(at + 1, left - 1, name);
    if (!*name_length)
        return 0;
    size_t value_length =
        aux_string(at + 1 + *name_length, left - 1 - *name_length, &value);
    return value_length ? 1 + *name_length + value_length : 0;
}

static bool is_volatile(struct content name)
{
    static const char *const volatile_fields[] = {"ctime", "used-mem"};
    for (int i = 0; i < 2; i++)
        if (name.length == strlen(volatile_fields[i]) &&
            memcmp(name.bytes, volatile_fields[i], name.length) == 0)
            return true;
    return false;
}

/* Steps over both aux sections, which may differ in length where a volatile
 * value does. */
static const char *aux_difference(struct content a, struct content b, size_t *at_a,
                                  size_t *at_b)
{
    for (;;) {
        struct content name_a, name_b;
        size_t name_length_a, name_length_b;
        size_t field_a =
            aux_field(a.bytes + *at_a, a.length - *at_a, &name_a, &name_length_a);
        size_t field_b =
            aux_field(b.bytes + *at_b, b.length - *at_b, &name_b, &name_length_b);
        if (!field_a && !field_b)
            return NULL;
        if (!field_a || !field_b || name_length_a != name_length_b ||
            memcmp(a.bytes + *at_a, b.bytes + *at_b, 1 + name_length_a) != 0)
            return format_text("aux fields differ at offsets %zu and %zu", *at_a, *at_b);
        if (!is_volatile(name_a) &&
            (field_a != field_b ||
             memcmp(a.bytes + *at_a, b.bytes + *at_b, field_a) != 0))
            return format_text("aux field %.*s differs", (int)name_a.length,
                               name_a.bytes);
        *at_a += field_a;
        *at_b += field_b;
    }
}

static const char *body_difference(struct content a, struct content b, size_t at_a,
                                   size_t at_b)
{
    size_t left_a = a.length - at_a - CHECKSUM_LENGTH;
    size_t left_b = b.length - at_b - CHECKSUM_LENGTH;
    size_t same = 0;
    while (same < left_a && same < left_b && a.bytes[at_a + same] == b.bytes[at_b + same])
        same++;
    if (same == left_a && same == left_b)
        return NULL;
    size_t from = same < 16 ? 0 : same - 16;
    char *text = format_text("bodies of %zu and %zu bytes differ at offset %zu:", left_a,
                             left_b, at_a + same);
    for (size_t i = from; i < same + 16 && i < left_a && i < left_b; i++)
        text = format_text("%s %02x/%02x", text, a.bytes[at_a + i], b.bytes[at_b + i]);
    return text;
}

const char *rdb_difference(const char *first, const char *second)
{
    struct content a = map_file(first), b = map_file(second);
    const size_t smallest = MAGIC_LENGTH + 1 + CHECKSUM_LENGTH;
    size_t at_a = MAGIC_LENGTH, at_b = MAGIC_LENGTH;
    const char *difference = NULL;
    if (a.length < smallest || b.length < smallest)
        difference = "a file is too short";
    else if (memcmp(a.bytes, b.bytes, MAGIC_LENGTH) != 0)
        difference = "the magic words differ";
    else
        difference = aux_difference(a, b, &at_a, &at_b);
    if (!difference)
        difference = body_difference(a, b, at_a, at_b);
    /* A checksum of zero means that there is none: both or neither. */
    static const unsigned char none[CHECKSUM_LENGTH];
    if (!difference &&
        (memcmp(a.bytes + a.length - CHECKSUM_LENGTH, none, CHECKSUM_LENGTH) == 0) !=
            (memcmp(b.bytes + b.length - CHECKSUM_LENGTH, none, CHECKSUM_LENGTH) == 0))
        difference = "only one file has a checksum";
    unmap_file(a);
    unmap_file(b);
    return difference;
}

/* Behind the aux fields it begins with. */
static size_t first_behind_aux(struct content content)
{
    size_t at = MAGIC_LENGTH, field, name_length;
    struct content name;
    while (
        (field = aux_field(content.bytes + at, content.length - at, &name, &name_length)))
        at += field;
    return at;
}

const char *rdb_keys_difference(const char *first, const char *second)
{
    struct content a = map_file(first), b = map_file(second);
    const size_t smallest = MAGIC_LENGTH + 1 + CHECKSUM_LENGTH;
    const char *difference =
        a.length < smallest || b.length < smallest    ? "a file is too short"
        : memcmp(a.bytes, b.bytes, MAGIC_LENGTH) != 0 ? "the magic words differ"
                                                      : NULL;
    if (!difference)
        difference = body_difference(a, b, first_behind_aux(a), first_behind_aux(b));
    unmap_file(a);
    unmap_file(b);
    return difference;
}

void check_dump(const char *path, bool has_checksum)
{
    const char *command = getenv("CHECK_COMMAND");
    const char *words[32];
    int count = 0;
    char *text = strdup(command && *command ? command : "redis-check-rdb");
    for (char *word = strtok(text, " "); word && count < 30; word = strtok(NULL, " "))
        words[count++] = word;
    words[count++] = path;
    words[count] = NULL;
    char *output = format_text("%s/check-output", test_directory());
    unlink(output);
    int code = run_program(output, words);
    char *find = format_text("grep -qi 'checksum ok' '%s'", output);
    bool checksum_ok = system(find) == 0;
    CHECK(code == 0, "%s refuses %s with code %d (see %s)", words[0], path, code, output);
    CHECK(!has_checksum || checksum_ok, "the checksum of %s was not found right", path);
}

const char *dump_digest(const char *path, const char *config)
{
    char *directory = format_text("%s/loader", test_directory());
    CHECK(mkdir(directory, 0755) == 0 || errno == EEXIST, "%s", strerror(errno));
    copy_file(path, format_text("%s/dump.rdb", directory));
    unlink(format_text("%s/log", directory));
    struct server *loader = server_try_start(
        &(struct server_options){
            .config = config, .directory = directory, .without_module = true},
        NULL);
    if (!loader)
        return NULL;
    const char *digest = server_digest(loader);
    server_stop(loader);
    return digest;
}
