#include "reply.h"

#include <stdio.h>

void reply_text(api_context *context, const char *name, const char *value)
{
    api.ReplyWithCString(context, name);
    api.ReplyWithCString(context, value);
}

void reply_number(api_context *context, const char *name, uint64_t value)
{
    api.ReplyWithCString(context, name);
    api.ReplyWithLongLong(context, (long long)value);
}

int reply_error(api_context *context, const char *why)
{
    char text[512];
    snprintf(text, sizeof(text), "ERR %s", why);
    return api.ReplyWithError(context, text);
}

bool may_block(api_context *context)
{
    return !(api.GetContextFlags(context) &
             (API_CONTEXT_DENY_BLOCKING | API_CONTEXT_MULTI | API_CONTEXT_LUA));
}

bool take_number(api_context *context, api_string **arguments, int count, long long least,
                 long long most, const char *range_error, long long *number)
{
    if (count < 2)
        return true;
    if (api.StringToLongLong(arguments[1], number) != API_OK) {
        api.ReplyWithError(context, "ERR value is not an integer or out of range");
        return false;
    }
    if (*number >= least && *number <= most)
        return true;
    api.ReplyWithError(context, range_error);
    return false;
}
