#include "dirtyrate.h"

#include <stdlib.h>

#include "rdb_uffd.h"
#include "reply.h"

#define PAGE 4096

/* What the client that waits will be told. */
struct outcome {
    struct rdb_uffd_dirty_rate rate;
    const char *failure;
};

static api_blocked_client *waiting;
static struct outcome *outcome_of_waiting;

static void reply_part(api_context *context, const char *name, double part)
{
    api.ReplyWithCString(context, name);
    api.ReplyWithDouble(context, part);
}

static int reply(api_context *context, api_string **arguments, int count)
{
    (void)arguments, (void)count;
    const struct outcome *outcome = api.GetBlockedClientPrivateData(context);
    const struct rdb_uffd_dirty_rate *rate = &outcome->rate;
    if (outcome->failure)
        return reply_error(context, outcome->failure);
    double msec = rate->measured_msec ? (double)rate->measured_msec : 1;
    double heap = rate->heap_bytes ? (double)rate->heap_bytes : 1;
    api.ReplyWithMap(context, 10);
    reply_number(context, "measured_msec", rate->measured_msec);
    reply_number(context, "heap_bytes", rate->heap_bytes);
    reply_number(context, "pages_written", rate->pages);
    reply_number(context, "pages_per_second",
                 (uint64_t)((double)rate->pages * 1000 / msec + 0.5));
    reply_part(context, "heap_percent", (double)rate->pages * PAGE * 100 / heap);
    reply_number(context, "save_msec", rate->save_msec);
    reply_number(context, "predicted_pages", rate->predicted_pages);
    reply_number(context, "predicted_buffer_bytes", rate->predicted_bytes);
    reply_number(context, "predicted_backup_buffer_bytes", rate->predicted_backup_bytes);
    reply_number(context, "recommended_buffer_limit", rate->recommended_limit);
    return API_OK;
}

static void free_outcome(api_context *context, void *outcome)
{
    (void)context;
    free(outcome);
}

int dirtyrate_command(api_context *context, api_string **arguments, int count)
{
    long long seconds = 0;
    if (count > 2)
        return api.WrongArity(context);
    if (!take_number(context, arguments, count, 1, DIRTY_RATE_MAX_SECONDS,
                     "ERR seconds must be from 1 to 60", &seconds))
        return API_OK;
    if (!may_block(context))
        return reply_error(context, "UFFD.DIRTYRATE takes its time: not in a "
                                    "transaction or script");
    if (waiting)
        return reply_error(context, "a measurement is running already");
    struct outcome *outcome = calloc(1, sizeof(*outcome));
    if (!outcome)
        return reply_error(context, "out of memory");
    const char *failure = rdb_uffd_begin_dirty_rate((unsigned)seconds);
    if (failure) {
        free(outcome);
        return reply_error(context, failure);
    }
    outcome_of_waiting = outcome;
    waiting = api.BlockClient(context, reply, NULL, free_outcome, 0);
    return API_OK;
}

void dirtyrate_tick(void)
{
    if (!waiting ||
        !rdb_uffd_end_dirty_rate(&outcome_of_waiting->rate, &outcome_of_waiting->failure))
        return;
    api.UnblockClient(waiting, outcome_of_waiting);
    waiting = NULL;
}
