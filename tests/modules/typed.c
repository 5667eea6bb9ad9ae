/* A module for the tests, with data types of its own whose values and aux fields only it
 * can save. The API is reached by name, as in module/server_api.h.
 *
 *   TYPED.SET key text, TYPED.GET key    typedtext: a text, in libc's memory
 *   TYPED.BLOB key bytes seed            typedblob: bytes, which may be those of other
 *   TYPED.SHARE key other                values too
 *   TYPED.ADD key member                 typedtree: a tree of nodes, each with a text
 *   TYPED.CHANGE key seed                some of any of these changes, in place if it can
 *   TYPED.POPULATE count prefix bytes seed
 *                                        so many keys, of each type one in three
 *   TYPED.NOTE [text]                    what aux fields hold, in the server's memory
 *   TYPED.MEMO bytes seed                the same, so long, in place if it was so long
 *   TYPED.MOOD mood [aux]                what callbacks that save do besides: nothing,
 *                                        crash, hang, eat, api, lock
 *
 * Loaded with "untyped" it has a command and no type; with "plain" its types have no aux
 * fields; with "sparing" they have (since 7.2) if there is a note, and nothing is written
 * if there is none. With "hidden" they have none either, and the function that sets values
 * is called through a pointer on the heap; with "secret" that is the only one. */
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct context context;
typedef struct string string;
typedef struct key key;
typedef struct io io;
typedef struct type type;
typedef struct digest digest;

/* As the server reads it, in version 5. */
struct type_methods {
    uint64_t version;
    void *(*load)(io *, int encoding_version);
    void (*save)(io *, void *value);
    void (*rewrite)(io *, string *name, void *value);
    size_t (*memory)(const void *value);
    void (*digest)(digest *, void *value);
    void (*free)(void *value);
    int (*aux_load)(io *, int encoding_version, int when);
    void (*aux_save)(io *, int when);
    int aux_save_triggers;
    size_t (*free_effort)(string *name, const void *value);
    void (*unlink)(string *name, const void *value);
    void *(*copy)(string *from, string *to, const void *value);
    int (*defrag)(void *, string *name, void **value);
    void *context_callbacks[4];
    void (*aux_save_2)(io *, int when);
};

#define AUX_BEFORE_AND_AFTER 3
#define READ_AND_WRITE       3
#define AUX_NUMBER           4711

static int (*get_api)(const char *name, void *function);
static void (*set_attributes)(context *, const char *name, int version, int api);
static int (*create_command)(context *, const char *name,
                             int (*)(context *, string **, int), const char *flags, int,
                             int, int);
static type *(*create_type)(context *, const char *name, int version, void *methods);
static key *(*open_key)(context *, string *name, int mode);
static void (*close_key)(key *);
#ifndef set_value
static
#endif
    int (*set_value)(key *, type *, void *value);
static void *(*get_value)(key *);
static int (**setter)(key *, type *, void *value) = &set_value;
static type *(*type_of)(key *);
static string *(*create_string)(context *, const char *, size_t);
static void (*free_string)(context *, string *);
static const char *(*text_of)(const string *, size_t *length);
static int (*number_of)(const string *, long long *);
static int (*reply_text)(context *, const char *text);
static int (*reply_error)(context *, const char *text);
static int (*reply_null)(context *);
static int (*wrong_arity)(context *);
static int (*replicate)(context *);
static void (*save_text)(io *, const char *text, size_t length);
static char *(*load_text)(io *, size_t *length);
static void (*save_number)(io *, uint64_t);
static uint64_t (*load_number)(io *);
static void (*save_signed)(io *, int64_t);
static int64_t (*load_signed)(io *);
static void (*save_double)(io *, double);
static double (*load_double)(io *);
static const string *(*key_name)(io *);
static context *(*context_of)(io *);
static void (*log_line)(context *, const char *level, const char *format, ...);
static void (*emit)(io *, const char *command, const char *format, ...);
static void (*digest_text)(digest *, const char *text, size_t length);
static void (*digest_number)(digest *, long long);
static void (*digest_end)(digest *);
static void *(*take)(size_t bytes);
static void (*give)(void *);

static type *text_type, *blob_type, *tree_type;

/* ---- moods ----------------------------------------------------------------------- */

static char mood[16], aux_mood[16];
static char *note; /* what aux fields hold, NULL: nothing */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Has the lock nine tenths of the time. */
static void *lock_often(void *unused)
{
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&lock);
        usleep(900);
        pthread_mutex_unlock(&lock);
        usleep(100);
    }
    return NULL;
}

static void eat(void)
{
    for (;;) {
        char *piece = take(1 << 20);
        memset(piece, 1, 1 << 20);
    }
}

static void use_api(io *to)
{
    const string *name = key_name(to);
    size_t length = 0;
    const char *text = name ? text_of(name, &length) : "none";
    char *piece = take(100000);
    memset(piece, 1, 100000);
    string *made = create_string(context_of(to), text, length);
    log_line(context_of(to), "notice", "typed: saving %.*s", (int)length, text);
    free_string(context_of(to), made);
    give(piece);
}

static void behave(io *to, const char *how)
{
    static int *volatile nowhere;
    if (strcmp(how, "crash") == 0)
        *nowhere = 1;
    while (strcmp(how, "hang") == 0)
        pause();
    if (strcmp(how, "eat") == 0)
        eat();
    if (strcmp(how, "api") == 0)
        use_api(to);
    if (strcmp(how, "lock") == 0) {
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
}

static uint64_t mix(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9u;
    value = (value ^ (value >> 27)) * 0x94D049BB133111EBu;
    return value ^ (value >> 31);
}

static void write_bytes(char *bytes, size_t length, uint64_t seed)
{
    for (size_t i = 0; i < length; i++)
        bytes[i] = (char)('a' + mix(seed + i / 7) % 26);
}

/* ---- texts ----------------------------------------------------------------------- */

/* By the malloc() that goes with this module's free(): strdup() may use another one. */
static char *duplicate(const char *text, size_t length)
{
    char *copy = malloc(length + 1);
    memcpy(copy, text, length);
    copy[length] = '\0';
    return copy;
}

static void *load(io *from, int version)
{
    (void)version;
    size_t length;
    char *loaded = load_text(from, &length);
    char *text = loaded ? duplicate(loaded, length) : NULL;
    give(loaded);
    return text;
}

static void save(io *to, void *value)
{
    behave(to, mood);
    save_text(to, value, strlen(value));
}

static void rewrite(io *to, string *name, void *value)
{
    emit(to, "typed.set", "sc", name, value);
}

static void digest_of_text(digest *to, void *value)
{
    digest_text(to, value, strlen(value));
    digest_end(to);
}

static void *copy_text(string *from, string *to, const void *value)
{
    (void)from, (void)to;
    return duplicate(value, strlen(value));
}

/* ---- blobs ----------------------------------------------------------------------- */

/* What values of this type point to: one may be that of many. */
struct blob {
    int users; /* atomically: values are freed by any thread */
    size_t length;
    char bytes[];
};

static struct blob *new_blob(size_t length)
{
    struct blob *blob = take(sizeof(*blob) + length);
    blob->users = 1;
    blob->length = length;
    return blob;
}

static void free_blob(void *value)
{
    struct blob *blob = value;
    if (__atomic_sub_fetch(&blob->users, 1, __ATOMIC_ACQ_REL) == 0)
        give(blob);
}

static void *load_blob(io *from, int version)
{
    (void)version;
    size_t length;
    char *loaded = load_text(from, &length);
    struct blob *blob = loaded ? new_blob(length) : NULL;
    if (blob)
        memcpy(blob->bytes, loaded, length);
    give(loaded);
    return blob;
}

static void save_blob(io *to, void *value)
{
    const struct blob *blob = value;
    behave(to, mood);
    save_text(to, blob->bytes, blob->length);
}

static void rewrite_blob(io *to, string *name, void *value)
{
    const struct blob *blob = value;
    emit(to, "typed.bytes", "sb", name, blob->bytes, blob->length);
}

static void digest_of_blob(digest *to, void *value)
{
    const struct blob *blob = value;
    digest_text(to, blob->bytes, blob->length);
    digest_end(to);
}

static void *copy_blob(string *from, string *to, const void *value)
{
    (void)from, (void)to;
    struct blob *blob = (struct blob *)(uintptr_t)value;
    __atomic_add_fetch(&blob->users, 1, __ATOMIC_ACQ_REL);
    return blob;
}

/* ---- trees ----------------------------------------------------------------------- */

struct node {
    struct node *below[2];
    char *member; /* of its own memory, with a final 0 */
    int64_t number;
    double score;
};

struct tree {
    struct node *root;
    uint64_t count;
};

static uint64_t hash_of(const char *text)
{
    uint64_t hash = 5381;
    while (*text)
        hash = hash * 33 + (unsigned char)*text++;
    return mix(hash);
}

static struct node **place_of(struct tree *tree, const char *member)
{
    struct node **place = &tree->root;
    uint64_t hash = hash_of(member);
    for (; *place && strcmp((*place)->member, member) != 0; hash = mix(hash + 1))
        place = &(*place)->below[hash & 1];
    return place;
}

static struct node *add_member(struct tree *tree, const char *member)
{
    struct node **place = place_of(tree, member);
    if (*place)
        return *place;
    size_t length = strlen(member);
    struct node *node = take(sizeof(*node));
    *node = (struct node){.member = take(length + 1)};
    memcpy(node->member, member, length + 1);
    tree->count++;
    return *place = node;
}

static struct tree *new_tree(void)
{
    struct tree *tree = take(sizeof(*tree));
    *tree = (struct tree){0};
    return tree;
}

static void each_node(struct node *node, void (*visit)(struct node *, void *), void *data)
{
    if (!node)
        return;
    struct node *below[] = {node->below[0], node->below[1]};
    each_node(below[0], visit, data);
    visit(node, data);
    each_node(below[1], visit, data);
}

static void free_node(struct node *node, void *unused)
{
    (void)unused;
    give(node->member);
    give(node);
}

static void free_tree(void *value)
{
    struct tree *tree = value;
    each_node(tree->root, free_node, NULL);
    give(tree);
}

static void save_node(struct node *node, void *to)
{
    save_text(to, node->member, strlen(node->member));
    save_signed(to, node->number);
    save_double(to, node->score);
}

static void save_tree(io *to, void *value)
{
    struct tree *tree = value;
    behave(to, mood);
    save_number(to, tree->count);
    each_node(tree->root, save_node, to);
}

static void *load_tree(io *from, int version)
{
    (void)version;
    struct tree *tree = new_tree();
    for (uint64_t left = load_number(from); left; left--) {
        size_t length;
        char *loaded = load_text(from, &length), *member = duplicate(loaded, length);
        struct node *node = add_member(tree, member);
        node->number = load_signed(from);
        node->score = load_double(from);
        free(member);
        give(loaded);
    }
    return tree;
}

struct rewriting {
    io *to;
    string *name;
};

static void rewrite_node(struct node *node, void *data)
{
    const struct rewriting *rewriting = data;
    emit(rewriting->to, "typed.add", "scl", rewriting->name, node->member,
         (long long)node->number);
}

static void rewrite_tree(io *to, string *name, void *value)
{
    struct rewriting rewriting = {to, name};
    each_node(((struct tree *)value)->root, rewrite_node, &rewriting);
}

/* The same in whatever order they came. */
static void digest_node(struct node *node, void *to)
{
    digest_text(to, node->member, strlen(node->member));
    digest_number(to, node->number);
    digest_end(to);
}

static void digest_of_tree(digest *to, void *value)
{
    each_node(((struct tree *)value)->root, digest_node, to);
}

static void copy_node(struct node *node, void *tree)
{
    struct node *copy = add_member(tree, node->member);
    copy->number = node->number;
    copy->score = node->score;
}

static void *copy_tree(string *from, string *to, const void *value)
{
    (void)from, (void)to;
    struct tree *copy = new_tree();
    each_node(((const struct tree *)value)->root, copy_node, copy);
    return copy;
}

/* ---- aux fields ------------------------------------------------------------------ */

static const char *text_of_note(void)
{
    return note ? note : "";
}

static char *room_for_note(size_t length)
{
    if (note && strlen(note) == length)
        return note;
    give(note);
    note = take(length + 1);
    note[length] = '\0';
    return note;
}

/* What is to be before the keys must be there, and the other after them. */
static int load_aux(io *from, int version, int when)
{
    (void)version;
    size_t length;
    if (load_number(from) != AUX_NUMBER + (uint64_t)when)
        return 1;
    char *loaded = load_text(from, &length);
    memcpy(room_for_note(length), loaded, length);
    give(loaded);
    return 0;
}

static void save_aux(io *to, int when)
{
    behave(to, aux_mood);
    save_number(to, AUX_NUMBER + (uint64_t)when);
    save_text(to, text_of_note(), strlen(text_of_note()));
}

static void save_aux_sparingly(io *to, int when)
{
    if (*text_of_note())
        save_aux(to, when);
    else
        behave(to, aux_mood);
}

/* ---- commands -------------------------------------------------------------------- */

static int done(context *caller)
{
    replicate(caller);
    return reply_text(caller, "OK");
}

static void put(context *caller, string *name, type *of, void *value)
{
    key *opened = open_key(caller, name, READ_AND_WRITE);
    (*setter)(opened, of, value);
    close_key(opened);
}

static int set(context *caller, string **arguments, int count)
{
    if (count != 3)
        return wrong_arity(caller);
    size_t length;
    const char *text = text_of(arguments[2], &length);
    put(caller, arguments[1], text_type, duplicate(text, length));
    return done(caller);
}

static int get(context *caller, string **arguments, int count)
{
    if (count != 2)
        return wrong_arity(caller);
    key *opened = open_key(caller, arguments[1], 1);
    const char *value = opened ? get_value(opened) : NULL;
    int result = value ? reply_text(caller, value) : reply_null(caller);
    if (opened)
        close_key(opened);
    return result;
}

static int bytes(context *caller, string **arguments, int count)
{
    if (count != 3)
        return wrong_arity(caller);
    size_t length;
    const char *text = text_of(arguments[2], &length);
    struct blob *blob = new_blob(length);
    memcpy(blob->bytes, text, length);
    put(caller, arguments[1], blob_type, blob);
    return done(caller);
}

static struct blob *made_up_blob(size_t length, uint64_t seed)
{
    struct blob *blob = new_blob(length);
    write_bytes(blob->bytes, length, seed);
    return blob;
}

static int make_blob(context *caller, string **arguments, int count)
{
    long long length, seed;
    if (count != 4 || number_of(arguments[2], &length) || number_of(arguments[3], &seed))
        return wrong_arity(caller);
    put(caller, arguments[1], blob_type, made_up_blob((size_t)length, (uint64_t)seed));
    return done(caller);
}

/* The value at the key if it is of this type, else NULL. */
static void *value_at(context *caller, string *name, type *of)
{
    key *opened = open_key(caller, name, READ_AND_WRITE);
    void *value = type_of(opened) == of ? get_value(opened) : NULL;
    close_key(opened);
    return value;
}

static int share(context *caller, string **arguments, int count)
{
    if (count != 3)
        return wrong_arity(caller);
    struct blob *blob = value_at(caller, arguments[2], blob_type);
    if (!blob)
        return reply_error(caller, "ERR no blob there");
    put(caller, arguments[1], blob_type, copy_blob(NULL, NULL, blob));
    return done(caller);
}

static int add(context *caller, string **arguments, int count)
{
    long long number = 0;
    if (count < 3 || (count > 3 && number_of(arguments[3], &number)))
        return wrong_arity(caller);
    size_t length;
    struct tree *tree = value_at(caller, arguments[1], tree_type);
    if (!tree)
        put(caller, arguments[1], tree_type, tree = new_tree());
    struct node *node = add_member(tree, text_of(arguments[2], &length));
    node->number = number;
    node->score = (double)number / 3;
    return done(caller);
}

static void change_blob(context *caller, string *name, struct blob *blob, uint64_t seed)
{
    if (__atomic_load_n(&blob->users, __ATOMIC_ACQUIRE) > 1) {
        struct blob *own = new_blob(blob->length);
        memcpy(own->bytes, blob->bytes, blob->length);
        put(caller, name, blob_type, blob = own);
    }
    if (blob->length)
        write_bytes(blob->bytes + mix(seed) % blob->length, 1, seed);
}

static void change_node(struct node *node, void *seed)
{
    uint64_t drawn = mix(*(uint64_t *)seed + hash_of(node->member));
    if (drawn % 16)
        return;
    node->number = (int64_t)(drawn >> 16);
    node->score = (double)node->number / 3;
}

static void change_tree(struct tree *tree, uint64_t seed)
{
    char member[32];
    snprintf(member, sizeof member, "member-%llu",
             (unsigned long long)(mix(seed) % (tree->count * 2 + 8)));
    add_member(tree, member)->number = (int64_t)seed;
    each_node(tree->root, change_node, &seed);
}

static int change(context *caller, string **arguments, int count)
{
    long long seed;
    if (count != 3 || number_of(arguments[2], &seed))
        return wrong_arity(caller);
    char *text = value_at(caller, arguments[1], text_type);
    struct blob *blob = value_at(caller, arguments[1], blob_type);
    struct tree *tree = value_at(caller, arguments[1], tree_type);
    if (text && *text)
        write_bytes(text + mix((uint64_t)seed) % strlen(text), 1, (uint64_t)seed);
    if (blob)
        change_blob(caller, arguments[1], blob, (uint64_t)seed);
    if (tree)
        change_tree(tree, (uint64_t)seed);
    return done(caller);
}

static void put_made_up(context *caller, string *name, uint64_t number, size_t length,
                        uint64_t seed)
{
    if (number % 3 == 0) {
        char *text = calloc(1, length + 1);
        write_bytes(text, length, seed + number);
        put(caller, name, text_type, text);
    } else if (number % 3 == 1) {
        put(caller, name, blob_type, made_up_blob(length, seed + number));
    } else {
        struct tree *tree = new_tree();
        for (size_t i = 0; i * 100 <= length; i++)
            change_tree(tree, seed + number + i);
        put(caller, name, tree_type, tree);
    }
}

static int populate(context *caller, string **arguments, int count)
{
    long long keys, length, seed;
    size_t prefix_length;
    if (count != 5 || number_of(arguments[1], &keys) ||
        number_of(arguments[3], &length) || number_of(arguments[4], &seed))
        return wrong_arity(caller);
    const char *prefix = text_of(arguments[2], &prefix_length);
    for (long long i = 0; i < keys; i++) {
        char text[128];
        int written = snprintf(text, sizeof text, "%.90s:%lld", prefix, i);
        string *name = create_string(caller, text, (size_t)written);
        put_made_up(caller, name, (uint64_t)i, (size_t)length, (uint64_t)seed);
        free_string(caller, name);
    }
    return done(caller);
}

static int ask_note(context *caller, string **arguments, int count)
{
    size_t length;
    if (count > 1) {
        const char *text = text_of(arguments[1], &length);
        memcpy(room_for_note(length), text, length);
        return done(caller);
    }
    return reply_text(caller, text_of_note());
}

static int make_memo(context *caller, string **arguments, int count)
{
    long long length, seed;
    if (count != 3 || number_of(arguments[1], &length) || number_of(arguments[2], &seed))
        return wrong_arity(caller);
    write_bytes(room_for_note((size_t)length), (size_t)length, (uint64_t)seed);
    return done(caller);
}

static int set_mood(context *caller, string **arguments, int count)
{
    static bool has_thread;
    size_t length;
    pthread_t thread;
    if (count < 2)
        return wrong_arity(caller);
    const char *how = text_of(arguments[1], &length);
    snprintf(count > 2 ? aux_mood : mood, sizeof mood, "%s", how);
    if (strcmp(how, "lock") == 0 && !has_thread)
        has_thread = pthread_create(&thread, NULL, lock_often, NULL) == 0;
    return reply_text(caller, "OK");
}

static int ping(context *caller, string **arguments, int count)
{
    (void)arguments, (void)count;
    return reply_text(caller, "PONG");
}

/* ---- loading --------------------------------------------------------------------- */

static int find_functions(void *lookup)
{
    memcpy(&get_api, &lookup, sizeof(get_api));
    const struct {
        const char *name;
        void *function;
    } wanted[] = {
        {"RedisModule_SetModuleAttribs", &set_attributes},
        {"RedisModule_CreateCommand", &create_command},
        {"RedisModule_CreateDataType", &create_type},
        {"RedisModule_OpenKey", &open_key},
        {"RedisModule_CloseKey", &close_key},
        {"RedisModule_ModuleTypeSetValue", &set_value},
        {"RedisModule_ModuleTypeGetValue", &get_value},
        {"RedisModule_ModuleTypeGetType", &type_of},
        {"RedisModule_CreateString", &create_string},
        {"RedisModule_FreeString", &free_string},
        {"RedisModule_StringPtrLen", &text_of},
        {"RedisModule_StringToLongLong", &number_of},
        {"RedisModule_ReplyWithCString", &reply_text},
        {"RedisModule_ReplyWithError", &reply_error},
        {"RedisModule_ReplyWithNull", &reply_null},
        {"RedisModule_WrongArity", &wrong_arity},
        {"RedisModule_ReplicateVerbatim", &replicate},
        {"RedisModule_SaveStringBuffer", &save_text},
        {"RedisModule_LoadStringBuffer", &load_text},
        {"RedisModule_SaveUnsigned", &save_number},
        {"RedisModule_LoadUnsigned", &load_number},
        {"RedisModule_SaveSigned", &save_signed},
        {"RedisModule_LoadSigned", &load_signed},
        {"RedisModule_SaveDouble", &save_double},
        {"RedisModule_LoadDouble", &load_double},
        {"RedisModule_GetKeyNameFromIO", &key_name},
        {"RedisModule_GetContextFromIO", &context_of},
        {"RedisModule_Log", &log_line},
        {"RedisModule_EmitAOF", &emit},
        {"RedisModule_DigestAddStringBuffer", &digest_text},
        {"RedisModule_DigestAddLongLong", &digest_number},
        {"RedisModule_DigestEndSequence", &digest_end},
        {"RedisModule_Alloc", &take},
        {"RedisModule_Free", &give},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (get_api(wanted[i].name, wanted[i].function) != 0)
            return 1;
    return 0;
}

static void hide_setter(bool secret)
{
    setter = malloc(sizeof(*setter));
    *setter = set_value;
    if (secret)
        set_value = NULL;
}

/* Aux fields are the first type's. */
static int create_types(context *loader, bool aux, bool sparing)
{
    struct type_methods texts = {
        .version = 5,
        .load = load,
        .save = save,
        .rewrite = rewrite,
        .digest = digest_of_text,
        .free = free,
        .copy = copy_text,
        .aux_load = load_aux,
        .aux_save = aux ? save_aux : NULL,
        .aux_save_2 = sparing ? save_aux_sparingly : NULL,
        .aux_save_triggers = AUX_BEFORE_AND_AFTER,
    };
    struct type_methods blobs = {
        .version = 5,
        .load = load_blob,
        .save = save_blob,
        .rewrite = rewrite_blob,
        .digest = digest_of_blob,
        .free = free_blob,
        .copy = copy_blob,
    };
    struct type_methods trees = {
        .version = 5,
        .load = load_tree,
        .save = save_tree,
        .rewrite = rewrite_tree,
        .digest = digest_of_tree,
        .free = free_tree,
        .copy = copy_tree,
    };
    text_type = create_type(loader, "typedtext", 1, &texts);
    blob_type = create_type(loader, "typedblob", 1, &blobs);
    tree_type = create_type(loader, "typedtree", 1, &trees);
    return text_type && blob_type && tree_type ? 0 : 1;
}

static int create_commands(context *loader)
{
    static const struct {
        const char *name, *flags;
        int (*run)(context *, string **, int);
        int keys;
    } commands[] = {
        {"typed.set", "write", set, 1},       {"typed.get", "readonly", get, 1},
        {"typed.bytes", "write", bytes, 1},   {"typed.blob", "write", make_blob, 1},
        {"typed.share", "write", share, 2},   {"typed.add", "write", add, 1},
        {"typed.change", "write", change, 1}, {"typed.populate", "write", populate, 0},
        {"typed.note", "write", ask_note, 0}, {"typed.memo", "write", make_memo, 0},
        {"typed.mood", "admin", set_mood, 0},
    };
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (create_command(loader, commands[i].name, commands[i].run, commands[i].flags,
                           commands[i].keys ? 1 : 0, commands[i].keys,
                           commands[i].keys ? 1 : 0))
            return 1;
    return 0;
}

int RedisModule_OnLoad(context *loader, string **arguments, int count);
int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    void *lookup;
    memcpy(&lookup, loader, sizeof(lookup));
    if (find_functions(lookup))
        return 1;
    set_attributes(loader, "typed", 1, 1);
    size_t length;
    const char *how = count == 1 ? text_of(arguments[0], &length) : "";
    if (strcmp(how, "untyped") == 0)
        return create_command(loader, "typed.ping", ping, "readonly", 0, 0, 0);
    if (strcmp(how, "hidden") == 0 || strcmp(how, "secret") == 0)
        hide_setter(strcmp(how, "secret") == 0);
    if (create_types(loader, !*how, strcmp(how, "sparing") == 0))
        return 1;
    return create_commands(loader);
}
