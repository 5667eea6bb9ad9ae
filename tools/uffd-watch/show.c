#include "show.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "meanings.h"

#define BAR_WIDTH 30
#define MEGABYTE  1048576.0

enum { PLAIN = 0, RED = 31, GREEN = 32, YELLOW = 33, CYAN = 36 };

/* ---- for people ------------------------------------------------------------------ */

static void show_bar(double share)
{
    putchar('[');
    for (int i = 0; i < BAR_WIDTH; i++)
        putchar(i < share * BAR_WIDTH ? '#' : '.');
    printf("] %3.0f %%", share * 100);
}

static void show_progress(const struct watched *server)
{
    double done = watched_number(server, "uffd_keys_saved");
    double total = watched_number(server, "uffd_keys_total");
    double share = total > 0 ? done / total : 0, left = watched_seconds_left(server);
    printf("  ");
    show_bar(share);
    printf("  %.0f of %.0f keys", done, total);
    if (left >= 0)
        printf(", about %.0f s left", left);
    putchar('\n');
}

static void show_buffer(const struct watched *server)
{
    printf("  buffer %.1f of %.1f MB (peak %.1f), spool %.1f MB, %.0f faults/s, "
           "%.0f writer waits (%.1f ms)\n",
           watched_number(server, "uffd_buffer_used_bytes") / MEGABYTE,
           watched_number(server, "uffd_buffer_limit_bytes") / MEGABYTE,
           watched_number(server, "uffd_buffer_peak_bytes") / MEGABYTE,
           watched_number(server, "uffd_spool_bytes") / MEGABYTE,
           server->faults_per_second, watched_number(server, "uffd_writer_waits"),
           watched_number(server, "uffd_writer_wait_usec") / 1000);
}

static void show_past(const struct watched *server)
{
    printf("  last save %.1f s, freeze of the last saves:",
           watched_number(server, "uffd_last_save_msec") / 1000);
    for (int i = 0; i < server->freeze_count; i++)
        printf(" %.2f", server->freezes_msec[i]);
    printf("%s\n", server->freeze_count ? " ms" : " none yet");
    printf("  saves ok %.0f, failed %.0f; forks replaced %.0f, made all the same %.0f",
           watched_number(server, "uffd_snapshots_ok"),
           watched_number(server, "uffd_snapshots_failed"),
           watched_number(server, "uffd_forks_replaced"),
           watched_number(server, "uffd_fork_fallbacks"));
    if (*watched_text(server, "uffd_last_fallback_reason"))
        printf(" (%s)", watched_text(server, "uffd_last_fallback_reason"));
    putchar('\n');
    if (*watched_text(server, "uffd_last_error"))
        printf("  last error: %s\n", watched_text(server, "uffd_last_error"));
}

/* ---- on a terminal ---- */

#define NAME_COLUMNS   10
#define FIGURE_COLUMNS 24

static void paint(const struct screen *screen, int colour)
{
    if (screen && screen->colour)
        printf("\033[%dm", colour);
}

static void show_looks(const struct screen *screen, const char *name,
                       const struct looks *looks, double most, double unit,
                       const char *unit_name, int colour)
{
    int columns = screen->columns - 2 - NAME_COLUMNS - FIGURE_COLUMNS;
    columns = columns < LOOKS_KEPT ? columns : LOOKS_KEPT;
    printf("  %-*s", NAME_COLUMNS, name);
    paint(screen, colour);
    double largest = spark_show(looks, most, columns, screen->unicode);
    paint(screen, PLAIN);
    printf(" %.*f %s, most %.*f\n", unit > 1, looks->values[0] / unit, unit_name,
           unit > 1, largest / unit);
}

static void show_ended(const struct screen *screen, const struct ended *save)
{
    char when[16];
    strftime(when, sizeof(when), "%H:%M:%S", localtime(&save->seen));
    printf("  %s ", when);
    paint(screen, strcmp(save->result, "ok") == 0 ? GREEN : RED);
    printf("%-9s", save->result);
    paint(screen, PLAIN);
    if (save->save_msec > 0)
        printf(" %.1f s, freeze %.2f ms, %.0f faults, buffer %.1f MB, %.0f waits",
               save->save_msec / 1000, save->freeze_msec, save->faults,
               save->buffer_peak / MEGABYTE, save->waits);
    putchar('\n');
}

static void show_live(const struct watched *server, const struct screen *screen)
{
    show_looks(screen, "faults", &server->rates, 0, 1, "/s", CYAN);
    show_looks(screen, "buffer", &server->buffers,
               watched_number(server, "uffd_buffer_limit_bytes"), MEGABYTE, "MB", GREEN);
    show_looks(screen, "waits", &server->waits, 0, 1, "/s", RED);
    for (int i = 0; i < server->ended_count; i++)
        show_ended(screen, &server->ended[i]);
}

static int colour_of(const struct watched *server)
{
    if (strcmp(watched_text(server, "uffd_state"), "idle") != 0)
        return YELLOW;
    return watched_trouble(server) ? RED : GREEN;
}

static void show_one(const struct watched *server, const struct screen *screen)
{
    if (server->error[0]) {
        printf("%s  ", server->name);
        paint(screen, RED);
        printf("%s", server->error);
        paint(screen, PLAIN);
        printf("\n\n");
        return;
    }
    printf("%s  ", server->name);
    bool valkey = *watched_text(server, "valkey_version") != '\0';
    printf("%s %s  ", valkey ? "valkey" : "redis",
           watched_text(server, valkey ? "valkey_version" : "redis_version"));
    printf("uffd %s  ", watched_text(server, "uffd_version"));
    paint(screen, colour_of(server));
    printf("%s", watched_text(server, "uffd_state"));
    paint(screen, PLAIN);
    putchar('\n');
    if (watched_number(server, "uffd_supported") == 0)
        printf("  saves keep using fork: %s\n",
               watched_text(server, "uffd_unsupported_reason"));
    if (strcmp(watched_text(server, "uffd_state"), "idle") != 0)
        show_progress(server);
    show_buffer(server);
    show_past(server);
    if (screen)
        show_live(server, screen);
    putchar('\n');
}

void show_screen(const struct watched *servers, int count, const struct screen *screen)
{
    for (int i = 0; i < count; i++)
        show_one(&servers[i], screen);
}

void show_lines(const struct watched *servers, int count)
{
    char when[32];
    time_t now = time(NULL);
    strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", localtime(&now));
    for (int i = 0; i < count; i++) {
        const struct watched *server = &servers[i];
        printf("%s %s ", when, server->name);
        if (server->error[0]) {
            printf("error: %s\n", server->error);
            continue;
        }
        printf("%s ", watched_text(server, "uffd_state"));
        printf(
            "keys %.0f/%.0f buffer %.1f/%.1f MB spool %.1f MB faults %.0f/s waits %.0f "
            "freeze %.2f ms save %.1f s ok %.0f failed %.0f fallbacks %.0f\n",
            watched_number(server, "uffd_keys_saved"),
            watched_number(server, "uffd_keys_total"),
            watched_number(server, "uffd_buffer_used_bytes") / MEGABYTE,
            watched_number(server, "uffd_buffer_limit_bytes") / MEGABYTE,
            watched_number(server, "uffd_spool_bytes") / MEGABYTE,
            server->faults_per_second, watched_number(server, "uffd_writer_waits"),
            watched_number(server, "uffd_last_freeze_usec") / 1000,
            watched_number(server, "uffd_last_save_msec") / 1000,
            watched_number(server, "uffd_snapshots_ok"),
            watched_number(server, "uffd_snapshots_failed"),
            watched_number(server, "uffd_fork_fallbacks"));
    }
}

/* ---- for programs ---------------------------------------------------------------- */

/* Calls `take` for each line "uffd_name:value" of INFO. */
static void each_field(const struct watched *server,
                       void (*take)(const struct watched *, const char *name,
                                    const char *value, bool number))
{
    char name[128], value[256];
    for (const char *line = server->info; line && *line;) {
        size_t end = strcspn(line, "\r\n"), colon = strcspn(line, ":");
        if (strncmp(line, "uffd_", 5) == 0 && colon < end && colon < sizeof(name) &&
            end - colon - 1 < sizeof(value)) {
            memcpy(name, line, colon);
            name[colon] = '\0';
            memcpy(value, line + colon + 1, end - colon - 1);
            value[end - colon - 1] = '\0';
            bool number = *value && value[strspn(value, "0123456789.")] == '\0' &&
                          strcmp(name, "uffd_version") != 0;
            take(server, name, value, number);
        }
        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }
}

/* A string with what JSON and Prometheus both want escaped. */
static void put_quoted(FILE *to, const char *text)
{
    putc('"', to);
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            fprintf(to, "\\%c", *text);
        else if (!iscntrl((unsigned char)*text))
            putc(*text, to);
    putc('"', to);
}

static void json_field(const struct watched *server, const char *name, const char *value,
                       bool number)
{
    (void)server;
    printf(",\"%s\":", name);
    if (number)
        printf("%s", value);
    else
        put_quoted(stdout, value);
}

void show_json(const struct watched *servers, int count)
{
    putchar('[');
    for (int i = 0; i < count; i++) {
        printf("%s{\"server\":", i ? "," : "");
        put_quoted(stdout, servers[i].name);
        if (servers[i].error[0]) {
            printf(",\"error\":");
            put_quoted(stdout, servers[i].error);
        } else {
            printf(",\"faults_per_second\":%.1f", servers[i].faults_per_second);
            each_field(&servers[i], json_field);
        }
        putchar('}');
    }
    printf("]\n");
}

static bool is_counter(const char *name)
{
    static const char *const counters[] = {
        "uffd_snapshots_ok",      "uffd_snapshots_failed", "uffd_snapshots_cancelled",
        "uffd_forks_replaced",    "uffd_fork_fallbacks",   "uffd_advices_refused",
        "uffd_huge_pages_mended", "uffd_backups_ok",       "uffd_backups_failed",
        "uffd_backups_cancelled"};
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        if (strcmp(name, counters[i]) == 0)
            return true;
    return false;
}

/* As Prometheus wants it: counters, and nothing else, end with _total. */
static void metric_name(const char *field, char *name, size_t size)
{
    if (strcmp(field, "uffd_keys_total") == 0)
        field = "uffd_keys_to_save";
    snprintf(name, size, "%s%s", field, is_counter(field) ? "_total" : "");
}

static const char *meaning_of(const char *field)
{
    for (const struct meaning *known = meanings; known->field; known++)
        if (strcmp(known->field, field) == 0)
            return known->text;
    return "of a newer module than this uffd-watch";
}

static void sample(FILE *to, const struct watched *server, const char *field,
                   const char *name)
{
    const char *value = watched_text(server, field);
    if (server->error[0] || !*value)
        return;
    fprintf(to, "%s{server=", name);
    put_quoted(to, server->name);
    fprintf(to, "} %s\n", value);
}

static FILE *family_to;
static const struct watched *all_servers;
static int all_count;

/* The format wants all samples of a name together. */
static void family(const struct watched *server, const char *field, const char *value,
                   bool number)
{
    (void)server, (void)value;
    char name[128];
    if (!number)
        return;
    metric_name(field, name, sizeof(name));
    fprintf(family_to, "# HELP %s %s\n", name, meaning_of(field));
    fprintf(family_to, "# TYPE %s %s\n", name, is_counter(field) ? "counter" : "gauge");
    for (int i = 0; i < all_count; i++)
        sample(family_to, &all_servers[i], field, name);
}

/* Texts are labels of a figure that is always 1. */
static void show_reasons(FILE *to, const struct watched *servers, int count)
{
    static const char *const texts[] = {"version", "last_fallback_reason", "last_error",
                                        "unsupported_reason"};
    fprintf(to, "# HELP uffd_info Why saves last forked, failed, or are not served.\n"
                "# TYPE uffd_info gauge\n");
    for (int i = 0; i < count; i++) {
        if (servers[i].error[0])
            continue;
        fprintf(to, "uffd_info{server=");
        put_quoted(to, servers[i].name);
        for (size_t text = 0; text < sizeof(texts) / sizeof(texts[0]); text++) {
            char field[64];
            snprintf(field, sizeof(field), "uffd_%s", texts[text]);
            fprintf(to, ",%s=", texts[text]);
            put_quoted(to, watched_text(&servers[i], field));
        }
        fprintf(to, "} 1\n");
    }
}

void show_prometheus(FILE *to, const struct watched *servers, int count)
{
    family_to = to;
    all_servers = servers;
    all_count = count;
    fprintf(to, "# HELP uffd_up Whether the server answered and has the module.\n"
                "# TYPE uffd_up gauge\n");
    for (int i = 0; i < count; i++) {
        fprintf(to, "uffd_up{server=");
        put_quoted(to, servers[i].name);
        fprintf(to, "} %d\n", servers[i].error[0] == '\0');
    }
    show_reasons(to, servers, count);
    for (int i = 0; i < count; i++)
        if (!servers[i].error[0]) {
            each_field(&servers[i], family);
            break;
        }
}
