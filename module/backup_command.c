#include "backup_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "rdb_uffd.h"
#include "reply.h"
#include "settings.h"

#define STARTED "Background backup started"

/* What the client that waits will be told. */
struct outcome {
    bool to_the_end; /* WAIT */
    char failure[320];
};

static api_blocked_client *waiting;
static struct outcome *outcome_of_waiting;

/* ---- what was asked for ---------------------------------------------------------- */

struct wish {
    struct rdb_uffd_backup_order order;
    bool wait;
};

/* NULL, or what is wrong with it. */
static const char *take_name(const char *name, size_t length, struct wish *wish)
{
    if (!length || memchr(name, '/', length) || strlen(name) != length ||
        strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return "a backup's name has no '/' in it: its directory is the setting "
               "uffd.backup-dir";
    if (length >= sizeof(wish->order.name))
        return "the name is too long";
    memcpy(wish->order.name, name, length + 1);
    return NULL;
}

static const char *take_rate(const char *text, struct wish *wish)
{
    if (settings_parse_memory(text, &wish->order.bytes_per_second) != 0 ||
        !wish->order.bytes_per_second)
        return "RATE is a number of bytes for each second, such as 20mb";
    return NULL;
}

/* Takes one option, and its value if it has one, from `*at` on. */
static const char *take_option(api_string **arguments, int count, int *at,
                               struct wish *wish)
{
    const char *name = api.StringPtrLen(arguments[*at], NULL);
    const char *value =
        *at + 1 < count ? api.StringPtrLen(arguments[*at + 1], NULL) : NULL;
    *at += 1;
    if (strcasecmp(name, "REPLACE") == 0)
        wish->order.replace = true;
    else if (strcasecmp(name, "WAIT") == 0)
        wish->wait = true;
    else if (strcasecmp(name, "COMPRESS") == 0 && value && *at < count) {
        *at += 1;
        if (strcasecmp(value, "lz4") != 0)
            return "COMPRESS knows lz4 only";
        wish->order.lz4 = true;
    } else if (strcasecmp(name, "RATE") == 0 && value) {
        *at += 1;
        return take_rate(value, wish);
    } else {
        return "syntax error: UFFD.BACKUP HELP shows what there is";
    }
    return NULL;
}

static const char *take_wish(api_string **arguments, int count, struct wish *wish)
{
    size_t length;
    const char *name = api.StringPtrLen(arguments[1], &length);
    const char *wrong = take_name(name, length, wish);
    for (int at = 2; at < count && !wrong;)
        wrong = take_option(arguments, count, &at, wish);
    return wrong;
}

/* ---- starting -------------------------------------------------------------------- */

static int reply(api_context *context, api_string **arguments, int count)
{
    (void)arguments, (void)count;
    const struct outcome *outcome = api.GetBlockedClientPrivateData(context);
    if (outcome->failure[0])
        return reply_error(context, outcome->failure);
    return api.ReplyWithSimpleString(context, outcome->to_the_end ? "OK" : STARTED);
}

static void free_outcome(api_context *context, void *outcome)
{
    (void)context;
    free(outcome);
}

static int start(api_context *context, const struct wish *wish)
{
    bool block = may_block(context);
    if (wish->wait && !block)
        return reply_error(context, "WAIT: not in a transaction or script");
    if (api.GetContextFlags(context) & API_CONTEXT_ACTIVE_CHILD)
        return reply_error(context, "a background save or rewrite is running");
    struct outcome *outcome = block ? calloc(1, sizeof(*outcome)) : NULL;
    if (block && !outcome)
        return reply_error(context, "out of memory");
    const char *failure = rdb_uffd_begin_backup(&wish->order);
    if (failure) {
        free(outcome);
        return reply_error(context, failure);
    }
    if (!block)
        return api.ReplyWithSimpleString(context, STARTED);
    outcome->to_the_end = wish->wait;
    outcome_of_waiting = outcome;
    waiting = api.BlockClient(context, reply, NULL, free_outcome, 0);
    return API_OK;
}

void backup_tick(void)
{
    struct rdb_uffd_backup now;
    if (!waiting)
        return;
    rdb_uffd_get_backup(&now);
    if (now.running && (outcome_of_waiting->to_the_end || !now.open))
        return;
    if (!now.running && strcmp(now.state, "ok") != 0)
        snprintf(outcome_of_waiting->failure, sizeof(outcome_of_waiting->failure),
                 "the backup has %s: %s",
                 strcmp(now.state, "cancelled") == 0 ? "been cancelled" : now.state,
                 now.reason);
    api.UnblockClient(waiting, outcome_of_waiting);
    waiting = NULL;
}

/* ---- the others ------------------------------------------------------------------ */

static int reply_status(api_context *context)
{
    struct rdb_uffd_backup now;
    rdb_uffd_get_backup(&now);
    const struct {
        const char *name;
        uint64_t value;
    } numbers[] = {
        {"id", now.id},
        {"started_msec", (uint64_t)now.started_msec},
        {"elapsed_msec", now.elapsed_msec},
        {"keys", now.keys},
        {"keys_total", now.keys_total},
        {"bytes", now.bytes},
    };
    const long count = sizeof(numbers) / sizeof(numbers[0]);
    api.ReplyWithMap(context, 3 + count);
    reply_text(context, "state", now.state);
    reply_text(context, "name", now.name);
    reply_text(context, "reason", now.reason);
    for (long i = 0; i < count; i++)
        reply_number(context, numbers[i].name, numbers[i].value);
    return API_OK;
}

static int cancel(api_context *context)
{
    if (!rdb_uffd_cancel_backup())
        return reply_error(context, "no backup is running");
    return api.ReplyWithSimpleString(context, "Background backup cancelled");
}

static int help(api_context *context)
{
    static const char *const lines[] = {
        "    A dump of this instant, without fork, apart from the server's own saves,",
        "    in the directory uffd.backup-dir: the name has no '/' in it.",
        "    COMPRESS lz4   as an LZ4 frame, for lz4 -d",
        "    RATE           writes so much at most: 20mb",
        "    REPLACE        a dump that has this name already, when this one is good",
        "    WAIT           answers when the backup has ended",
        "UFFD.BACKUP STATUS",
        "    The one under way, or the last.",
        "UFFD.BACKUP CANCEL",
        "    Ends the one under way; its file goes, its reader gets no checksum.",
        "UFFD.BACKUP HELP",
        "    This.",
    };
    const long count = sizeof(lines) / sizeof(lines[0]);
    api.ReplyWithArray(context, 1 + count);
    api.ReplyWithSimpleString(context, "UFFD.BACKUP" BACKUP_ARGUMENTS);
    for (long i = 0; i < count; i++)
        api.ReplyWithSimpleString(context, lines[i]);
    return API_OK;
}

int backup_command(api_context *context, api_string **arguments, int count)
{
    static const struct {
        const char *name;
        int (*answer)(api_context *);
    } others[] = {{"STATUS", reply_status}, {"CANCEL", cancel}, {"HELP", help}};
    struct wish wish = {0};
    if (count < 2)
        return api.WrongArity(context);
    const char *word = api.StringPtrLen(arguments[1], NULL);
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (count == 2 && strcasecmp(word, others[i].name) == 0)
            return others[i].answer(context);
    const char *wrong = take_wish(arguments, count, &wish);
    return wrong ? reply_error(context, wrong) : start(context, &wish);
}
