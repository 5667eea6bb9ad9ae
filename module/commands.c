#include "commands.h"

#include <ctype.h>
#include <stdio.h>

#include "backup_command.h"
#include "dirtyrate.h"
#include "doctor_command.h"
#include "info.h"
#include "rdb_uffd.h"
#include "reply.h"

/* The map's length is told when it is known. */
#define LENGTH_LATER (-1)

/* ---- UFFD.STATUS ----------------------------------------------------------------- */

struct status_reply {
    api_context *context;
    long fields;
};

static void status_text(const struct info_visitor *visitor, const char *name,
                        const char *value)
{
    struct status_reply *reply = visitor->context;
    reply_text(reply->context, name, value);
    reply->fields++;
}

static void status_number(const struct info_visitor *visitor, const char *name,
                          uint64_t value)
{
    struct status_reply *reply = visitor->context;
    reply_number(reply->context, name, value);
    reply->fields++;
}

static int status_command(api_context *context, api_string **arguments, int count)
{
    (void)arguments;
    if (count != 1)
        return api.WrongArity(context);
    struct status_reply reply = {.context = context};
    const struct info_visitor visitor = {
        .text = status_text, .number = status_number, .context = &reply};
    api.ReplyWithMap(context, LENGTH_LATER);
    info_visit(&visitor);
    api.ReplySetMapLength(context, reply.fields);
    return API_OK;
}

/* ---- UFFD.HISTORY ---------------------------------------------------------------- */

static void reply_save(api_context *context, const struct history_entry *save)
{
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"freeze_usec", save->freeze_usec},
        {"duration_msec", save->duration_msec},
        {"keys", save->keys},
        {"file_bytes", save->file_bytes},
        {"faults", save->faults},
        {"pages_preserved", save->pages_preserved},
        {"buffer_peak_bytes", save->buffer_peak_bytes},
        {"spool_peak_bytes", save->spool_peak_bytes},
        {"writer_waits", save->writer_waits},
        {"writer_wait_usec", save->writer_wait_usec},
        {"writer_wait_longest_usec", save->writer_wait_longest_usec},
        {"fault_wait_p50_usec", save->fault_wait_p50_usec},
        {"fault_wait_p99_usec", save->fault_wait_p99_usec},
        {"fault_wait_max_usec", save->fault_wait_max_usec},
        {"child_values", save->child_values},
        {"child_fork_usec", save->child_fork_usec},
        {"child_wait_usec", save->child_wait_usec},
        {"child_pages", save->child_pages},
        {"child_peak_bytes", save->child_peak_bytes},
    };
    const long count = sizeof(numbers) / sizeof(numbers[0]);
    api.ReplyWithMap(context, 5 + count);
    reply_number(context, "id", save->id);
    reply_number(context, "started_msec", (uint64_t)save->started_msec);
    reply_text(context, "cause", save->cause);
    reply_text(context, "result", history_result_name(save->result));
    reply_text(context, "reason", save->reason);
    for (long i = 0; i < count; i++)
        reply_number(context, numbers[i].name, numbers[i].value);
}

static int history_command(api_context *context, api_string **arguments, int count)
{
    long long wanted = HISTORY_SAVES, known = 0;
    if (count > 2)
        return api.WrongArity(context);
    if (!take_number(context, arguments, count, 1, INT64_MAX,
                     "ERR count must be positive", &wanted))
        return API_OK;
    while (known < wanted && rdb_uffd_history((size_t)known))
        known++;
    api.ReplyWithArray(context, (long)known);
    for (long long back = 0; back < known; back++)
        reply_save(context, rdb_uffd_history((size_t)back));
    return API_OK;
}

/* ---- UFFD.RESETSTAT, UFFD.HELP --------------------------------------------------- */

static int resetstat_command(api_context *context, api_string **arguments, int count)
{
    (void)arguments;
    if (count != 1)
        return api.WrongArity(context);
    rdb_uffd_reset_statistics();
    return api.ReplyWithSimpleString(context, "OK");
}

static int help_command(api_context *context, api_string **arguments, int count);

/* ---- what the server is told of them --------------------------------------------- */

static const struct command {
    const char *name;
    api_command function;
    const char *flags;
    const char *categories;
    int arity;
    const char *arguments; /* as the help shows them */
    const char *summary;
    const char *complexity;
    struct api_argument parts[2]; /* ends with one without a name */
} commands[] = {
    {
        .name = "uffd.status",
        .function = status_command,
        .flags = "allow-loading allow-stale fast",
        .categories = "fast dangerous",
        .arity = 1,
        .arguments = "",
        .summary = "What the module does right now, and its counters.",
        .complexity = "O(1)",
    },
    {
        .name = "uffd.history",
        .function = history_command,
        .flags = "admin allow-loading allow-stale",
        .categories = "admin slow dangerous",
        .arity = -1,
        .arguments = " [count]",
        .summary = "The last saves, at most 100, newest first: cause, cost and result.",
        .complexity = "O(N) where N is the number of saves returned",
        .parts = {{.name = "count",
                   .type = API_ARGUMENT_INTEGER,
                   .key_spec = -1,
                   .flags = API_ARGUMENT_OPTIONAL}},
    },
    {
        .name = "uffd.dirtyrate",
        .function = dirtyrate_command,
        .flags = "admin deny-script allow-stale blocking",
        .categories = "admin slow dangerous blocking",
        .arity = -1,
        .arguments = " [seconds]",
        .summary = "Measures how fast the heap is written to, and says what buffer the "
                   "next save will need.",
        .complexity = "O(N) where N is the number of pages of the heap; other clients "
                      "do not wait",
        .parts = {{.name = "seconds",
                   .type = API_ARGUMENT_INTEGER,
                   .key_spec = -1,
                   .flags = API_ARGUMENT_OPTIONAL}},
    },
    {
        .name = "uffd.backup",
        .function = backup_command,
        .flags = "admin deny-script allow-stale",
        .categories = "admin slow dangerous",
        .arity = -2,
        .arguments = BACKUP_ARGUMENTS,
        .summary = "Writes a dump to another place; UFFD.BACKUP HELP says more.",
        .complexity = "O(N) where N is the number of keys, on another thread",
        .parts = {{.name = "file|fifo|STATUS|CANCEL|HELP",
                   .type = API_ARGUMENT_STRING,
                   .key_spec = -1}},
    },
    {
        .name = "uffd.doctor",
        .function = doctor_command,
        .flags = "admin allow-loading allow-stale",
        .categories = "admin slow dangerous",
        .arity = 1,
        .arguments = "",
        .summary = "Checks what saves without fork need, and says what to do.",
        .complexity = "O(1)",
    },
    {
        .name = "uffd.resetstat",
        .function = resetstat_command,
        .flags = "admin deny-script allow-loading allow-stale",
        .categories = "admin slow dangerous",
        .arity = 1,
        .arguments = "",
        .summary = "Sets the module's counters to 0 and forgets the history of saves.",
        .complexity = "O(1)",
    },
    {
        .name = "uffd.help",
        .function = help_command,
        .flags = "allow-loading allow-stale",
        .categories = "slow",
        .arity = 1,
        .arguments = "",
        .summary = "The module's commands.",
        .complexity = "O(1)",
    },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int help_command(api_context *context, api_string **arguments, int count)
{
    (void)arguments;
    if (count != 1)
        return api.WrongArity(context);
    api.ReplyWithArray(context, 2 * COMMANDS);
    for (size_t i = 0; i < COMMANDS; i++) {
        char line[128], *to = line;
        for (const char *from = commands[i].name; *from; from++)
            *to++ = (char)toupper(*from);
        snprintf(to, (size_t)(line + sizeof(line) - to), "%s", commands[i].arguments);
        api.ReplyWithSimpleString(context, line);
        snprintf(line, sizeof(line), "    %s", commands[i].summary);
        api.ReplyWithSimpleString(context, line);
    }
    return API_OK;
}

/* Neither the description nor the categories are worth refusing to load for. */
static void describe(api_context *context, const struct command *command)
{
    static const struct api_information_version version = {
        .version = 1,
        .history_entry_bytes = 2 * sizeof(char *),
        .key_spec_bytes = 56, /* there are none */
        .argument_bytes = sizeof(struct api_argument),
    };
    api_registered_command *registered = api.GetCommand(context, command->name);
    struct api_information information = {
        .version = &version,
        .summary = command->summary,
        .complexity = command->complexity,
        .since = "0.1.0",
        .arity = command->arity,
    };
    if (command->parts[0].name)
        information.arguments = (struct api_argument *)command->parts;
    if (!registered)
        return;
    api.SetCommandInfo(registered, &information);
    if (api.SetCommandACLCategories)
        api.SetCommandACLCategories(registered, command->categories);
}

int commands_register(api_context *context)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (api.CreateCommand(context, commands[i].name, commands[i].function,
                              commands[i].flags, 0, 0, 0) != API_OK)
            return API_ERR;
        describe(context, &commands[i]);
    }
    return API_OK;
}
