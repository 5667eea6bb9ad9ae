#include "stranger.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "kernel/contract.h"

static bool is_among(const char *const *words, const char *word)
{
    while (*words && strcmp(*words, word) != 0)
        words++;
    return *words != NULL;
}

static bool is_known_type(const char *type)
{
    static const char *const types[] = {"string", "list",   "set", "zset",
                                        "hash",   "stream", NULL};
    return is_among(types, type);
}

/* Those that walkers read, as servers call them. */
static bool is_known_encoding(const char *encoding)
{
    static const char *const encodings[] = {
        "raw",       "int",    "embstr",   "quicklist",  "listpack", "intset",
        "hashtable", "stream", "skiplist", "listpackex", NULL};
    return is_among(encodings, encoding);
}

void stranger_tell(const struct keyspace_stranger *stranger, char text[STRANGER_WORDS])
{
    snprintf(text, STRANGER_WORDS, "a value of type number %u, encoding %u",
             stranger->type, stranger->encoding);
}

enum stranger_answer stranger_ask(const struct rdb_uffd_host *host,
                                  const struct keyspace_stranger *stranger,
                                  char text[STRANGER_WORDS])
{
    DEMAND_MAIN_THREAD();
    struct rdb_uffd_kind said;
    if (!stranger->name_length) /* too long to be kept */
        return STRANGER_IS_GONE;
    host->ask_kind(stranger->database, stranger->name, stranger->name_length, &said);
    if (!strcmp(said.type, "none"))
        return STRANGER_IS_GONE;
    if (!said.type[0])
        stranger_tell(stranger, text);
    else if (!is_known_type(said.type))
        snprintf(text, STRANGER_WORDS, "a value of type '%s'", said.type);
    else if (!is_known_encoding(said.encoding))
        snprintf(text, STRANGER_WORDS, "a value of type '%s', encoding '%s'", said.type,
                 said.encoding);
    else
        return STRANGER_IS_KNOWN;
    return STRANGER_IS_THERE;
}
