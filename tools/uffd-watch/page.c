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
    "1em}\n"
    "section{border:1px solid var(--line);border-radius:6px;padding:1em;margin:1em 0}\n"
    "h2{font-size:1.1em;margin:0 0 .5em}h2 small{font-weight:400;color:var(--soft)}\n"
    ".state{float:right;padding:0 .6em;border-radius:1em;color:#fff;background:#2a8}\n"
    ".busy{background:#c80}.bad{background:#c33}\n"
    "progress{width:100%}table{border-collapse:collapse;width:100%}\n"
    "th{text-align:left;font-weight:400;color:var(--soft)}\n"
    "td,th{padding:.15em 1em .15em 0;border-top:1px solid var(--line)}\n"
    "svg{width:100%;height:48px;display:block}"
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

/* The newest on the right. `most`: what the whole height stands for, if that is more than
 * all that is shown. */
static void write_looks(FILE *to, const char *name, const struct looks *looks,
                        double most, double unit, const char *unit_name,
                        const char *colour)
{
    double largest = 0;
    for (int i = 0; i < looks->count; i++)
        largest = looks->values[i] > largest ? looks->values[i] : largest;
    double scale = largest > most ? largest : most;
    fprintf(to,
            "<figure><figcaption>%s: %.*f %s, most %.*f</figcaption>"
            "<svg viewBox='0 0 %d %d' preserveAspectRatio=none role=img>"
            "<path fill='%s' d='M%d %d",
            name, unit > 1, looks->count ? looks->values[0] / unit : 0, unit_name,
            unit > 1, largest / unit, WIDTH, HEIGHT, colour, WIDTH, HEIGHT);
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
    fprintf(to, "<progress max=%.0f value=%.0f></progress> %.0f of %.0f keys\n",
            total > 0 ? total : 1, done, done, total);
}

static void write_ended(FILE *to, const struct watched *server)
{
    if (!server->ended_count)
        return;
    fputs(
        "<table><tr><th>ended<th>result<th>save<th>freeze<th>faults<th>buffer<th>waits\n",
        to);
    for (int i = 0; i < server->ended_count; i++) {
        const struct ended *save = &server->ended[i];
        char when[16];
        strftime(when, sizeof(when), "%H:%M:%S", localtime(&save->seen));
        fprintf(to, "<tr><td>%s<td>%s<td>%.1f s<td>%.2f ms<td>%.0f<td>%.1f MB<td>%.0f\n",
                when, save->result, save->save_msec / 1000, save->freeze_msec,
                save->faults, save->buffer_peak / MEGABYTE, save->waits);
    }
    fputs("</table>\n", to);
}

static void write_figures(FILE *to, const struct watched *server)
{
    static const struct {
        const char *field, *name;
    } texts[] = {{"uffd_unsupported_reason", "saves keep using fork"},
                 {"uffd_last_fallback_reason", "last fork"},
                 {"uffd_last_error", "last error"}};
    fprintf(
        to,
        "<table><tr><th>saves<td>%.0f ok, %.0f failed, %.0f forked\n"
        "<tr><th>last save<td>%.1f s, freeze %.2f ms, %.0f faults, %.0f writer waits\n"
        "<tr><th>spool<td>%.1f MB\n",
        watched_number(server, "uffd_snapshots_ok"),
        watched_number(server, "uffd_snapshots_failed"),
        watched_number(server, "uffd_fork_fallbacks"),
        watched_number(server, "uffd_last_save_msec") / 1000,
        watched_number(server, "uffd_last_freeze_usec") / 1000,
        watched_number(server, "uffd_last_faults"),
        watched_number(server, "uffd_writer_waits"),
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
    write_heading(to, server, idle ? "" : " busy", watched_text(server, "uffd_state"));
    fprintf(to, " <small>%s ", valkey ? "valkey" : "redis");
    put_text(to, watched_text(server, valkey ? "valkey_version" : "redis_version"));
    fputs(", uffd ", to);
    put_text(to, watched_text(server, "uffd_version"));
    fputs("</small></h2>\n", to);
    if (!idle)
        write_progress(to, server);
    write_looks(to, "faults a second", &server->rates, 0, 1, "/s", "#29c");
    write_looks(to, "buffer, of its limit", &server->buffers,
                watched_number(server, "uffd_buffer_limit_bytes"), MEGABYTE, "MB",
                "#2a8");
    write_looks(to, "waits a second", &server->waits, 0, 1, "/s", "#c33");
    write_figures(to, server);
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
