#include "keyspace/rax.h"

#include "kernel/memory.h"

#define NODE_KEY        1u
#define NODE_NULL       2u
#define NODE_COMPRESSED 4u
#define NODE_SIZE_SHIFT 3
#define FIRST_BYTES     (64 * 1024)
/* A key of more than this cannot be: the server would not hold its tree. */
#define KEY_BYTES_MAX (UINT64_C(1) << 30)

struct node {
    frozen_address address;
    uint32_t bits;
    uint32_t size;
};

/* A node on the way down, and what of it is still to do. */
struct step {
    struct node node;
    uint32_t next_child;
    size_t key_length; /* of the key at this node */
};

/* The path and the key; both grow with the deepest tree met. */
struct rax_scratch {
    size_t bytes; /* of this mapping */
    size_t key_capacity;
    size_t step_capacity;
    struct step *steps; /* behind the key, in the same mapping */
    unsigned char key[];
};

/* ---- room ------------------------------------------------------------------------ */

static struct rax_scratch *make_scratch(size_t key_capacity, size_t step_capacity)
{
    key_capacity = (key_capacity + 7) & ~(size_t)7;
    size_t bytes =
        sizeof(struct rax_scratch) + key_capacity + step_capacity * sizeof(struct step);
    struct rax_scratch *scratch = memory_map(bytes);
    if (!scratch)
        return NULL;
    scratch->bytes = bytes;
    scratch->key_capacity = key_capacity;
    scratch->step_capacity = step_capacity;
    scratch->steps = (struct step *)(scratch->key + key_capacity);
    return scratch;
}

/* Room for so many bytes of key and steps. 0 or -ENOMEM. */
static int reserve(struct walk *walk, int level, size_t key_length, size_t steps)
{
    struct rax_scratch *old = walk->rax[level];
    if (old && key_length <= old->key_capacity && steps <= old->step_capacity)
        return 0;
    size_t keys = key_length * 2 > FIRST_BYTES ? key_length * 2 : FIRST_BYTES;
    size_t count = steps * 2 > 1024 ? steps * 2 : 1024;
    struct rax_scratch *grown = make_scratch(keys, count);
    if (!grown)
        return -ENOMEM;
    if (old) {
        memcpy(grown->key, old->key, old->key_capacity);
        memcpy(grown->steps, old->steps, old->step_capacity * sizeof(struct step));
        memory_unmap(old, old->bytes);
    }
    walk->rax[level] = grown;
    return 0;
}

void rax_free_scratch(struct walk *walk)
{
    for (int i = 0; i < RAX_LEVELS; i++) {
        if (walk->rax[i])
            memory_unmap(walk->rax[i], walk->rax[i]->bytes);
        walk->rax[i] = NULL;
    }
}

/* ---- nodes ----------------------------------------------------------------------- */

static int read_node(struct walk *walk, frozen_address address, struct node *node)
{
    uint32_t header;
    int error = frozen_read(walk, &header, address, sizeof(header));
    if (error)
        return error;
    node->address = address;
    node->bits = header & 7;
    node->size = header >> NODE_SIZE_SHIFT;
    if (!(node->bits & NODE_COMPRESSED) && node->size > 256)
        return -EBADMSG;
    return 0;
}

static frozen_address characters(const struct node *node)
{
    return node->address + 4;
}

static frozen_address children(const struct node *node)
{
    return node->address + ((4 + (uint64_t)node->size + 7) & ~UINT64_C(7));
}

static uint32_t child_count(const struct node *node)
{
    return node->bits & NODE_COMPRESSED ? 1 : node->size;
}

static int visit_node(struct walk *walk, const struct step *step,
                      const unsigned char *key, rax_visit visit, void *context)
{
    const struct node *node = &step->node;
    frozen_address data = 0;
    if (!(node->bits & NODE_KEY))
        return 0;
    if (!(node->bits & NODE_NULL)) {
        int error = frozen_read(walk, &data, children(node) + 8 * child_count(node),
                                sizeof(data));
        if (error)
            return error;
    }
    return visit(walk, key, step->key_length, data, context);
}

/* ---- the walk -------------------------------------------------------------------- */

/* A node that is its own ancestor leads down without end. Sooner or later the path has the
 * same node at a power of two and below it. */
static bool turns_back(const struct step *steps, size_t depth, frozen_address child)
{
    size_t mark = depth ? (size_t)1 << (63 - __builtin_clzll(depth)) : 0;
    return steps[mark].node.address == child;
}

/* Appends what leads to child `index` to the key and reads the child. */
static int descend(struct walk *walk, int level, size_t depth)
{
    struct step *step = &walk->rax[level]->steps[depth];
    uint32_t index = step->next_child++;
    bool compressed = step->node.bits & NODE_COMPRESSED;
    uint64_t added = compressed ? step->node.size : 1;
    if (step->key_length + added > KEY_BYTES_MAX)
        return -EBADMSG;
    int error = view_check(walk->reader, characters(&step->node), added);
    if (!error)
        error = reserve(walk, level, step->key_length + added, depth + 2);
    if (error)
        return error;
    struct rax_scratch *scratch = walk->rax[level];
    step = &scratch->steps[depth];
    error = frozen_read(walk, scratch->key + step->key_length,
                        characters(&step->node) + (compressed ? 0 : index), added);
    frozen_address child = 0;
    if (!error)
        error = frozen_read(walk, &child, children(&step->node) + 8 * (uint64_t)index,
                            sizeof(child));
    if (!error && turns_back(scratch->steps, depth, child))
        error = -EBADMSG;
    struct step *below = &scratch->steps[depth + 1];
    below->key_length = step->key_length + added;
    below->next_child = 0;
    return error ? error : read_node(walk, child, &below->node);
}

static int read_root(struct walk *walk, frozen_address address, frozen_address *head,
                     uint64_t *elements)
{
    unsigned char bytes[16];
    int error = frozen_read(walk, bytes, address, sizeof(bytes));
    *head = error ? 0 : word_at(bytes, 0);
    *elements = error ? 0 : word_at(bytes, 8);
    return error;
}

int rax_size(struct walk *walk, frozen_address address, uint64_t *elements)
{
    frozen_address head;
    return read_root(walk, address, &head, elements);
}

int rax_walk(struct walk *walk, int level, frozen_address address, rax_visit visit,
             void *context)
{
    frozen_address head;
    uint64_t left;
    int error = read_root(walk, address, &head, &left);
    if (!error)
        error = reserve(walk, level, 0, 1);
    if (error)
        return error;
    struct step *root = &walk->rax[level]->steps[0];
    root->key_length = 0;
    root->next_child = 0;
    error = read_node(walk, head, &root->node);
    for (size_t depth = 0; !error;) {
        struct step *step = &walk->rax[level]->steps[depth];
        if (step->next_child == 0 && (step->node.bits & NODE_KEY)) {
            if (!left--)
                return -EBADMSG;
            error = visit_node(walk, step, walk->rax[level]->key, visit, context);
            if (error)
                break;
        }
        while (step->next_child >= child_count(&step->node)) {
            if (!depth)
                return left ? -EBADMSG : 0;
            step = &walk->rax[level]->steps[--depth];
        }
        error = descend(walk, level, depth++);
    }
    return error;
}
