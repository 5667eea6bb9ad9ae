/* The walkers of every family over memory that is the input (heap.h). They may refuse it, or
 * write what they believe to have found, in bounded time and memory; reading what is not in
 * the frozen region is a crash here, as the neighbouring pages are not mapped.
 *
 * Mutations know words: an address in the heap, a small number, a table's exponents. With
 * FUZZ_SOUND in its environment every input has to be walked to its end: they are recorded. */
#include <string.h>
#include <sys/mman.h>

#include "bounds.h"
#include "heap.h"
#include "keyspace/frozen.h"
#include "keyspace/keyspace.h"
#include "keyspace/sample.h"

#define HEAD     HEAP_HEAD
#define FAMILIES (KEYSPACE_VALKEY_9_1 + 1)
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
/* Bytes that a walk has read, and READ_COST for each time. */
static uint64_t work;
static bool sound;

/* The linker puts it in the place of view_read(): what frozen.h promises of all walks of
 * what is frozen, however they read. */
int __wrap_view_read(struct view_reader *reader, void *to, frozen_address from,
                     size_t length)
{
    work += length + READ_COST;
    if (reader->view && work > HEAP_BYTES * READ_OVER + READ_WITH_LITTLE) {
        fprintf(stderr, "an input is read without end\n");
        abort();
    }
    return __real_view_read(reader, to, from, length);
}

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
    (void)in, (void)length;
    return seed[0];
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
    /* Its thread would be seen in what an input covers, now and then. */
    spool_destroy(&preserved.spool);
    sound = getenv("FUZZ_SOUND");
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count, (void)arguments;
    set_up();
    return 0;
}

/* All of it, as a save does. */
static void save(const struct keyspace_roots *roots)
{
    struct rdb_sink sink = {count};
    struct keyspace_observer observer = {.progress = go_on};
    struct rdb_encoder *encoder = rdb_encoder_create(&sink, compress);
    struct view_reader reader;
    const char *where = NULL;
    written = work = 0;
    view_reader_init(&reader, &view);
    int error = keyspace_save(roots, &reader, encoder, &observer, NULL, &where);
    if (!error)
        rdb_encoder_flush(encoder);
    rdb_encoder_destroy(encoder);
    if (sound && (error || !written)) {
        fprintf(stderr, "a sound input is refused: %s, %s\n", strerror(-error), where);
        abort();
    }
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
    samples.thorough = roots->save_idle_time;
    keyspace_sample(roots, &reader, 1, &kinds, &samples, &where);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t length)
{
    if (length < HEAD || length - HEAD > HEAP_BYTES)
        return -1;
    memset((void *)(uintptr_t)HEAP, 0, HEAP_BYTES);
    memcpy((void *)(uintptr_t)HEAP, input + HEAD, length - HEAD);
    struct keyspace_roots roots = {
        .layout = input[0] % FAMILIES,
        .databases = HEAP,
        .database_count = input[1] & HEAP_TWO_DATABASES ? 2 : 1,
        .hash = hash,
        .hash_seed = {input[1] >> HEAP_HASH_SHIFT},
        .expiring_hash_type = HEAP_EXPIRING_TYPE,
        .cluster = input[1] & HEAP_CLUSTER,
        .save_idle_time = input[1] & HEAP_IDLE_TIME,
        .save_frequency = input[1] & HEAP_FREQUENCY,
        .lfu_decay_time = 1,
    };
    save(&roots);
    if (input[1] & HEAP_LOOK)
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
