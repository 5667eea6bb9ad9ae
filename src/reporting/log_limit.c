#include "log_limit.h"

static void begin_anew(struct log_limit *limit, uint64_t now_usec)
{
    if (now_usec - limit->began_usec < LOG_LIMIT_USEC)
        return;
    if (limit->lines > LOG_LIMIT_LINES)
        limit->left_out += limit->lines - LOG_LIMIT_LINES;
    limit->lines = 0;
    limit->began_usec = now_usec;
}

bool log_limit_pass(struct log_limit *limit, uint64_t now_usec)
{
    begin_anew(limit, now_usec);
    return ++limit->lines <= LOG_LIMIT_LINES;
}

uint64_t log_limit_left_out(struct log_limit *limit, uint64_t now_usec)
{
    begin_anew(limit, now_usec);
    uint64_t left_out = limit->left_out;
    limit->left_out = 0;
    return left_out;
}
