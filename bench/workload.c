#include "workload.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEMPLATES = 256, /* values prepared ahead, so that making one costs a memcpy */
    KEYS_PER_STRUCTURE = 100, /* INCR, LPUSH and HSET keys are fewer by this factor */
    HASH_FIELDS = 64,
    PATCH_SIZE = 8,
    COMMAND_OVERHEAD = 160,
};

static const char *const command_names[COMMANDS] = {"SET",   "GET",  "INCR",
                                                    "LPUSH", "HSET", "SETRANGE"};

/* Gray et al., "Quickly generating billion-record synthetic databases": constants of the inverse for theta. */
struct zipf {
    double theta, alpha, zeta, eta;
};

struct workload {
    struct workload_options options;
    unsigned weight_total;
    struct zipf zipf;
    uint64_t random_state;
    char *templates;
};

static uint64_t random_next(struct workload *workload)
{
    uint64_t z = workload->random_state += 0x9e3779b97f4a7c15ull; /* splitmix64 */
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t random_below(struct workload *workload, uint64_t limit)
{
    return (uint64_t)(((__uint128_t)random_next(workload) * limit) >> 64);
}

static void zipf_prepare(struct zipf *zipf, uint64_t keys)
{
    zipf->theta = 0.99;
    zipf->alpha = 1.0 / (1.0 - zipf->theta);
    zipf->zeta = 0;
    for (uint64_t rank = 1; rank <= keys; rank++)
        zipf->zeta += pow((double)rank, -zipf->theta);
    double zeta_of_two = 1.0 + pow(0.5, zipf->theta);
    zipf->eta = (1.0 - pow(2.0 / (double)keys, 1.0 - zipf->theta)) /
                (1.0 - zeta_of_two / zipf->zeta);
}

/* Ranks are spread over the key numbers by a prime: neighbouring numbers were allocated side by side, and popular keys
 * of a real dataset are not. */
static uint64_t zipf_key(struct workload *workload)
{
    const struct zipf *zipf = &workload->zipf;
    uint64_t keys = workload->options.keys, rank;
    double u = (double)(random_next(workload) >> 11) * 0x1p-53;
    double scaled = u * zipf->zeta;
    if (scaled < 1.0)
        rank = 0;
    else if (scaled < 1.0 + pow(0.5, zipf->theta))
        rank = 1;
    else
        rank =
            (uint64_t)((double)keys * pow(zipf->eta * u - zipf->eta + 1.0, zipf->alpha));
    if (rank >= keys)
        rank = keys - 1;
    return (uint64_t)(((__uint128_t)rank * 2654435761u + 12345) % keys);
}

static uint64_t pick_key(struct workload *workload)
{
    if (workload->options.distribution == DISTRIBUTION_ZIPF)
        return zipf_key(workload);
    return random_below(workload, workload->options.keys);
}

static void make_text(struct workload *workload, char *out, size_t size)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < size; i++)
        out[i] = alphabet[random_next(workload) & 63];
}

static size_t make_json_field(struct workload *workload, char *out, size_t room)
{
    static const char *const names[] = {"id",       "name",    "email",  "city",
                                        "street",   "created", "status", "total",
                                        "currency", "product", "tags",   "comment"};
    static const char *const words[] = {
        "amber",  "basalt", "copper", "delta",   "ember", "fjord",  "garnet", "harbor",
        "indigo", "jasper", "kelp",   "lantern", "maple", "nectar", "onyx",   "pebble"};
    const char *name = names[random_below(workload, sizeof names / sizeof *names)];
    int length;
    if (random_next(workload) & 1) {
        length = snprintf(out, room, "\"%s\":%llu,", name,
                          (unsigned long long)random_below(workload, 100000000));
    } else {
        const char *first = words[random_below(workload, 16)],
                   *second = words[random_below(workload, 16)];
        length = snprintf(out, room, "\"%s\":\"%s %s %u\",", name, first, second,
                          (unsigned)random_below(workload, 1000));
    }
    return (size_t)length < room ? (size_t)length : 0;
}

static void make_json(struct workload *workload, char *out, size_t size)
{
    memset(out, ' ', size);
    if (size < 2)
        return;
    size_t used = 1, length;
    char field[128];
    while (used + sizeof field < size &&
           (length = make_json_field(workload, field, sizeof field)) > 0) {
        memcpy(out + used, field, length);
        used += length;
    }
    make_text(workload, out + used, size - used);
    out[0] = '{';
    out[size - 1] = '}';
}

static void make_templates(struct workload *workload)
{
    size_t size = workload->options.value_size;
    for (unsigned i = 0; i < TEMPLATES; i++) {
        char *value = workload->templates + i * size;
        if (workload->options.value_kind == VALUE_JSON)
            make_json(workload, value, size);
        else
            make_text(workload, value, size);
    }
}

int workload_parse_mix(const char *text, unsigned weight[COMMANDS])
{
    static const char *const names[COMMANDS] = {"set",   "get",  "incr",
                                                "lpush", "hset", "setrange"};
    memset(weight, 0, COMMANDS * sizeof *weight);
    unsigned total = 0;
    while (*text) {
        int command, length = 0;
        char name[12];
        unsigned share;
        if (sscanf(text, "%11[a-z]=%u%n", name, &share, &length) != 2 || share > 1000)
            return -EINVAL;
        for (command = 0; command < COMMANDS && strcmp(name, names[command]) != 0;)
            command++;
        if (command == COMMANDS)
            return -EINVAL;
        weight[command] = share;
        total += share;
        text += length;
        if (*text == ',')
            text++;
    }
    return total ? 0 : -EINVAL;
}

struct workload *workload_create(const struct workload_options *options)
{
    struct workload *workload = calloc(1, sizeof *workload);
    if (!workload)
        return NULL;
    workload->options = *options;
    workload->random_state = options->seed;
    for (int i = 0; i < COMMANDS; i++)
        workload->weight_total += options->weight[i];
    workload->templates = malloc(TEMPLATES * options->value_size + 1);
    if (!workload->templates) {
        free(workload);
        return NULL;
    }
    make_templates(workload);
    if (options->distribution == DISTRIBUTION_ZIPF)
        zipf_prepare(&workload->zipf, options->keys);
    return workload;
}

void workload_destroy(struct workload *workload)
{
    free(workload->templates);
    free(workload);
}

size_t workload_command_size(const struct workload *workload)
{
    return workload->options.value_size + COMMAND_OVERHEAD;
}

static char *put_number(char *out, uint64_t number)
{
    char digits[20];
    int count = 0;
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        *out++ = digits[--count];
    return out;
}

static char *put_header(char *out, char mark, uint64_t number)
{
    *out++ = mark;
    out = put_number(out, number);
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

static char *put_bulk(char *out, const char *bytes, size_t length)
{
    out = put_header(out, '$', length);
    memcpy(out, bytes, length);
    out += length;
    *out++ = '\r';
    *out++ = '\n';
    return out;
}

static char *put_numbered(char *out, const char *prefix, uint64_t number)
{
    char text[48];
    size_t length = strlen(prefix);
    memcpy(text, prefix, length);
    return put_bulk(out, text, (size_t)(put_number(text + length, number) - text));
}

static char *put_value(struct workload *workload, char *out)
{
    size_t size = workload->options.value_size;
    return put_bulk(out, workload->templates + random_below(workload, TEMPLATES) * size,
                    size);
}

static char *put_command(char *out, enum command command, unsigned arguments)
{
    out = put_header(out, '*', arguments);
    return put_bulk(out, command_names[command], strlen(command_names[command]));
}

static enum command pick_command(struct workload *workload)
{
    uint64_t ticket = random_below(workload, workload->weight_total);
    int command = 0;
    while (ticket >= workload->options.weight[command])
        ticket -= workload->options.weight[command++];
    return (enum command)command;
}

size_t workload_fill(struct workload *workload, uint64_t number, char *out)
{
    char *end = put_command(out, COMMAND_SET, 3);
    end = put_numbered(end, "key:", number);
    return (size_t)(put_value(workload, end) - out);
}

size_t workload_next(struct workload *workload, char *out)
{
    enum command command = pick_command(workload);
    uint64_t key = pick_key(workload);
    char *end = out;
    switch (command) {
    case COMMAND_SET:
        return workload_fill(workload, key, out);
    case COMMAND_GET:
        end = put_numbered(put_command(end, command, 2), "key:", key);
        break;
    case COMMAND_INCR:
        end = put_numbered(put_command(end, command, 2),
                           "counter:", key / KEYS_PER_STRUCTURE);
        break;
    case COMMAND_LPUSH:
        end =
            put_numbered(put_command(end, command, 3), "list:", key / KEYS_PER_STRUCTURE);
        end = put_value(workload, end);
        break;
    case COMMAND_HSET:
        end =
            put_numbered(put_command(end, command, 4), "hash:", key / KEYS_PER_STRUCTURE);
        end = put_numbered(end, "field:", random_below(workload, HASH_FIELDS));
        end = put_value(workload, end);
        break;
    case COMMAND_SETRANGE:
        end = put_numbered(put_command(end, command, 4), "key:", key);
        end = put_bulk(end, "0", 1);
        end = put_bulk(end, "{\"id\":12", PATCH_SIZE);
        break;
    case COMMANDS:
        break;
    }
    return (size_t)(end - out);
}
