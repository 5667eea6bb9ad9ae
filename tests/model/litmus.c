/* Tries all executions of a litmus test that arm64's memory model allows: litmus FILE
 * Prints "Observation NAME Never" or "… Sometimes", as herd7 does, and how many states there
 * were. Of the model it knows what the tests here need: memory is one for all processors (as
 * arm64 has it: a store is seen by all others at once), and each processor may perform its
 * instructions in any order but for
 *   - what a register's value is taken from, and the branch before a store
 *   - two accesses to the same place
 *   - what comes after a load with acquire (LDAR, LDAPR), and before a store with release (STLR)
 *   - LDAR after STLR, but not LDAPR
 *   - fences: DMB ISH; DMB ISHLD, before which only loads are waited for
 * A store is not seen by its own processor before others see it, and no register is written
 * twice: which such a test must do without. herd7 is asked as well where it is there. */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS   4
#define OPS       12
#define REGISTERS 16
#define PLACES    8
#define STATES    (1u << 20)

enum kind { LOAD, STORE, FENCE, BRANCH };

struct op {
    enum kind kind;
    int reg;   /* that is loaded, stored or looked at */
    int place; /* of memory */
    bool acquire, release;
    bool ordered; /* LDAR: also against an earlier STLR. A fence: also against stores */
};

struct state {
    uint16_t done[THREADS]; /* a bit an operation */
    int8_t memory[PLACES];
    int8_t registers[THREADS][REGISTERS];
};

static struct {
    char name[64], places[PLACES][24], condition[512];
    struct op ops[THREADS][OPS];
    int count[THREADS], address[THREADS][REGISTERS];
    bool written[THREADS][REGISTERS];
    int place_count, threads;
    struct state first;
} test;

static struct state *seen;
static bool *is_seen;
static unsigned states, found;

static void refuse(const char *why, const char *what)
{
    fprintf(stderr, "litmus: %s: %s\n", why, what);
    exit(2);
}

/* ---- reading a test ------------------------------------------------------------- */

static int place_named(const char *name)
{
    int i = 0;
    while (i < test.place_count && strcmp(test.places[i], name) != 0)
        i++;
    if (i == PLACES)
        refuse("too many places", name);
    if (i == test.place_count)
        snprintf(test.places[test.place_count++], sizeof(test.places[0]), "%s", name);
    return i;
}

/* "0:X1=entry" or "entry=1". */
static void read_first(char *text)
{
    int thread, reg, value;
    char name[24];
    if (sscanf(text, " %d:X%d=%23s", &thread, &reg, name) == 3)
        test.address[thread][reg] = place_named(name) + 1;
    else if (sscanf(text, " %23[a-z]=%d", name, &value) == 2)
        test.first.memory[place_named(name)] = (int8_t)value;
    else if (text[strspn(text, " \n")])
        refuse("not understood", text);
}

static void writes(int thread, int reg)
{
    if (test.written[thread][reg])
        refuse("a register is written twice", test.name);
    test.written[thread][reg] = true;
}

static void add(int thread, struct op op)
{
    if (test.count[thread] == OPS)
        refuse("too many instructions", test.name);
    if (op.kind == LOAD)
        writes(thread, op.reg);
    test.ops[thread][test.count[thread]++] = op;
}

static void read_access(int thread, const char *text, const char *name, int reg, int base)
{
    static const struct {
        const char *name;
        struct op op;
    } known[] = {
        {"LDR", {.kind = LOAD}},
        {"LDAPR", {.kind = LOAD, .acquire = true}},
        {"LDAR", {.kind = LOAD, .acquire = true, .ordered = true}},
        {"STR", {.kind = STORE}},
        {"STLR", {.kind = STORE, .release = true}},
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(known[i].name, name) == 0 && test.address[thread][base]) {
            struct op op = known[i].op;
            op.reg = reg;
            op.place = test.address[thread][base] - 1;
            add(thread, op);
            return;
        }
    refuse("not known", text);
}

/* What is moved into a register is there from the beginning: nothing else is written to it.
 * Whoever branches goes to its end. */
static void read_op(int thread, const char *text)
{
    char name[8] = "", kind[8] = "";
    int reg, base;
    if (sscanf(text, " MOV W%d,#%d", &reg, &base) == 2) {
        writes(thread, reg);
        test.first.registers[thread][reg] = (int8_t)base;
    } else if (sscanf(text, " CBZ W%d,L%d", &reg, &base) == 2) {
        add(thread, (struct op){.kind = BRANCH, .reg = reg});
    } else if (sscanf(text, " DMB %7s", kind) == 1) {
        add(thread, (struct op){.kind = FENCE, .ordered = strcmp(kind, "ISH") == 0});
    } else if (sscanf(text, " %7s W%d,[X%d]", name, &reg, &base) == 3) {
        read_access(thread, text, name, reg, base);
    } else if (sscanf(text, " %7s", name) == 1 && strcmp(name, "NOP") != 0 &&
               sscanf(text, " L%d:", &reg) != 1) {
        refuse("not known", text);
    }
}

static void read_row(char *text)
{
    int thread = 0;
    char *rest = text;
    text[strcspn(text, ";")] = '\0';
    for (char *cell; (cell = strsep(&rest, "|")); thread++) {
        if (thread == THREADS)
            refuse("too many threads", text);
        read_op(thread, cell);
    }
    test.threads = thread;
}

/* The test's name, what is between { and }, the rows after that of the threads' names, and
 * the condition. */
static void read_test(FILE *file)
{
    enum { HEAD, FIRST, NAMES, ROWS } part = HEAD;
    char line[512];
    while (fgets(line, sizeof(line), file)) {
        char *rest = line;
        if (part == HEAD && !test.name[0])
            sscanf(line, "AArch64 %63s", test.name);
        else if (part == HEAD && line[0] == '{')
            part = FIRST;
        else if (part == FIRST && line[0] == '}')
            part = NAMES;
        else if (part == FIRST)
            for (char *one; (one = strsep(&rest, ";"));)
                read_first(one);
        else if (part == NAMES)
            part = ROWS;
        else if (strncmp(line, "exists", 6) == 0)
            snprintf(test.condition, sizeof(test.condition), "%s", line + 6);
        else if (part == ROWS)
            read_row(line);
    }
    if (!test.condition[0])
        refuse("no condition", test.name);
}

/* ---- the condition: atoms, /\, \/ and parentheses ------------------------------- */

static bool either(const struct state *state, const char **at);

static const char *skip(const char *at)
{
    return at + strspn(at, " \n");
}

static bool atom(const struct state *state, const char **at)
{
    int thread, reg, value, length;
    *at = skip(*at);
    if (**at == '(') {
        (*at)++;
        bool holds = either(state, at);
        *at = skip(*at) + 1;
        return holds;
    }
    if (sscanf(*at, "%d:X%d=%d%n", &thread, &reg, &value, &length) != 3)
        refuse("not understood", *at);
    *at += length;
    return state->registers[thread][reg] == value;
}

static bool both(const struct state *state, const char **at)
{
    bool holds = atom(state, at);
    while (strncmp(*at = skip(*at), "/\\", 2) == 0) {
        *at += 2;
        holds &= atom(state, at);
    }
    return holds;
}

static bool either(const struct state *state, const char **at)
{
    bool holds = both(state, at);
    while (strncmp(*at = skip(*at), "\\/", 2) == 0) {
        *at += 2;
        holds |= both(state, at);
    }
    return holds;
}

/* ---- executing ------------------------------------------------------------------ */

/* A processor performs `op` not before `earlier`, which precedes it in the program. */
static bool waits_for(const struct op *op, const struct op *earlier)
{
    if (earlier->kind == LOAD && (op->kind == STORE || op->kind == BRANCH) &&
        op->reg == earlier->reg)
        return true;
    if (earlier->kind == BRANCH)
        return op->kind == STORE || op->kind == BRANCH;
    if (earlier->kind == FENCE)
        return op->kind != BRANCH;
    if (op->kind == FENCE)
        return op->ordered || earlier->kind == LOAD;
    if (op->kind == BRANCH)
        return false;
    return op->place == earlier->place || earlier->acquire || op->release ||
           (earlier->release && op->kind == LOAD && op->ordered);
}

static bool may_be_performed(const struct state *state, int thread, int number)
{
    const struct op *ops = test.ops[thread];
    for (int i = 0; i < number; i++)
        if (!(state->done[thread] >> i & 1) && waits_for(&ops[number], &ops[i]))
            return false;
    return true;
}

/* What has been loaded behind a branch that is taken has not been. */
static void go_to_end(struct state *state, int thread, int number)
{
    for (int i = number + 1; i < test.count[thread]; i++) {
        if (test.ops[thread][i].kind == LOAD)
            state->registers[thread][test.ops[thread][i].reg] = 0;
        state->done[thread] |= (uint16_t)(1u << i);
    }
}

static void perform(struct state *state, int thread, int number)
{
    const struct op *op = &test.ops[thread][number];
    int8_t *reg = &state->registers[thread][op->reg];
    state->done[thread] |= (uint16_t)(1u << number);
    if (op->kind == LOAD)
        *reg = state->memory[op->place];
    else if (op->kind == STORE)
        state->memory[op->place] = *reg;
    else if (op->kind == BRANCH && !*reg)
        go_to_end(state, thread, number);
}

/* False if it has been before. */
static bool note(const struct state *state)
{
    const unsigned char *bytes = (const unsigned char *)state;
    uint32_t at = 2166136261u;
    for (size_t i = 0; i < sizeof(*state); i++)
        at = (at ^ bytes[i]) * 16777619u;
    for (at %= STATES; is_seen[at]; at = (at + 1) % STATES)
        if (memcmp(&seen[at], state, sizeof(*state)) == 0)
            return false;
    if (++states > STATES / 2)
        refuse("too many states", test.name);
    seen[at] = *state;
    return is_seen[at] = true;
}

static void go_on(const struct state *state)
{
    const char *condition = test.condition;
    bool ended = true;
    if (!note(state))
        return;
    for (int thread = 0; thread < test.threads; thread++)
        for (int i = 0; i < test.count[thread]; i++) {
            if (state->done[thread] >> i & 1)
                continue;
            ended = false;
            if (!may_be_performed(state, thread, i))
                continue;
            struct state next = *state;
            perform(&next, thread, i);
            go_on(&next);
        }
    if (ended && either(state, &condition))
        found++;
}

int main(int count, char **arguments)
{
    FILE *file = count == 2 ? fopen(arguments[1], "r") : NULL;
    seen = calloc(STATES, sizeof(*seen));
    is_seen = calloc(STATES, sizeof(*is_seen));
    if (!file || !seen || !is_seen)
        refuse("cannot be read", count == 2 ? arguments[1] : "litmus FILE");
    read_test(file);
    fclose(file);
    go_on(&test.first);
    printf("Observation %s %s\n%u states\n", test.name, found ? "Sometimes" : "Never",
           states);
    return 0;
}
