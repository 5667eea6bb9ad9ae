#include "doctor_command.h"

#include <stdio.h>

#include "rdb_uffd.h"
#include "reply.h"

/* What the doctor asks of the server itself. */
static bool server_setting(void *context, const char *name, char *value, size_t size)
{
    return server_api_setting(context, name, value, size);
}

static size_t examine(api_context *context,
                      struct doctor_finding findings[DOCTOR_FINDINGS])
{
    const struct doctor_server server = {.setting = server_setting, .context = context};
    return rdb_uffd_examine(&server, findings);
}

static void reply_finding_as_line(api_context *context,
                                  const struct doctor_finding *finding)
{
    char line[sizeof(finding->text) + sizeof(finding->remedy) + 64];
    snprintf(line, sizeof(line), "%-4s %s: %s%s%s", doctor_status_name(finding->status),
             finding->name, finding->text, finding->remedy[0] ? " - remedy: " : "",
             finding->remedy);
    api.ReplyWithSimpleString(context, line);
}

static void reply_finding_as_map(api_context *context,
                                 const struct doctor_finding *finding)
{
    api.ReplyWithMap(context, 4);
    reply_text(context, "name", finding->name);
    reply_text(context, "status", doctor_status_name(finding->status));
    reply_text(context, "text", finding->text);
    reply_text(context, "remedy", finding->remedy);
}

int doctor_command(api_context *context, api_string **arguments, int count)
{
    (void)arguments;
    if (count != 1)
        return api.WrongArity(context);
    struct doctor_finding findings[DOCTOR_FINDINGS];
    size_t found = examine(context, findings);
    bool maps = api.GetContextFlags(context) & API_CONTEXT_RESP3;
    api.ReplyWithArray(context, (long)found);
    for (size_t i = 0; i < found; i++)
        (maps ? reply_finding_as_map : reply_finding_as_line)(context, &findings[i]);
    return API_OK;
}

size_t doctor_log_failures(api_context *context, const char *before)
{
    struct doctor_finding findings[DOCTOR_FINDINGS];
    size_t count = examine(context, findings), lines = 0;
    for (size_t i = 0; i < count; i++) {
        const struct doctor_finding *finding = &findings[i];
        if (finding->status != DOCTOR_FAIL)
            continue;
        api.Log(NULL, "warning", "uffd: %s%s: %s; %s", before, finding->name,
                finding->text, finding->remedy);
        before = "";
        lines++;
    }
    return lines;
}
