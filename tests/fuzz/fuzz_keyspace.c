/* The walkers of every family over memory that is the input. They may refuse it, or write
 * what they believe to have found, in bounded time and memory; reading what is not in the
 * frozen region is a crash here, as the neighbouring pages are not mapped.
 *
 * input   0 family · 1 switches · 2 the rest, from HEAP on, 0 to the end of the page
 *
 * Mutations know words: an address in the heap, a small number, a table's exponents. */
#include <string.h>
#include <sys/mman.h>

#include "bounds.h"
#include "keyspace/keyspace.h"
#include "keyspace/sample.h"

/* Low, so that an address is a word with few bytes. */
#define HEAP       UINT64_C(0x20000)
#define HEAP_BYTES UINT64_C(0x8000)
#define HEAD       2
#define FAMILIES   (KEYSPACE_VALKEY_9_1 + 1)
/* The most that so little memory may become, however its parts are shared. */
#define OUTPUT_MOST (16u << 20)

unsigned int lzf_compress(const void *in, unsigned int in_length, void *out,
                          unsigned int out_length);
size_t LLVMFuzzerMutate(uint8_t *data, size_t length, size_t most);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t length, size_t most, unsigned seed);

static struct preserved preserved;
static struct view view;
static struct checked_reader live;
static size_t written;

static int count(struct rdb_sink *sink, const void *bytes, size_t length)
{
    (void)sink, (void)bytes;
    written += length;
    if (written > OUTPUT_MOST)
        abort();
    return 0;
}

static int go_on(struct keyspace_observer *observer, uint64_t keys)
{
    (void)observer, (void)keys;
    return 0;
}

static size_t compress(const void *in, size_t in_length, void *out, size_t out_length)
{
    return lzf_compress(in, (unsigned)in_length, out, (unsigned)out_length);
}

static uint64_t hash(const uint8_t *in, size_t length, const uint8_t *seed)
{
    uint64_t value = seed[0];
    for (size_t i = 0; i < length; i++)
        value = value * 31 + in[i];
    return value;
}

static void set_up(void)
{
    static struct region storage[2];
    struct region_set regions;
    void *heap = mmap((void *)(uintptr_t)HEAP, HEAP_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    struct preserved_settings settings = {
        .limit = 16 << 20, .policy = BUFFER_BLOCK, .spool_directory = ""};
    regions_init(&regions, storage, 2);
    mapping_most = SIZE_MAX;
    if (heap != (void *)(uintptr_t)HEAP ||
        regions_add(&regions, HEAP, HEAP + HEAP_BYTES) != 0 ||
        preserved_create(&preserved) != 0 || view_create(&view, &preserved) != 0 ||
        view_set_regions(&view, &regions) != 0 ||
        preserved_begin(&preserved, view.chunk_count, &settings) != 0 ||
        checked_reader_open(&live) != 0) {
        perror("the heap");
        exit(1);
    }
    mapping_most = MAPPING_MOST;
}

/* All of it, as a save does. */
static void save(const struct keyspace_roots *roots)
{
    struct rdb_sink sink = {count};
    struct keyspace_observer observer = {go_on};
    struct rdb_encoder *encoder = rdb_encoder_create(&sink, compress);
    struct view_reader reader;
    const char *where = NULL;
    written = 0;
    view_reader_init(&reader, &view);
    if (keyspace_save(roots, &reader, encoder, &observer, NULL, &where) == 0)
        rdb_encoder_flush(encoder);
    rdb_encoder_destroy(encoder);
}

/* As the proof does, of memory that is not frozen. */
static void look(const struct keyspace_roots *roots)
{
    static struct keyspace_samples samples;
    static bool imported[KEYSPACE_SLOTS];
    struct keyspace_kinds kinds = {0};
    struct view_reader reader;
    const char *where;
    uint64_t keys, of_imported;
    live.allowed = UINT64_MAX;
    view_reader_init_live(&reader, &live);
    keyspace_count(roots, &reader, &keys, &of_imported);
    keyspace_imported_slots(roots, &reader, 0, imported);
    samples.imported = roots->cluster;
    keyspace_sample(roots, &reader, 1, &kinds, &samples, &where);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    static bool ready;
    if (!ready)
        set_up();
    ready = true;
    if (length < HEAD || length - HEAD > HEAP_BYTES)
        return -1;
    memset((void *)(uintptr_t)HEAP, 0, HEAP_BYTES);
    memcpy((void *)(uintptr_t)HEAP, input + HEAD, length - HEAD);
    struct keyspace_roots roots = {
        .layout = input[0] % FAMILIES,
        .databases = HEAP,
        .database_count = 1 + (input[1] & 1),
        .hash = hash,
        .expiring_hash_type = HEAP + 64,
        .cluster = input[1] & 2,
        .save_idle_time = input[1] & 4,
        .save_frequency = input[1] & 8,
        .lfu_decay_time = 1,
    };
    save(&roots);
    if (input[1] & 16)
        look(&roots);
    return 0;
}

/* ---- mutations ------------------------------------------------------------------- */

static uint64_t random_word(unsigned random, size_t length)
{
    unsigned kind = random >> 28, number = random & 0xFFFFFFF;
    if (kind < 7)
        return HEAP + number % (length + 64) / 8 * 8;
    if (kind < 9)
        return HEAP + number % (length + 64);
    if (kind < 12)
        return number % 20;
    if (kind < 13)
        return UINT64_MAX;
    if (kind < 14)
        return UINT64_C(1) << number % 64;
    return number % 12 << 4 | number / 16 % 8; /* an object's type and encoding */
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t length, size_t most, unsigned seed)
{
    unsigned state = seed * 2654435761u + 1;
    if (seed % 3 == 0 || length < HEAD + 64)
        return LLVMFuzzerMutate(data, length, most);
    for (unsigned left = 1 + seed / 3 % 3; left; left--) {
        state = state * 1664525u + 1013904223u;
        size_t at = HEAD + state / 64 % ((length - HEAD) / 8) * 8;
        state = state * 1664525u + 1013904223u;
        uint64_t word = random_word(state, length - HEAD);
        memcpy(data + at, &word, sizeof(word));
    }
    return length;
}
