/* What the clients ask for: which command, which key, which value. Knows the request side of RESP and nothing of
 * sockets or time. Keys of SET, GET and SETRANGE are those of DEBUG POPULATE (`key:N`); INCR, LPUSH and HSET have keys of their
 * own, one for every hundred of those. SETRANGE changes a few bytes of the value where it lies, which SET never does. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include <stddef.h>
#include <stdint.h>

enum command {
    COMMAND_SET,
    COMMAND_GET,
    COMMAND_INCR,
    COMMAND_LPUSH,
    COMMAND_HSET,
    COMMAND_SETRANGE,
    COMMANDS
};
enum distribution { DISTRIBUTION_UNIFORM, DISTRIBUTION_ZIPF };
enum value_kind {
    VALUE_TEXT, /* random letters and digits: hardly compressible */
    VALUE_JSON, /* flat objects of words and numbers */
};

struct workload_options {
    uint64_t keys;
    size_t value_size;
    enum value_kind value_kind;
    enum distribution distribution;
    unsigned weight[COMMANDS]; /* shares of the mix, of any sum */
    uint64_t seed;
};

struct workload;

/* Reads "set=90,get=10" into weight; 0 or -EINVAL. */
int workload_parse_mix(const char *text, unsigned weight[COMMANDS]);

/* NULL when memory is short. The options are copied. */
struct workload *workload_create(const struct workload_options *options);
void workload_destroy(struct workload *workload);

/* Upper bound of what one command takes. */
size_t workload_command_size(const struct workload *workload);

/* Writes the next random command to out and returns its length. */
size_t workload_next(struct workload *workload, char *out);

/* Writes "SET key:<number> value" to out and returns its length: for filling a server in order. */
size_t workload_fill(struct workload *workload, uint64_t number, char *out);

#endif
