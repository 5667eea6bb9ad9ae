/* A table of settings that is not as any server has it: words that point to names, to
 * variables, to where a segment ends, or anywhere. Whatever is found lies where the server's
 * variables may be, and nothing is read beside the server's segments.
 *
 * input   for each word of the table: 0 of what kind · 1 which */
#include <link.h>
#include <stdbool.h>
#include <string.h>

#include "bounds.h"
#include "host/config_table.h"

#define WORDS      96
#define WORD_BYTES 9
#define WANTED     3

static const char names[WANTED][16] = {"rdbcompression", "dbfilename", "cluster-enabled"};
static int variables[4];
static uintptr_t ends[16];
static size_t end_count;

/* The sanitizer would make it longer than it says. */
__attribute__((visibility("default"), no_sanitize("address")))
uintptr_t static_configs[WORDS];

static int take_ends(struct dl_phdr_info *info, size_t size, void *context)
{
    (void)size, (void)context;
    for (int i = 0; i < info->dlpi_phnum && end_count < 16; i++)
        if (info->dlpi_phdr[i].p_type == PT_LOAD)
            ends[end_count++] =
                info->dlpi_addr + info->dlpi_phdr[i].p_vaddr + info->dlpi_phdr[i].p_memsz;
    return 1;
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    dl_iterate_phdr(take_ends, NULL);
    return 0;
}

static uintptr_t word_of(const uint8_t *bytes)
{
    uint64_t number;
    memcpy(&number, bytes + 1, sizeof(number));
    switch (bytes[0] % 6) {
    case 0:
        return (uintptr_t)names[number % WANTED];
    case 1:
        return (uintptr_t)names[0] + number % sizeof(names);
    case 2:
        return (uintptr_t)&variables[number % 4];
    case 3:
        return ends[number % end_count] - number / 16 % 32;
    case 4:
        return number % 4096;
    default:
        return number;
    }
}

static bool is_inside(const void *found)
{
    uintptr_t address = (uintptr_t)found;
    return found && address % sizeof(int) == 0 && address < ends[end_count - 1];
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    const void *found[WANTED] = {NULL, NULL, NULL};
    struct config_variable wanted[WANTED];
    size_t count = length / WORD_BYTES;
    memset(static_configs, 0, sizeof(static_configs));
    for (size_t i = 0; i < WORDS && i < count; i++)
        static_configs[i] = word_of(input + i * WORD_BYTES);
    for (size_t i = 0; i < WANTED; i++)
        wanted[i] = (struct config_variable){names[i], &found[i]};
    bool all = !config_table_find(wanted, WANTED);
    for (size_t i = 0; i < WANTED; i++)
        if (all ? !is_inside(found[i]) : found[i] != NULL)
            abort();
    return 0;
}
