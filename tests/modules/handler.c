/* A module for the tests that handles SIGSEGV, as profilers and runtimes of languages do:
 * loaded with the name of a file, it adds a line there for each one, and calls on what it
 * has found. */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

typedef struct context context;
typedef struct string string;

static struct sigaction found;
static int file = -1;

static void handle(int signal, siginfo_t *info, void *state)
{
    (void)!write(file, "seen\n", 5);
    if (found.sa_flags & SA_SIGINFO)
        found.sa_sigaction(signal, info, state);
    else
        sigaction(signal, &found, NULL);
}

int RedisModule_OnLoad(context *loader, string **arguments, int count);
int RedisModule_OnLoad(context *loader, string **arguments, int count)
{
    void *lookup;
    int (*get_api)(const char *name, void *function);
    void (*set_attributes)(context *, const char *name, int version, int api);
    const char *(*pointer)(const string *, size_t *length);
    memcpy(&lookup, loader, sizeof(lookup));
    memcpy(&get_api, &lookup, sizeof(get_api));
    get_api("RedisModule_SetModuleAttribs", &set_attributes);
    get_api("RedisModule_StringPtrLen", &pointer);
    set_attributes(loader, "handler", 1, 1);
    if (count != 1)
        return 1;
    file = open(pointer(arguments[0], NULL), O_WRONLY | O_CREAT | O_APPEND, 0600);
    struct sigaction ours = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_NODEFER};
    return sigaction(SIGSEGV, &ours, &found) != 0;
}
