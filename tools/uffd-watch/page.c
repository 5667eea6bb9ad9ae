#include "page.h"

#include <string.h>

#define MEGABYTE 1048576.0
#define WIDTH    640
#define HEIGHT   48

static const char head[] =
    "<!DOCTYPE html>\n<html lang=en><meta charset=utf-8><meta http-equiv=refresh "
    "content=2>\n"
    "<meta name=viewport content='width=device-width'><title>rdb_uffd</title>\n"
    "<style>\n"
    ":root{color-scheme:light dark;--line:#8884;--soft:#888}\n"
    "body{font:14px/1.5 system-ui,sans-serif;max-width:52em;margin:2em auto;padding:0 "
    "1em;overflow-wrap:anywhere}\n"
    "section{border:1px solid var(--line);border-radius:6px;padding:1em;margin:1em 0}\n"
    "h2{font-size:1.1em;margin:0 0 .5em}h2 small{font-weight:400;color:var(--soft)}\n"
    ".state{float:right;padding:0 .6em;border-radius:1em;color:#fff;background:#2a8}\n"
    ".busy{background:#c80}.state.bad{background:#c33}td.bad{color:#c33}\n"
    "progress{width:100%}table{border-collapse:collapse;width:100%}\n"
    "th{text-align:left;font-weight:400;color:var(--soft)}\n"
    "td,th{padding:.15em 1em .15em 0;border-top:1px solid var(--line)}\n"
    ".wide{overflow-x:auto}.wide td,.wide th,.name{white-space:nowrap}\n"
    "@media(max-width:30em){.wide td,.wide th{padding-right:.5em;font-size:.85em}}\n"
    "svg{width:100%;height:48px;display:block;border-bottom:1px solid var(--line)}"
    "figure{margin:.6em 0}figcaption{color:var(--soft)}\n"
    "</style>\n";

/* What a server says is text, whatever is in it. */
static void put_text(FILE *to, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            fputs("&lt;", to);
        else if (*text == '&')
            fputs("&amp;", to);
        else
            putc(*text, to);
}

static void write_row(FILE *to, const char *name, const char *text)
{
    fprintf(to, "<tr><th>%s<td>", name);
    put_text(to, text);
    putc('\n', to);
}

/* The newest on the right. `limit`: what the whole height stands for, unless more is shown;
 * 0: none. */
static void write_looks(FILE *to, const char *name, const struct looks *looks,
                        double limit, double unit, const char *unit_name,
                        const char *colour)
{
    double largest = 0;
    for (int i = 0; i < looks->count; i++)
        largest = looks->values[i] > largest ? looks->values[i] : largest;
    double scale = largest > limit ? largest : limit;
    fprintf(to, "<figure><figcaption>%s: %.*f ", name, unit > 1,
            looks->count ? looks->values[0] / unit : 0);
    if (limit > 0)
        fprintf(to, "of %.*f ", unit > 1, limit / unit);
    fprintf(to,
            "%s, most %.*f</figcaption>"
            "<svg viewBox='0 0 %d %d' preserveAspectRatio=none role=img>"
            "<path fill='%s' d='M%d %d",
            unit_name, unit > 1, largest / unit, WIDTH, HEIGHT, colour, WIDTH, HEIGHT);
    const double step = (double)WIDTH / LOOKS_KEPT;
    for (int i = 0; i < looks->count; i++) {
        double high = scale > 0 ? looks->values[i] / scale * (HEIGHT - 2) : 0;
        fprintf(to, "V%.1fH%.1f", HEIGHT - high, WIDTH - step * (i + 1));
    }
    fprintf(to, "V%dZ'/></svg></figure>\n", HEIGHT);
}

static void write_progress(FILE *to, const struct watched *server)
{
    double done = watched_number(server, "uffd_keys_saved"),
           total = watched_number(server, "uffd_keys_total");
    fprintf(to, "<progress max=%.0f value=%.0f></progress> %.0f of %.0f keys",
            total > 0 ? total : 1, done, done, total);
    double left = watched_seconds_left(server);
    if (left >= 0)
        fprintf(to, ", about %.0f s left", left);
    putc('\n', to);
}

static void write_ended(FILE *to, const struct watched *server)
{
    if (!server->ended_count)
        return;
    fputs("<div class=wide><table><tr><th>ended<th>result<th>save<th>freeze<th>faults"
          "<th>buffer<th>waits\n",
          to);
    for (int i = 0; i < server->ended_count; i++) {
        const struct ended *save = &server->ended[i];
        char when[16];
        strftime(when, sizeof(when), "%H:%M:%S", localtime(&save->seen));
        fprintf(to, "<tr><td>%s<td%s>%s", when,
                strcmp(save->result, "ok") == 0 ? "" : " class=bad", save->result);
        if (save->save_msec > 0)
            fprintf(to, "<td>%.1f s<td>%.2f ms<td>%.0f<td>%.1f MB<td>%.0f",
                    save->save_msec / 1000, save->freeze_msec, save->faults,
                    save->buffer_peak / MEGABYTE, save->waits);
        else
            fputs("<td colspan=5>", to);
        putc('\n', to);
    }
    fputs("</table></div>\n", to);
}

/* While one runs, INFO says of that one what it says of the last one otherwise. */
static void write_save(FILE *to, const struct watched *server, bool idle)
{
    const char *passed = idle ? "uffd_last_save_msec" : "uffd_save_elapsed_msec";
    fprintf(to, "<tr><th class=name>%s save<td>%.1f s%s, freeze %.2f ms, %.0f faults, ",
            idle ? "last" : "this", watched_number(server, passed) / 1000,
            idle ? "" : " so far", watched_number(server, "uffd_last_freeze_usec") / 1000,
            watched_number(server, "uffd_last_faults"));
    fprintf(to, "%.0f writer waits\n", watched_number(server, "uffd_writer_waits"));
}

static void write_figures(FILE *to, const struct watched *server, bool idle)
{
    static const struct {
        const char *field, *name;
    } texts[] = {{"uffd_unsupported_reason", "saves keep using fork"},
                 {"uffd_last_fallback_reason", "last fork"},
                 {"uffd_last_error", "last error"}};
    fprintf(to, "<table><tr><th>saves<td>%.0f ok, %.0f failed, %.0f forked\n",
            watched_number(server, "uffd_snapshots_ok"),
            watched_number(server, "uffd_snapshots_failed"),
            watched_number(server, "uffd_fork_fallbacks"));
    write_save(to, server, idle);
    fprintf(to, "<tr><th>spool<td>%.1f MB\n",
            watched_number(server, "uffd_spool_bytes") / MEGABYTE);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (*watched_text(server, texts[i].field))
            write_row(to, texts[i].name, watched_text(server, texts[i].field));
    fputs("</table>\n", to);
}

static void write_heading(FILE *to, const struct watched *server, const char *class,
                          const char *state)
{
    fprintf(to, "<section><span class='state%s'>", class);
    put_text(to, state);
    fputs("</span><h2>", to);
    put_text(to, server->name);
}

static void write_server(FILE *to, const struct watched *server)
{
    if (server->error[0]) {
        write_heading(to, server, " bad", "not there");
        fputs("</h2>", to);
        put_text(to, server->error);
        fputs("</section>\n", to);
        return;
    }
    bool valkey = *watched_text(server, "valkey_version") != '\0';
    bool idle = strcmp(watched_text(server, "uffd_state"), "idle") == 0;
    const char *trouble = idle ? watched_trouble(server) : NULL,
               *class = idle ? "" : " busy";
    write_heading(to, server, trouble ? " bad" : class,
                  trouble ? trouble : watched_text(server, "uffd_state"));
    fprintf(to, " <small>%s ", valkey ? "valkey" : "redis");
    put_text(to, watched_text(server, valkey ? "valkey_version" : "redis_version"));
    fputs(", uffd ", to);
    put_text(to, watched_text(server, "uffd_version"));
    fputs("</small></h2>\n", to);
    if (!idle)
        write_progress(to, server);
    write_looks(to, "faults a second", &server->rates, 0, 1, "/s", "#29c");
    write_looks(to, "buffer", &server->buffers,
                watched_number(server, "uffd_buffer_limit_bytes"), MEGABYTE, "MB",
                "#2a8");
    write_looks(to, "waits a second", &server->waits, 0, 1, "/s", "#c33");
    write_figures(to, server, idle);
    write_ended(to, server);
    fputs("</section>\n", to);
}

void page_write(FILE *to, const struct watched *servers, int count)
{
    fputs(head, to);
    for (int i = 0; i < count; i++)
        write_server(to, &servers[i]);
    fputs("<p><a href=/metrics>metrics</a> <a href=/healthz>health</a>\n", to);
}
