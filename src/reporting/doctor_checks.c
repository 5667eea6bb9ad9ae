#include "doctor_checks.h"

#include <stdarg.h>
#include <stdio.h>

#include "snapshot/settings.h"

void doctor_say(struct examination *on, enum doctor_status status, const char *format,
                ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(on->finding->text, sizeof(on->finding->text), format, arguments);
    va_end(arguments);
    on->finding->status = status;
}

void doctor_advise(struct examination *on, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(on->finding->remedy, sizeof(on->finding->remedy), format, arguments);
    va_end(arguments);
}

const char *doctor_falls_back(const struct examination *on)
{
    return on->now->settings->fallback ? "falls back to fork"
                                       : "is refused (fallback no)";
}
